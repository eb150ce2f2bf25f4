import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from app import __version__
from app.__main__ import main
from app.core.config import SETTING_NAMES, Settings, describe_settings
from app.domain.errors import StorageInUseError, StorageUnavailableError

ROOT = Path(__file__).parents[2]


class _Program:
    """Stands in for ``app.main`` and remembers the settings it was called with."""

    def __init__(self, answer):
        self.answer = answer
        self.settings = None

    def __call__(self, settings):
        self.settings = settings
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def environ(monkeypatch, tmp_path):
    """An empty environment, and an empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, clear=True):
        yield os.environ


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
def program(monkeypatch):
    """Put a program in the place of ``app.main``."""

    def put(**answers):
        module = ModuleType("app.main")
        programs = {name: _Program(answer) for name, answer in answers.items()}
        for name, one in programs.items():
            setattr(module, name, one)
        monkeypatch.setitem(sys.modules, "app.main", module)
        return next(iter(programs.values()))

    return put


def _run_process(*arguments, **environ):
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def test_serve_hands_over_the_settings(command, program, environ):
    """A flag beats the environment, and what no flag says comes from there."""
    environ.update(PORT="1", HOST="0.0.0.0")
    service = program(serve=0)
    arguments = ("--port", "2", "--log-level", "debug", "--database-url", "sqlite:///x.db")
    assert command("serve", *arguments) == (0, "", "")
    assert (service.settings.port, service.settings.host) == (2, "0.0.0.0")
    assert (service.settings.log_level, service.settings.database_url) == (
        "DEBUG",
        "sqlite:///x.db",
    )


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (("serve",), "api"),
        (("serve", "--role", "Worker"), "worker"),
        (("scheduler", "run"), "scheduler"),
        (("worker", "run"), "worker"),
    ],
)
def test_a_replica_has_a_role(command, program, environ, arguments, role):
    """The role is the environment's, or the flag's; two commands are short for one each."""
    environ.update(MYSCHEDULER_ROLE="api")
    service = program(serve=0)
    assert command(*arguments, "--port", "2") == (0, "", "")
    assert (service.settings.role, service.settings.port) == (role, 2)


def test_serve_exits_as_the_service_does(command, program):
    """The service's exit code is the command's."""
    program(serve=1)
    assert command("serve")[0] == 1


def test_serve_reads_env_file(command, program):
    """The file .env in the working directory is read."""
    Path(".env").write_text("PORT=7\n", encoding="utf-8")
    service = program(serve=0)
    assert command("serve")[0] == 0
    assert service.settings.port == 7


@pytest.mark.parametrize("name", ["serve", "migrate"])
def test_all_problems_are_listed(command, program, environ, name):
    """A broken configuration starts nothing: every problem is a line on stderr, the code is 2."""
    service = program(**{name: 0})
    environ.update(
        PORT="x",
        MYSCHEDULER_CONCURENCY="1",
        DATABASE_URL="mysql://u:hunter2@h/d",
        LOG_LEVL="x",
    )
    code, out, err = command(name)
    assert (code, out, service.settings) == (2, "", None)
    assert err.splitlines() == [
        "The configuration has 3 problems:",
        "  - MYSCHEDULER_CONCURENCY is not a setting; did you mean MYSCHEDULER_CONCURRENCY?",
        (
            "  - DATABASE_URL begins with mysql://, which is not supported; use "
            "sqlite:///path/to/jobs.db or postgresql://user:password@host:5432/database"
        ),
        "  - PORT is 'x'; it must be a whole number from 0 to 65535",
        "Warning: LOG_LEVL is not read; did you mean LOG_LEVEL?",
    ]


def test_a_flag_that_cannot_be_used(command, program):
    """A problem with a flag names the flag."""
    program(serve=0)
    code, _, err = command("serve", "--port", "70000")
    assert code == 2
    assert "The configuration has 1 problem:\n  - --port is '70000'; it must be" in err
    code, _, err = command("serve", "--role", "boss")
    assert code == 2
    assert "--role is 'boss'; it must be all, api, scheduler or worker" in err


def test_values_are_not_markup(command, environ):
    """Square brackets and controls in a value are shown as they are, never obeyed."""
    environ.update(PORT="[bold]x\x1b[0m")
    _, _, err = command("serve")
    assert "PORT is '[bold]x\\x1b[0m';" in err


def test_warnings_do_not_stop(command, program, environ):
    """A warning is shown on stderr and the service starts."""
    program(serve=0)
    environ.update(TZ="UTC", TIMEZONE="Asia/Tokyo")
    code, _, err = command("serve")
    assert (code, err) == (0, "Warning: TIMEZONE and TZ differ; TIMEZONE is used\n")


@pytest.mark.parametrize("name", ["serve", "migrate"])
@pytest.mark.parametrize("error", [StorageInUseError, StorageUnavailableError])
def test_a_refusal_is_one_sentence(command, program, name, error):
    """What the program refuses is one sentence on stderr, without a traceback, and code 1."""
    program(**{name: error("Another process uses ./data; stop it first")})
    assert command(name) == (1, "", "Another process uses ./data; stop it first\n")


def test_a_bug_is_not_hidden(program, monkeypatch):
    """What nobody expected is raised as it is."""
    program(serve=ZeroDivisionError("bug"))
    monkeypatch.setattr(sys, "argv", ["myscheduler", "serve"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_migrate(command, program):
    """The revisions that were applied are listed, or it is said that there was nothing to do."""
    service = program(migrate=["0001", "0002"])
    assert command("migrate") == (0, "Applied 0001\nApplied 0002\n", "")
    service.answer = []
    assert command("migrate") == (0, "The schema is up to date\n", "")


def test_config(command, environ):
    """Every setting is a line with its value, unit and origin; the password is masked."""
    secret = Path("secret")
    secret.write_text("postgresql://me:hunter2@db/jobs", encoding="utf-8")
    environ.update(DATABASE_URL_FILE="secret", MYSCHEDULER_EGRESS_DENY="10.0.0.0/8,a.example")
    code, out, err = command("config")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert lines["DATABASE_URL"] == ["postgresql://me:***@db/jobs", "file", "secret"]
    assert lines["PORT"] == ["8003", "default"]
    assert lines["MYSCHEDULER_SHUTDOWN_GRACE_SECONDS"] == ["25.0", "seconds", "default"]
    assert lines["MYSCHEDULER_EGRESS_DENY"] == ["10.0.0.0/8,", "a.example", "environment"]
    assert lines["MYSCHEDULER_HTTP_TRUST_ENV"] == ["false", "default"]
    assert {*lines, "TZ"} == {"Setting", *SETTING_NAMES}


def test_config_on_a_terminal(command, monkeypatch):
    """On a terminal the table keeps to its width."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    _, out, _ = command("config")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert max(len(line) for line in lines) <= 60


def test_config_with_problems(command, environ):
    """A broken configuration is shown as far as it can be, with its problems, and the code is 2."""
    environ.update(PORT="x", HOST="0.0.0.0")
    code, out, err = command("config")
    assert code == 2
    assert "0.0.0.0" in out
    assert "PORT is 'x'" in err


def test_config_as_json(command, environ):
    """With --json, settings, problems and warnings are one JSON document on stdout."""
    environ.update(PORT="x", LOG_LEVL="x", DATABASE_URL="postgresql://me:hunter2@db/jobs")
    code, out, err = command("config", "--json")
    shown = json.loads(out)
    assert (code, err) == (2, "")
    assert [row["name"] for row in shown["settings"]] == [
        row.name for row in describe_settings(Settings())
    ]
    assert shown["settings"][0]["value"] == "postgresql://me:***@db/jobs"
    assert shown["settings"][0]["origin"] == "environment"
    assert shown["problems"] == ["PORT is 'x'; it must be a whole number from 0 to 65535"]
    assert shown["warnings"] == ["LOG_LEVL is not read; did you mean LOG_LEVEL?"]


def test_version(command):
    """The version is printed for people, and with --json for programs."""
    code, out, _ = command("version")
    assert code == 0
    assert out.startswith(f"myscheduler {__version__} (Python 3.")
    code, out, _ = command("version", "--json")
    assert json.loads(out)["version"] == __version__


def test_output_that_the_terminal_lacks():
    """A letter that stdout's encoding lacks is escaped instead of failing."""
    encoding = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = _run_process("-m", "app", "config", DATABASE_URL="sqlite:///データ/x.db", **encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sqlite:///\\u30c7" in done.stdout


def test_help_teaches():
    """Help shows each flag's variable and default, and how to go on."""
    done = _run_process("-m", "app", "serve", "--help")
    defaults = {row.name: str(row.default) for row in describe_settings(Settings())}
    words = " ".join(done.stdout.replace("│", " ").split())
    for name in ("HOST", "PORT", "DATABASE_URL", "LOG_LEVEL"):
        assert f"({name}; {defaults[name]})" in words
    assert "http://127.0.0.1:8003/docs" in words
    assert "NAME_FILE" in _run_process("-m", "app", "--help").stdout


def test_a_mistyped_command():
    """A mistyped command exits with 2 and names the one that was meant."""
    done = _run_process("-m", "app", "confg")
    assert done.returncode == 2
    assert "Did you mean 'config'?" in done.stderr


def test_quick_commands_load_little():
    """Neither version nor --help loads the service's libraries, so both answer at once."""
    heavy = ("sqlalchemy", "fastapi", "httptools", "apscheduler", "structlog", "pydantic_settings")
    script = (
        "import sys; from app.__main__ import main\n"
        f"for name in ('version', '--help'):\n"
        "    sys.argv = ['myscheduler', name]\n"
        "    try: main()\n"
        "    except SystemExit as done: assert not done.code\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert _run_process("-c", script).stdout.splitlines()[-1] == "[]"
