from datetime import timedelta

import pytest

from app.domain.execution import Execution, ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.job import Job, JobState
from app.repositories import (
    execution_repository,
    job_repository,
    revision_repository,
    run_repository,
    unreadable_repository,
)
from app.repositories.job_repository import BrokenJob
from app.repositories.unreadable_repository import UnreadableRun
from tests.conformance.builders import (
    JOB,
    NOW,
    NOW_US,
    add_job,
    add_rows,
    break_job,
    claim_all,
    list_waiting,
    make_claim,
    make_row,
)
from tests.support.databases import Database, DatabaseKind

OTHER = JobId("other")
PROBLEM = "the stored delivery cannot be read"


async def found(database: Database, execution_id: ExecutionId) -> Execution:
    execution = await database.read(execution_repository.find_execution, execution_id)
    assert execution is not None
    return execution


async def stored(database: Database, job_id: str = JOB) -> Job:
    job = await database.read(job_repository.find_job, JobId(job_id))
    assert job is not None
    return job


async def end(database: Database, *runs: UnreadableRun) -> list[BrokenJob]:
    return await database.write(unreadable_repository.end_unreadable, runs, NOW_US)


def unreadable(number: int = 0, job_id: str = JOB) -> UnreadableRun:
    return UnreadableRun(execution_id=make_row(number, job_id).id, problem=PROBLEM)


async def test_an_unreadable_run_ends_with_the_reason(database: Database):
    """What can never be sent is ended, if it still waits."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(), make_row(0, OTHER))
    await database.write(
        execution_repository.cancel_waiting, OTHER, reason=Reason.USER, now_us=NOW_US
    )
    await end(database, unreadable(), unreadable(0, OTHER))
    ended = await found(database, make_row().id)
    assert (ended.status, ended.reason) == (ExecutionStatus.FAILED, Reason.BROKEN)
    assert ended.error == f"The job's definition is broken: {PROBLEM}"
    assert ended.finished_at == NOW
    assert (await found(database, make_row(0, OTHER).id)).reason is Reason.USER


@pytest.mark.parametrize("state", [JobState.ACTIVE, JobState.FINISHED], ids=str)
async def test_a_run_of_the_present_revision_breaks_its_job_once(
    database: Database, state: JobState
):
    """The job leaves the schedule with the reason, its revision answering from its cursor on."""
    next_run = NOW + timedelta(minutes=1) if state is JobState.ACTIVE else None
    job = await add_job(database, state=state, next_run_time=next_run)
    await add_rows(database, make_row(1), make_row(2))
    assert await end(database, unreadable(1), unreadable(2)) == [
        BrokenJob(id=JOB, revision=1, problem=PROBLEM)
    ]
    now = await stored(database)
    assert (now.state, now.state_reason, now.next_run_time) == (JobState.BROKEN, PROBLEM, None)
    assert (now.revision, now.cursor) == (2, job.cursor)
    revision = await database.read(revision_repository.find_revision, JOB, 2)
    assert revision is not None
    assert (revision.state, revision.since) == (JobState.BROKEN, job.cursor)


async def test_a_run_of_an_earlier_revision_breaks_no_job(database: Database):
    """An edit has healed the job; the run that was queued before it ends alone."""
    job = await add_job(database, revision=2)
    await add_rows(database, make_row(job_revision=1))
    assert await end(database, unreadable()) == []
    assert await stored(database) == job
    assert (await found(database, make_row().id)).reason is Reason.BROKEN


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.BROKEN, JobState.DELETED], ids=str)
async def test_a_job_that_does_not_run_keeps_its_state(database: Database, state: JobState):
    """A pause survives: the job shows as broken by its definition, and an edit leaves it paused."""
    await add_job(database, state=state, next_run_time=None)
    await add_rows(database, make_row())
    assert await end(database, unreadable()) == []
    assert await database.rows("SELECT state, revision FROM jobs") == [
        {"state": state, "revision": 1}
    ]


async def test_a_damaged_row_of_an_execution_breaks_no_job(own: Database):
    """An instant that no calendar knows ends its run; the job's definition is sound."""
    job = await add_job(own)
    await add_rows(own, make_row())
    # As after a fault of the disk: the database itself refuses such a value.
    on_table = "" if own.kind is DatabaseKind.SQLITE else " ON executions"
    for trigger in ("executions_instants_update", "executions_birthmarks"):
        await own.execute(f"DROP TRIGGER {trigger}{on_table}")
    await own.execute("UPDATE executions SET scheduled_us = 9000000000000000000")
    claimed, damaged = await claim_all(own)
    assert (claimed, len(damaged)) == ([], 1)
    assert await end(own, *damaged) == []
    assert await stored(own) == job
    rows = await own.rows("SELECT status, reason FROM executions")
    assert rows == [{"status": "failed", "reason": "broken"}]


@pytest.mark.parametrize("column", ["policy", "delivery"])
async def test_a_claim_of_a_damaged_definition_breaks_its_job(database: Database, column: str):
    """What a claim could not read is what breaks the job."""
    await add_job(database)
    await add_rows(database, make_row())
    waiting = await list_waiting(database)
    await break_job(database, column)
    _, damaged = await database.write(run_repository.claim_runs, waiting, make_claim())
    assert [job.id for job in await end(database, *damaged)] == [JOB]
