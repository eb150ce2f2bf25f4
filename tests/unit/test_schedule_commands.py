"""``myscheduler next`` and ``myscheduler dst-report``."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from app.__main__ import main
from tests.support.homes import Home
from tests.support.service import open_api, settings_for

ROOT = Path(__file__).parents[2]


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


def fill(home: Home) -> str:
    """Make a database of three jobs, one of them unreadable; return its URL."""
    nightly = {"schedule_type": "crontab", "crontab": "30 2 * * *", "target_url": "http://h.test/"}
    settings = settings_for(home)

    async def store() -> None:
        async with open_api(settings) as http:
            for job_id, zone in (("a", "America/New_York"), ("b", "Asia/Tokyo"), ("c", "UTC")):
                job = {**nightly, "job_id": job_id, "timezone": zone}
                assert (await http.post("/api/v1/jobs", json=job)).status_code == 200

    asyncio.run(store())
    home.rows("UPDATE jobs SET schedule = '{}' WHERE id = 'c'")
    return settings.database_url


def test_next_prints_words_and_times(command):
    """The schedule is said in words, with its next times in UTC and in the zone."""
    arguments = ["0 9 * * mon-fri", "--tz", "Asia/Tokyo", "-n", "2", "--from", "2026-11-21"]
    code, out, err = command("next", *arguments)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "At 09:00, Monday to Friday (Asia/Tokyo)"
    assert lines[1].split() == ["UTC", "Local", "Note"]
    assert lines[2].split() == ["2026-11-23T00:00:00+00:00", "2026-11-23T09:00:00+09:00"]
    assert len(lines) == 4


def test_next_in_japanese(command):
    """With --lang ja all sentences are Japanese."""
    arguments = ["30 2 * * *", "--tz", "America/New_York", "-n", "1", "--from", "2026-03-08"]
    code, out, _ = command("next", *arguments, "--lang", "ja")
    assert code == 0
    assert out.splitlines()[0] == "毎日2時30分（America/New_York）"
    assert "2026年3月8日2時30分は時計が進んで存在しないため、進んだ直後に実行" in out


def test_next_shows_dropped_times_in_place(command):
    """A local time that does not exist stands between its neighbours."""
    arguments = ["*/30 1,2 * * *", "--tz", "America/New_York", "-n", "3", "--from", "2026-03-08"]
    code, out, _ = command("next", *arguments)
    locals_shown = [line.split()[1][:16] for line in out.splitlines()[2:]]
    assert code == 0
    assert locals_shown == [
        "2026-03-08T01:00",
        "2026-03-08T01:30",
        "2026-03-08T02:00",
        "2026-03-08T02:30",
        "2026-03-09T01:00",
    ]


def test_next_of_a_period(command, environ):
    """--every takes a period; the zone is that of TZ; how far off the first is stands below."""
    environ["TZ"] = "Europe/Paris"
    code, out, _ = command("next", "--every", "1h30m", "-n", "1")
    first, *_, last = out.splitlines()
    assert code == 0
    assert first == "Every 1 hour and 30 minutes, counted from when it was set (Europe/Paris)"
    assert last == "First: in 1 hour and 30 minutes"


def test_next_as_json(command):
    """--json prints what the API answers."""
    code, out, _ = command("next", "@daily", "--json", "-n", "1", "--from", "2026-01-01")
    found = json.loads(out)
    assert code == 0
    assert found["schedule"]["ja"] == "毎日0時00分（Asia/Tokyo）"
    assert [at["scheduled_for_utc"] for at in found["occurrences"]] == ["2025-12-31T15:00:00+00:00"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0 0 31 2 *"], "never fires"),
        (["0 0"], "exactly five fields"),
        ([], "give either a schedule"),
        (["@daily", "--every", "5m"], "give either a schedule"),
        (["--every", "5x"], "such as 10m"),
        (["--every", "0m"], "at least 1 second"),
        (["@daily", "--from", "soon"], "--from must be a time"),
        (["@daily", "--tz", "Asia/Tokio"], "did you mean 'Asia/Tokyo'?"),
        (["*" * 300], "the schedule String should have at most 255"),
    ],
)
def test_next_refuses_in_a_sentence(command, arguments, words):
    """What cannot be used is one sentence on stderr, and the code is 2."""
    code, out, err = command("next", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_report_lists_every_job(command, environ, home, capsys):
    """Affected, unaffected and unreadable jobs are listed, each as what it is."""
    environ["DATABASE_URL"] = fill(home)
    capsys.readouterr()
    code, out, _ = command("dst-report", "--year", "2026")
    rows = out.splitlines()
    assert code == 0
    assert "gap 2026-03-08T02:00:00 to 03:00:00" in rows[1]
    assert "02:30:00 runs right after the jump" in rows[1]
    assert "fold 2026-11-01T01:00:00 to 02:00:00" in rows[2]
    assert "not affected" in rows[2]
    assert rows[3].split() == ["b", "running", "Asia/Tokyo", "never"]
    assert "c" in rows[4].split()
    assert "unreadable" in rows[4]


def test_a_report_as_json(command, environ, home, capsys):
    """--json gives everything, for programs."""
    environ["DATABASE_URL"] = fill(home)
    capsys.readouterr()
    code, out, _ = command("dst-report", "--year", "2027", "--json")
    by_id = {job["job_id"]: job for job in json.loads(out)}
    assert code == 0
    assert [found["kind"] for found in by_id["a"]["transitions"]] == ["gap", "fold"]
    assert by_id["b"]["transitions"] == []
    assert (by_id["c"]["status"], by_id["c"]["schedule"]) == ("broken", None)
    assert by_id["c"]["problem"]


def test_a_report_while_the_service_runs(environ, home):
    """The report reads beside a service that has the database open, and changes nothing."""
    environ["DATABASE_URL"] = url = fill(home)

    async def report_beside() -> subprocess.CompletedProcess[str]:
        async with open_api(settings_for(home)):
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "app", "dst-report", "--json"],
                env={"DATABASE_URL": url, "PATH": os.defpath, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                encoding="utf-8",
                timeout=30,
                check=False,
            )

    done = asyncio.run(report_beside())
    assert done.returncode == 0, done.stderr
    assert {job["job_id"] for job in json.loads(done.stdout)} == {"a", "b", "c"}


def test_a_report_without_a_database(command, tmp_path):
    """Where there is no database, a sentence says so, the code is 1, and none is made."""
    code, out, err = command("dst-report")
    assert (code, out) == (1, "")
    assert err.startswith("There is no database where DATABASE_URL points")
    assert list(tmp_path.iterdir()) == []
