"""``myscheduler explain``."""

import asyncio
import json
import os
import sys
from unittest import mock

import pytest

from app.__main__ import main
from tests.support.service import open_api, settings_for

JOB = {
    "job_id": "nightly",
    "schedule_type": "crontab",
    "crontab": "30 2 * * *",
    "target_url": "http://127.0.0.1:9/",
}


@pytest.fixture(autouse=True)
def environ(monkeypatch, tmp_path):
    """An empty environment, and an empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, clear=True):
        yield os.environ


@pytest.fixture
def stored(environ, home, capsys):
    """A database with one job that runs at half past two."""
    settings = settings_for(home)

    async def store() -> None:
        async with open_api(settings) as http:
            assert (await http.post("/api/v1/jobs", json=JOB)).status_code == 200

    asyncio.run(store())
    environ["DATABASE_URL"] = settings.database_url
    capsys.readouterr()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["myscheduler", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "en",
            "It will run on 1 January 2099, 02:30 (UTC+09:00), as its schedule names that time.",
        ),
        ("ja", "2099年1月1日2時30分（UTC+09:00）に、スケジュールに従って実行される予定です。"),
    ],
)
def test_one_sentence_is_printed(command, language, words):
    """The sentence is printed in the language asked for, and nothing else."""
    code, out, _ = command("explain", "nightly", "--at", "2099-01-01T02:30", "--lang", language)

    assert (code, out) == (0, f"{words}\n")


@pytest.mark.usefixtures("stored")
def test_the_answer_as_json(command):
    """--json prints what the API answers; without a time it is about now."""
    code, out, _ = command("explain", "nightly", "--json")
    answer = json.loads(out)

    assert code == 0
    assert answer["job_id"] == "nightly"
    assert answer["facts"]["schedule"]["en"] == "At 02:30 every day (Asia/Tokyo)"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none"], 1, "Job none not found"),
        (["nightly", "--at", "soon"], 2, "--at must be a time such as"),
        (["nightly", "--at", "1969-01-01"], 2, "--at must lie between the years 1971 and 2198"),
    ],
)
def test_what_cannot_be_explained_is_said(command, arguments, code, words):
    """An unknown job and what is no time are told in a sentence on stderr."""
    ended, out, err = command("explain", *arguments)

    assert (ended, out) == (code, "")
    assert err.startswith(words)


def test_without_a_database(command):
    """Where there is no database, a sentence says so and the code is 1."""
    code, _, err = command("explain", "nightly")

    assert code == 1
    assert err.startswith("There is no database where DATABASE_URL points")
