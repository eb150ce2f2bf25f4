from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from app.schemas.job_request import JobRequest

BASE = {"schedule_type": "cron", "target_url": "http://h/"}


def read(**fields):
    """Read a request."""
    return JobRequest.model_validate({**BASE, **fields})


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2035-01-02", date(2035, 1, 2)),
        ("2035-01-02T03", datetime(2035, 1, 2, 3)),  # noqa: DTZ001 - the job's zone is not known here
        ("2035-01-02T00:00:00Z", datetime(2035, 1, 2, tzinfo=UTC)),
        ("2035-01-02 03:04+0900", datetime(2035, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=9)))),
    ],
)
def test_times(text, time):
    """Dates stay dates, times keep their offset or the lack of one."""
    found = read(run_at=text).run_at
    assert type(found) is type(time)
    assert found == time


@pytest.mark.parametrize("number", [4102444800, 4102444800.5, "4102444800", True, "20350101090000"])
def test_numbers_are_no_times(number):
    """A number is not read as a count of seconds or milliseconds since 1970."""
    with pytest.raises(ValidationError, match="must be a time such as"):
        read(run_at=number)


@pytest.mark.parametrize("name", ["timeout_sec", "max_retries", "max_instances", "jitter_sec"])
def test_booleans_are_no_numbers(name):
    """True is not 1."""
    with pytest.raises(ValidationError, match="must be a number, not true or false"):
        read(**{name: True})


@pytest.mark.parametrize("text", ["5", " 5 ", "5.0"])
def test_numbers_as_texts(text):
    """A number written as a text is a number, for lenient clients of the old service."""
    assert read(max_retries=text, timeout_sec=text).max_retries == 5


def test_unknown_fields_at_all_depths():
    """Unknown fields are told with their path, after the known ones they resemble."""
    request = read(methd="GET", cron={"hours": "1"}, interval={"x": 1})
    assert request.unknown_fields() == [
        "unknown field 'methd' ignored; did you mean 'method'?",
        "unknown field 'cron.hours' ignored; did you mean 'cron.hour'?",
        "unknown field 'interval.x' ignored",
    ]


def test_exactly_the_limit_of_warnings():
    """Twenty unknown fields are all named; the twenty-first is counted."""
    assert len(read(**{f"q{n}": 1 for n in range(20)}).unknown_fields()) == 20
    assert read(**{f"q{n}": 1 for n in range(21)}).unknown_fields()[20:] == [
        "and 1 more unknown fields ignored"
    ]
