"""``myscheduler backup`` and ``myscheduler check``."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
import structlog

from app.__main__ import main
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from tests.support.databases import DatabaseKind

ABOUT_THE_FILE = pytest.mark.only_on(DatabaseKind.SQLITE, because="a server keeps its own files")
CHECKS = ["integrity", "foreign_keys", "revision", "schema", "leases", "jobs", "ledger"]


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


@pytest.fixture
def database(environ, home):
    """Make an empty database where the commands look for it."""
    environ["DATABASE_URL"] = home.url
    asyncio.run(migrate(DatabaseOptions(url=home.url)))
    return home


@ABOUT_THE_FILE
@pytest.mark.usefixtures("database")
def test_backup_says_what_it_made(command, tmp_path):
    """The new file, its size and what it holds are one line; the file is there."""
    code, out, err = command("backup", "copy.db")
    assert (code, err) == (0, "")
    pattern = r"Wrote (.+) \(0\.\d MiB, checked\): jobs 0, executions 0, schema \d{4}\n"
    found = re.fullmatch(pattern, out)
    assert found is not None, out
    assert Path(found[1]) == tmp_path / "copy.db"
    assert Path("copy.db").read_bytes()[:15] == b"SQLite format 3"


@ABOUT_THE_FILE
@pytest.mark.usefixtures("database")
def test_backup_overwrites_nothing(command):
    """A name that is taken is refused in a sentence, with code 1."""
    Path("copy.db").write_text("mine")
    code, out, err = command("backup", "copy.db")
    assert (code, out) == (1, "")
    assert "copy.db exists already and was not changed; choose another name" in err
    assert Path("copy.db").read_text() == "mine"


@pytest.mark.parametrize("arguments", [("backup", "copy.db"), ("check",)])
def test_no_database_is_no_success(command, arguments):
    """Where there is no database nothing is made, and a sentence says so."""
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert "There is no database" in err
    assert "DATABASE_URL" in err
    assert list(Path().iterdir()) == []


def test_backup_of_postgresql(command, environ):
    """On PostgreSQL the sentence names its own tool, and no password."""
    environ["DATABASE_URL"] = "postgresql://me:hunter2@db/jobs"
    code, _, err = command("backup", "copy.db")
    assert code == 1
    assert "pg_dump" in err
    assert "hunter2" not in err


@pytest.mark.usefixtures("database")
def test_check_prints_a_line_for_each(command):
    """Every check is a line with its result, and all well is code 0."""
    code, out, err = command("check")
    head, *lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert head == ["Check", "Result", "Detail"]
    assert [line[:2] for line in lines] == [[name, "ok"] for name in CHECKS]


def test_check_tells_what_is_wrong(command, database):
    """What is wrong is told with what to do, for people and for programs, and is code 1."""
    on_table = " ON attempts" if database.kind is DatabaseKind.POSTGRES else ""
    database.rows(f"DROP TRIGGER attempts_are_final{on_table}")
    code, out, _ = command("check")
    assert code == 1
    assert re.search(
        r"^schema +WRONG +.*trigger attempts_are_final (differs|is missing)", out, re.MULTILINE
    )
    code, out, _ = command("check", "--json")
    found = json.loads(out)
    assert code == 1
    assert [one["name"] for one in found] == CHECKS
    assert [one["name"] for one in found if not one["well"]] == ["schema"]


@ABOUT_THE_FILE
def test_check_of_what_is_no_database(command, database):
    """A file that is no database fails every check in words, without log lines or a traceback."""
    database.file.write_text("no database " * 1000)
    code, out, err = command("check")
    assert (code, err) == (1, "")
    assert out.count("file is not a database") == len(CHECKS)
    assert database.file.read_text() == "no database " * 1000
