"""Jobs, ledger rows and endings for the conformance tests, valid unless a test says otherwise."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.util import await_only

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.execution import (
    AttemptOutcome,
    Cause,
    ClaimedRun,
    Execution,
    ExecutionStatus,
    NewExecution,
    Outcome,
    Reason,
    WaitingRun,
)
from app.domain.history import HistoryFilter
from app.domain.ids import ExecutionId, JobId, execution_id_for
from app.domain.job import Delivery, HttpTarget, Job, JobDefinition, JobState
from app.domain.policies import RetryPolicy, RunPolicy
from app.domain.schedule import IntervalRule, Schedule
from app.repositories import (
    execution_repository,
    history_repository,
    job_repository,
    run_repository,
    waiting_repository,
)
from app.repositories.run_repository import Claim, Ending
from app.repositories.unreadable_repository import UnreadableRun
from app.repositories.waiting_repository import WaitingLimits
from tests.support.databases import Database

NOW = datetime(2026, 11, 21, 7, 0, 0, 123457, tzinfo=UTC)
NOW_US = to_us(NOW)
SECOND = timedelta(seconds=1)
JOB = JobId("job")
OWNER = "host:1"
FENCE = 7
BROKEN = "{}"


def make_definition(**changes: Any) -> JobDefinition:
    """Describe a call every minute."""
    values: dict[str, Any] = {
        "name": "A job",
        "schedule": Schedule(
            rule=IntervalRule(period=timedelta(minutes=1), parts=(("minutes", 1),)),
            timezone="Asia/Tokyo",
        ),
        "policy": RunPolicy(misfire_grace=timedelta(seconds=30)),
        "delivery": Delivery(
            target=HttpTarget(method="POST", url="http://Target.test/hook", body_json='{"a":1}'),
            timeout=timedelta(seconds=30),
            retry=RetryPolicy(max_retries=3),
        ),
    }
    return JobDefinition(**{**values, **changes})


def make_job(job_id: str = JOB, **changes: Any) -> Job:
    """Describe an active job that is due in a minute."""
    values: dict[str, Any] = {
        "id": JobId(job_id),
        "revision": 1,
        "definition": make_definition(),
        "state": JobState.ACTIVE,
        "state_reason": None,
        "anchor": NOW,
        "clock_epoch": 0,
        "cursor": NOW,
        "next_run_time": NOW + timedelta(minutes=1),
        "execution_count": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Job(**{**values, **changes})


def make_row(number: int = 0, job_id: str = JOB, **changes: Any) -> NewExecution:
    """Describe the queued execution of a job's due instant, ``number`` seconds after now."""
    scheduled_for = NOW + number * SECOND
    values: dict[str, Any] = {
        "id": execution_id_for(JobId(job_id), clock_epoch=0, scheduled_for_us=to_us(scheduled_for)),
        "job_id": JobId(job_id),
        "job_revision": 1,
        "clock_epoch": 0,
        "cause": Cause.SCHEDULE,
        "scheduled_for": scheduled_for,
        "status": ExecutionStatus.QUEUED,
        "next_attempt_at": scheduled_for,
    }
    return NewExecution(**{**values, **changes})


def make_unrun(number: int = 0, **changes: Any) -> NewExecution:
    """Describe a due instant that was missed."""
    values = {
        "status": ExecutionStatus.MISSED,
        "reason": Reason.SCHEDULER_DOWN,
        "next_attempt_at": None,
    }
    return make_row(number, **{**values, **changes})


async def add_job(database: Database, job_id: str = JOB, **changes: Any) -> Job:
    """Store a job."""
    job = make_job(job_id, **changes)
    await database.write(job_repository.insert_job, job, actor=None)
    return job


async def add_rows(database: Database, *rows: NewExecution) -> list[ExecutionId]:
    """Store ledger rows; return their ids."""
    await database.write(execution_repository.insert_executions, rows, now_us=NOW_US)
    return [row.id for row in rows]


async def read_history(database: Database, job_id: str = JOB) -> list[Execution]:
    """Read a job's executions, newest first."""
    wanted = HistoryFilter(job_id=JobId(job_id))
    found = await database.read(history_repository.read_history, wanted, limit=1000)
    return found.executions


async def break_job(database: Database, column: str, job_id: str = JOB) -> None:
    """Spoil one stored document of a job and of its revisions."""
    for table, key in (("jobs", "id"), ("job_revisions", "job_id")):
        statement = f"UPDATE {table} SET {column} = :text WHERE {key} = :id"  # noqa: S608 - constants
        await database.execute(statement, text=BROKEN, id=job_id)


def make_claim(**changes: Any) -> Claim:
    """Describe who claims."""
    values: dict[str, Any] = {
        "owner": OWNER,
        "fence": FENCE,
        "now": NOW + SECOND,
        "lease_margin": timedelta(seconds=10),
    }
    return Claim(**{**values, **changes})


def make_limits(**changes: Any) -> WaitingLimits:
    """Let a look find everything, however far ahead."""
    values: dict[str, Any] = {"until": NOW + timedelta(days=1), "rows": 2000, "per_job": 2000}
    return WaitingLimits(**{**values, "crowd": 250, **changes})


async def list_waiting(database: Database) -> list[WaitingRun]:
    """Read what waits; all of it can be read."""
    found = await database.read(waiting_repository.soonest_runs, limits=make_limits())
    assert found.unreadable == []
    return found.runs


async def claim_all(
    database: Database, **changes: Any
) -> tuple[list[ClaimedRun], list[UnreadableRun]]:
    """Claim everything that waits, however far ahead."""
    found = await database.read(waiting_repository.soonest_runs, limits=make_limits())
    return await database.write(run_repository.claim_runs, found.runs, make_claim(**changes))


async def claim_one(database: Database, **changes: Any) -> ClaimedRun:
    """Claim the only execution that waits."""
    (claimed,), unreadable = await claim_all(database, **changes)
    assert unreadable == []
    return claimed


def make_ending(run: ClaimedRun, status: ExecutionStatus, **changes: Any) -> Ending:
    """Describe the end of a claimed run's attempt: 200 for a completed one, else 503."""
    good = status is ExecutionStatus.COMPLETED
    retrying = status is ExecutionStatus.RETRYING
    reason = None if good else Reason.STATUS
    ended_at = run.attempt.started_at + SECOND
    values: dict[str, Any] = {
        "execution_id": run.attempt.execution_id,
        "number": run.attempt.number,
        "owner": OWNER,
        "fence": run.fence,
        "started_at": run.attempt.started_at,
        "ended_at": ended_at,
        "status": status,
        "reason": reason,
        "outcome": Outcome(
            kind=AttemptOutcome.RESPONSE,
            reason=reason,
            http_status=200 if good else 503,
            response_bytes=2,
            response_excerpt="ok" if good else "no",
            error=None if good else "The target answered 503",
        ),
        "retries": run.retries + retrying,
        "next_attempt_at": ended_at + SECOND if retrying else None,
    }
    return Ending(**{**values, **changes})


async def record(database: Database, *endings: Ending) -> list[Ending]:
    """Write endings; return those that were written."""
    return await database.write(run_repository.record_endings, endings)


@contextlib.asynccontextmanager
async def left_open(
    database: Database, change: Callable[[WriteConnection], object]
) -> AsyncIterator[None]:
    """Have another transaction make a change, and commit it at the end of the block only.

    PostgreSQL's: SQLite has one writer.
    """
    made, go_on = asyncio.Event(), asyncio.Event()

    def make(connection: WriteConnection) -> None:
        change(connection)
        made.set()
        await_only(go_on.wait())

    async with asyncio.TaskGroup() as group:
        group.create_task(database.write(make))
        await made.wait()
        try:
            yield
        finally:
            go_on.set()
