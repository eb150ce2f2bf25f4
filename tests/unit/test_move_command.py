"""``myscheduler move``: which addresses it takes, and what it prints."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from app.__main__ import main
from app.db.move import Moved, MoveOutcome
from app.db.move_source import Checksum
from app.domain.errors import StorageInUseError

SQLITE, POSTGRES = "sqlite:///jobs.db", "postgresql://me:hunter2@db/jobs"
SUMS = {"jobs": Checksum(2, "0f"), "executions": Checksum(10, "a0")}


class _Move:
    """Stands in for ``app.main.move`` and remembers the addresses it was called with."""

    def __init__(self):
        self.answer = Moved(outcome=MoveOutcome.MOVED, sums=SUMS)
        self.error = None
        self.addresses = None

    def __call__(self, settings, source, target):
        self.addresses = (source, target)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture(autouse=True)
def environ(monkeypatch, tmp_path):
    """An empty environment, and an empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, clear=True):
        yield os.environ


@pytest.fixture
def program(monkeypatch):
    """Put a program in the place of ``app.main``."""
    module, program = ModuleType("app.main"), _Move()
    module.__dict__["move"] = program
    monkeypatch.setitem(sys.modules, "app.main", module)
    return program


@pytest.fixture
def command(monkeypatch, capsys):
    """Run ``move`` in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["myscheduler", "move", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("--from", SQLITE, "--to", POSTGRES), {}),
        (("--from", SQLITE), {"DATABASE_URL": POSTGRES}),
        (("--to", POSTGRES), {"DATABASE_URL": SQLITE}),
        ((), {"DATABASE_URL": SQLITE, "MYSCHEDULER_DATABASE_DIRECT_URL": POSTGRES}),
        (
            ("--from", SQLITE),
            {"DATABASE_URL": "postgresql://h/d", "MYSCHEDULER_DATABASE_DIRECT_URL": POSTGRES},
        ),
    ],
)
def test_an_address_left_out_is_the_settings(command, program, environ, arguments, variables):
    """Either address may come from the settings, so that no password need be a flag."""
    environ.update(variables)
    assert command(*arguments)[0] == 0
    assert program.addresses == (SQLITE, POSTGRES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", SQLITE, "--to", SQLITE), "--to must be a PostgreSQL address"),
        (("--from", POSTGRES, "--to", POSTGRES), "--from must be an SQLite file"),
        (("--from", "jobs.db", "--to", POSTGRES), "--from is not a database address"),
        (("--from", SQLITE, "--to", "postgresql://u:hunter2@x@h/d"), "--to cannot be read"),
        (("--from", SQLITE), "--to must be a PostgreSQL address"),
    ],
)
def test_what_cannot_be_moved(command, program, arguments, told):
    """An address of the wrong kind is named by its flag, never repeated, and the code is 2."""
    code, out, err = command(*arguments)
    assert (code, out, program.addresses) == (2, "", None)
    assert told in err
    assert "hunter2" not in err


def test_what_was_moved_is_a_table(command, program):
    """Each table is a line with its rows and checksum; below it stands what to do next."""
    code, out, err = command("--from", SQLITE, "--to", POSTGRES)
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert lines[1:3] == [["jobs", "2", "0f"], ["executions", "10", "a0"]]
    assert "never serve from the SQLite file again" in out
    program.answer = Moved(outcome=MoveOutcome.NOTHING_TO_DO, sums=SUMS)
    assert "there is nothing to do" in command("--from", SQLITE, "--to", POSTGRES)[1]


@pytest.mark.usefixtures("program")
def test_what_was_moved_as_json(command):
    """With --json it is one document."""
    code, out, _ = command("--from", SQLITE, "--to", POSTGRES, "--json")
    assert code == 0
    assert json.loads(out) == {
        "outcome": "moved",
        "sums": {
            "jobs": {"rows": 2, "digest": "0f"},
            "executions": {"rows": 10, "digest": "a0"},
        },
    }


def test_a_refusal_is_one_sentence(command, program):
    """What is refused is one sentence, and code 1."""
    program.error = StorageInUseError("Stop it first")
    assert command("--from", SQLITE, "--to", POSTGRES) == (1, "", "Stop it first\n")


def test_no_source_is_said(command):
    """A source that is not there is no success, and is not made."""
    code, out, err = command("--from", SQLITE, "--to", POSTGRES)
    assert (code, out) == (1, "")
    assert "There is no database at" in err
    assert list(Path().iterdir()) == []
