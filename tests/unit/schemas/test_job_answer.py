from datetime import UTC, datetime, timedelta

import pytest

from app.domain.ids import JobId
from app.domain.job import Job, JobState
from app.domain.schedule import CronRule, CrontabRule, DateRule, IntervalRule, Schedule
from app.schemas.job_answer import describe_trigger, to_job_detail, to_job_info

NOW = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "zone", "text"),
    [
        (
            CronRule(fields=(("hour", "10"), ("minute", "30"), ("second", "0"))),
            "UTC",
            "cron[hour='10', minute='30', second='0']",
        ),
        (CrontabRule(expression="0 9 * * 1"), "UTC", "cron[0 9 * * 1]"),
        (IntervalRule(period=timedelta(minutes=10), parts=()), "UTC", "interval[0:10:00]"),
        (IntervalRule(period=timedelta(days=1), parts=()), "UTC", "interval[1 day, 0:00:00]"),
        (DateRule(run_at=NOW), "Asia/Tokyo", "date[2026-07-01 09:00:00 JST]"),
        (DateRule(run_at=NOW), "Europe/Berlin", "date[2026-07-01 02:00:00 CEST]"),
    ],
)
def test_triggers(rule, zone, text):
    """A schedule reads as clients know it."""
    assert describe_trigger(Schedule(rule=rule, timezone=zone)) == text


def test_a_broken_job():
    """A job whose definition cannot be read still shows all texts, none of them null."""
    job = Job(
        id=JobId("broken"),
        revision=3,
        definition=None,
        state=JobState.BROKEN,
        state_reason="the stored schedule cannot be read",
        anchor=NOW,
        clock_epoch=0,
        cursor=NOW,
        next_run_time=None,
        execution_count=7,
        created_at=NOW,
        updated_at=NOW,
    )
    info = to_job_info(job).model_dump()
    assert info == {
        "job_id": "broken",
        "id": "broken",
        "name": "broken",
        "next_run_time": None,
        "trigger": "date[]",
        "status": "broken",
        "target_url": "",
        "method": "",
        "execution_count": 7,
    }
    detail = to_job_detail(job, [], totals={}, default_zone="Asia/Tokyo")
    assert detail.state_reason == "the stored schedule cannot be read"
    assert detail.created_at == "2026-07-01T09:00:00+09:00"
    assert (detail.trigger_info, detail.headers, detail.body) == ({}, None, None)
