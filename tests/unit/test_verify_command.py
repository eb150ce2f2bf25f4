"""``myscheduler verify``."""

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import sqlalchemy as sa
import structlog

from app.__main__ import main
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.domain.clock import to_us
from app.models.tables import jobs
from app.repositories import execution_repository, job_repository
from tests.conformance.builders import NOW, NOW_US, make_job, make_unrun
from tests.support.databases import open_unit_of_work
from tests.support.homes import Home

DATA = Path("data/jobs.db")
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def environ(monkeypatch, tmp_path):
    """An empty environment, and an empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, clear=True):
        yield os.environ
    structlog.reset_defaults()  # commands configure logging for a process of their own


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["myscheduler", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return run


async def fill(home: Home, instants: int) -> None:
    """Store a job of every minute with a row for each of its instants."""
    options = DatabaseOptions(url=home.url)
    await migrate(options)
    unit_of_work = open_unit_of_work(options)
    job = make_job()
    rows = [make_unrun(60 * number) for number in range(1, instants + 1)]
    await unit_of_work.write(
        lambda connection: job_repository.insert_job(connection, job, actor=None)
    )
    await unit_of_work.write(
        lambda connection: execution_repository.insert_executions(connection, rows, now_us=NOW_US)
    )
    await unit_of_work.write(
        lambda connection: connection.execute(
            sa.update(jobs).values(
                cursor_us=to_us(NOW + instants * MINUTE),
                next_run_us=to_us(NOW + (instants + 1) * MINUTE),
            )
        )
    )
    await unit_of_work.close()


@pytest.fixture
def database(environ, home):
    """Make a ledger of ten instants where the command looks for it."""
    environ["DATABASE_URL"] = home.url
    asyncio.run(fill(home, 10))
    with home.open_sql() as opened:
        yield opened


@pytest.mark.usefixtures("database")
def test_a_whole_ledger_is_proven(command):
    """One line says how much is accounted for, and the exit code is 0."""
    code, out, err = command("verify")
    assert (code, err) == (0, "")
    assert out.startswith("10 of 10 due instants are accounted for (jobs 1, revisions 1, ")


def test_what_is_missing_is_listed(command, database):
    """Missing instants and rows too many are lines, and the exit code is 1."""
    database.rows("UPDATE jobs SET next_run_us = NULL, state = 'finished'")
    database.rows("DELETE FROM executions WHERE seq = 4")
    code, out, _ = command("verify")
    assert code == 1
    assert "9 of 10 due instants are accounted for" in out
    (line,) = [line for line in out.splitlines() if "unaccounted" in line]
    assert line.split() == ["job", "1", *2 * ["2026-11-21T16:04:00.123457+09:00"], "1",
                            "unaccounted"]  # fmt: skip


def test_json_has_all_of_it(command, database):
    """With --json the answer is the API's, for programs."""
    database.rows("UPDATE jobs SET cursor_us = cursor_us + 30000000, pruned_us = 5")
    database.rows("DELETE FROM executions WHERE seq IN (1, 2, 9)")
    code, out, _ = command("verify", "--json")
    answer = json.loads(out)
    assert code == 1
    assert (answer["expected"], answer["accounted"], answer["proven"]) == (10, 7, False)
    assert [found["count"] for found in answer["unaccounted"]] == [2, 1]
    assert answer["pruned_until"].startswith("1970-01-01T09:00:00")


def test_a_span_and_a_job_may_be_named(command, database):
    """Only what is asked for is looked at; without an offset times are local."""
    database.rows("DELETE FROM executions WHERE seq IN (1, 10)")
    span = ("--from", "2026-11-21T16:02", "--to", "2026-11-21 16:10:00+09:00")
    code, out, _ = command("verify", *span, "--job", "job")
    assert (code, out[:8]) == (0, "8 of 8 d")
    code, out, err = command("verify", "--job", "none")
    assert (code, out, err) == (1, "", "Job none not found\n")


def test_what_else_must_be_known_is_said(command, database):
    """Revisions that cannot be recomputed, and what retention removed, are told."""
    database.rows("UPDATE jobs SET pruned_us = 5")
    database.rows("UPDATE job_revisions SET schedule = '{}'")
    _, out, _ = command("verify")
    assert "1 revisions cannot be recomputed, the first of job job" in out
    assert "Retention has removed rows up to 1970-01-01T09:00:00.000005+09:00" in out


def test_many_findings_are_cut(command, environ, home):
    """When there are more findings than are listed, that is said."""
    environ["DATABASE_URL"] = home.url
    asyncio.run(fill(home, 400))
    home.rows("DELETE FROM executions WHERE seq % 2 = 0")
    code, out, _ = command("verify")
    assert code == 1
    assert "200 of 400" in out
    assert "There are more than are listed" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "soon"), "--from: "),
        (("--from", "2026-06-02", "--to", "2026-06-01"), "--to: must be later than from"),
        (("--job", "x" * 256), "--job: "),
    ],
)
def test_what_cannot_be_asked_is_refused(command, arguments, said):
    """A time that cannot be read and a span without length end with 2, naming the flag."""
    code, out, err = command("verify", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(said)


def test_without_a_database_nothing_is_made(command):
    """Where there is no database a sentence says what to do, and none is made."""
    code, out, err = command("verify")
    assert (code, out) == (1, "")
    assert "There is no database where DATABASE_URL points" in err
    assert not DATA.exists()
