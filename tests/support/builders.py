"""Domain objects with defaults, for tests that care about one field."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.execution import Attempt, ClaimedRun, WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.domain.job import Delivery, DueJob, HttpTarget, Job, JobDefinition, JobState
from app.domain.policies import RetryPolicy, RunPolicy
from app.domain.schedule import IntervalRule, Schedule

NOON = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def make_schedule(**changes: Any) -> Schedule:
    """Every minute, in Tokyo."""
    values: dict[str, Any] = {
        "rule": IntervalRule(period=MINUTE, parts=(("minutes", 1),)),
        "timezone": "Asia/Tokyo",
        **changes,
    }
    return Schedule(**values)


def make_policy(**changes: Any) -> RunPolicy:
    """Thirty seconds of grace, the rest as by default."""
    values: dict[str, Any] = {"misfire_grace": timedelta(seconds=30), **changes}
    return RunPolicy(**values)


def make_delivery(**changes: Any) -> Delivery:
    """A GET to this machine, without retries."""
    values: dict[str, Any] = {
        "target": HttpTarget(method="GET", url="http://127.0.0.1:9/hook"),
        "timeout": timedelta(seconds=30),
        "retry": RetryPolicy(),
        **changes,
    }
    return Delivery(**values)


def make_definition(**changes: Any) -> JobDefinition:
    """A job that calls this machine every minute."""
    values: dict[str, Any] = {
        "name": "A job",
        "schedule": make_schedule(),
        "policy": make_policy(),
        "delivery": make_delivery(),
        **changes,
    }
    return JobDefinition(**values)


def make_job(job_id: str = "job", **changes: Any) -> Job:
    """An active job whose first instant is one minute after noon."""
    values: dict[str, Any] = {
        "id": JobId(job_id),
        "revision": 1,
        "definition": make_definition(),
        "state": JobState.ACTIVE,
        "state_reason": None,
        "anchor": NOON,
        "clock_epoch": 0,
        "cursor": NOON,
        "next_run_time": NOON + MINUTE,
        "execution_count": 0,
        "created_at": NOON,
        "updated_at": NOON,
        **changes,
    }
    return Job(**values)


def make_due_job(job_id: str = "job", **changes: Any) -> DueJob:
    """A job due at noon."""
    values: dict[str, Any] = {
        "id": JobId(job_id),
        "revision": 1,
        "clock_epoch": 0,
        "schedule": make_schedule(),
        "policy": make_policy(),
        "anchor": NOON - MINUTE,
        "host": "127.0.0.1:9",
        "cursor": NOON - MINUTE,
        "next_run_time": NOON,
        **changes,
    }
    return DueJob(**values)


def make_waiting(execution_id: str = "exe_1", **changes: Any) -> WaitingRun:
    """A run that is ready since noon."""
    values: dict[str, Any] = {
        "id": ExecutionId(execution_id),
        "job_id": JobId("job"),
        "host": "127.0.0.1:9",
        "next_attempt_at": NOON,
        "job_slots": 1,
        **changes,
    }
    return WaitingRun(**values)


def make_claimed(**changes: Any) -> ClaimedRun:
    """A run claimed at noon, for its first attempt."""
    delivery = changes.pop("delivery", make_delivery())
    waiting = changes.pop("waiting", make_waiting())
    values: dict[str, Any] = {
        "waiting": waiting,
        "attempt": Attempt(
            execution_id=waiting.id,
            job_id=waiting.job_id,
            job_revision=1,
            number=changes.pop("number", 1),
            scheduled_for=NOON,
            started_at=NOON,
            timeout=delivery.timeout,
            target=delivery.target,
        ),
        "delivery": delivery,
        "policy": make_policy(),
        "retries": 0,
        "first_started_at": NOON,
        "fence": 1,
        **changes,
    }
    return ClaimedRun(**values)
