import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import InvalidJobError, InvalidScheduleError
from app.domain.policies import CatchUp
from app.domain.schedule import CronRule, CrontabRule, DateRule, IntervalRule
from app.schemas.job_mapping import Defaults, keep_masked_headers, to_definition
from app.schemas.job_request import MASK, JobRequest

DEFAULTS = Defaults(
    zone="Asia/Tokyo", misfire_grace=timedelta(seconds=30), definition_bytes_max=1000
)
BASE = {"schedule_type": "cron", "cron": {"minute": "0"}, "target_url": "http://h/"}


def mapped(**fields):
    """Map a request to the domain."""
    return to_definition(JobRequest.model_validate({**BASE, **fields}), "job", DEFAULTS)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"cron": {"hour": 9}}, CronRule(fields=(("hour", "9"), ("second", "0")))),
        (
            {"cron": {"second": "5", "day_of_week": "7"}},
            CronRule(fields=(("day_of_week", "sun"), ("second", "5"))),
        ),
        (
            {"schedule_type": "crontab", "crontab": "@daily"},
            CrontabRule(expression="@daily"),
        ),
        (
            {"schedule_type": "interval", "interval": {"hours": 1, "seconds": 0}},
            IntervalRule(period=timedelta(hours=1), parts=(("hours", 1),)),
        ),
        (
            {"schedule_type": "date", "run_at": "2035-01-01"},
            DateRule(run_at=datetime(2034, 12, 31, 15, tzinfo=UTC)),
        ),
    ],
)
def test_rules(fields, rule):
    """Each schedule type becomes its rule, weekdays as names, second 0 by default."""
    assert mapped(**fields).schedule.rule == rule


def test_what_is_left_out():
    """Name, zone and grace come from the id and the defaults."""
    definition = mapped(name="")
    assert definition.name == "job"
    assert definition.schedule.timezone == "Asia/Tokyo"
    assert definition.policy.misfire_grace == timedelta(seconds=30)
    assert definition.delivery.target.body_json is None


@pytest.mark.parametrize(
    ("fields", "grace"),
    [
        ({"misfire_grace_time": 5}, timedelta(seconds=5)),
        ({"misfire_grace_time": None}, None),
        ({"schedule_type": "date", "run_at": "2035-01-01"}, None),
        (
            {"schedule_type": "date", "run_at": "2035-01-01", "misfire_grace_time": 0},
            timedelta(0),
        ),
    ],
)
def test_grace(fields, grace):
    """Null means any lateness, which is a date's default."""
    assert mapped(**fields).policy.misfire_grace == grace


@pytest.mark.parametrize(
    ("fields", "catch_up"),
    [
        ({}, CatchUp.LATEST),
        ({"coalesce": True}, CatchUp.LATEST),
        ({"coalesce": False}, CatchUp.ALL),
        ({"catch_up": "none"}, CatchUp.NONE),
        ({"catch_up": "none", "coalesce": True}, CatchUp.NONE),
        ({"catch_up": "all", "coalesce": False}, CatchUp.ALL),
    ],
)
def test_coalesce(fields, catch_up):
    """Coalesce is another word for catch_up."""
    assert mapped(**fields).policy.catch_up is catch_up


def test_coalesce_against_catch_up():
    """Two words that contradict each other are refused."""
    with pytest.raises(InvalidJobError, match="contradict"):
        mapped(coalesce=True, catch_up="all")


@pytest.mark.parametrize(("body", "text"), [({}, "{}"), ("日", '"日"'), (0, "0"), (None, None)])
def test_body(body, text):
    """Any JSON is kept as text, {} too; null is no body."""
    assert mapped(body=body).delivery.target.body_json == text


def test_the_longest_wait_is_never_below_the_first():
    """A cap below the asked first wait gives way to it."""
    retry = mapped(retry_backoff_sec=100, retry_max_backoff_sec=10).delivery.retry
    assert (retry.first_wait, retry.wait_max) == (timedelta(seconds=100),) * 2


def test_size():
    """A definition above the limit is refused with both numbers."""
    with pytest.raises(InvalidJobError, match=r"take 1011 bytes; at most 1000"):
        mapped(body="x" * 1000)


@pytest.mark.parametrize(
    "fields",
    [
        {"cron": {}},
        {"schedule_type": "interval", "interval": {"weeks": 10**12}},
        {"schedule_type": "interval", "interval": {"seconds": -1}},
        {"schedule_type": "date", "run_at": "0001-01-01"},
        {"start_at": "9999-12-31T23:59:59-23:00"},
    ],
)
def test_impossible_schedules(fields):
    """What cannot be a schedule is refused, beyond the calendar too."""
    with pytest.raises(InvalidScheduleError):
        mapped(**fields)


def test_masked_headers_keep_the_stored_value():
    """A mask under a sensitive name keeps what is stored, whatever the name's case."""
    stored = mapped(headers={"Authorization": "one", "X-Token": "two", "X-Gone": "3"})
    sent = mapped(headers={"authorization": MASK, "X-Token": "new", "X-Plain": MASK}, name="n")
    kept = keep_masked_headers(sent, stored)
    assert kept.delivery.target.headers == (
        ("authorization", "one"),
        ("X-Token", "new"),
        ("X-Plain", MASK),
    )
    target = dataclasses.replace(kept.delivery.target, headers=sent.delivery.target.headers)
    delivery = dataclasses.replace(kept.delivery, target=target)
    assert dataclasses.replace(kept, delivery=delivery) == sent


@pytest.mark.parametrize("stored", [None, mapped(), mapped(headers={"Cookie": "c"})])
def test_a_mask_without_a_stored_value(stored):
    """A mask that stands for nothing is refused, so that it is never sent as a value."""
    with pytest.raises(InvalidJobError, match="send the real value"):
        keep_masked_headers(mapped(headers={"Authorization": MASK}), stored)


STORED_URL = "https://api.example.com/hook"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.com/hook",
        "https://api.example.com:8443/hook",
        "http://api.example.com/hook",
        "https://api.example.com.evil.net/hook",
    ],
)
def test_a_mask_does_not_take_a_secret_elsewhere(url):
    """A stored value is for the origin it was stored with; another one needs it sent again."""
    stored = mapped(target_url=STORED_URL, headers={"Authorization": "one"})
    with pytest.raises(InvalidJobError, match=r"another scheme, host or port.*send the real value"):
        keep_masked_headers(mapped(target_url=url, headers={"Authorization": MASK}), stored)


@pytest.mark.parametrize("url", ["HTTPS://API.example.com:443/other?x=1", STORED_URL])
def test_a_mask_keeps_its_secret_within_an_origin(url):
    """Another path of the same origin, however it is written, keeps what is stored."""
    stored = mapped(target_url=STORED_URL, headers={"Authorization": "one"})
    sent = mapped(target_url=url, headers={"Authorization": MASK})
    kept = keep_masked_headers(sent, stored)
    assert kept.delivery.target.headers == (("Authorization", "one"),)


def test_a_new_value_goes_to_another_origin():
    """Whoever knows the value may send it anywhere."""
    stored = mapped(target_url=STORED_URL, headers={"Authorization": "one"})
    sent = mapped(target_url="https://other.example.com", headers={"Authorization": "two"})
    assert keep_masked_headers(sent, stored) is sent


def test_without_masks_nothing_changes():
    """A definition without masks is the same object."""
    sent = mapped(headers={"Authorization": "real"})
    assert keep_masked_headers(sent, None) is sent
