from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from app.domain.execution import (
    AttemptOutcome,
    AttemptRecord,
    Cause,
    Execution,
    ExecutionStatus,
    Reason,
)
from app.domain.ids import ExecutionId, JobId, random_execution_id
from app.repositories import execution_repository
from tests.conformance.builders import (
    JOB,
    NOW,
    NOW_US,
    OWNER,
    SECOND,
    add_job,
    add_rows,
    claim_all,
    claim_one,
    make_ending,
    make_row,
    make_unrun,
    read_history,
    record,
)
from tests.support.databases import Database

UNKNOWN = ExecutionId("exe_unknown")
OTHER = JobId("other")


async def found(database: Database, execution_id: ExecutionId) -> Execution:
    execution = await database.read(execution_repository.find_execution, execution_id)
    assert execution is not None
    return execution


async def history(database: Database) -> list[ExecutionId]:
    return [execution.id for execution in await read_history(database)]


async def test_a_queued_execution_is_read_back_whole(database: Database):
    """What was inserted is what is read; nothing has run yet."""
    await add_job(database)
    row = make_row(cause=Cause.CATCH_UP, next_attempt_at=NOW + SECOND)
    await add_rows(database, row)
    execution = await found(database, row.id)
    assert execution == Execution(
        sequence=execution.sequence,
        id=row.id,
        job_id=JOB,
        job_revision=1,
        cause=Cause.CATCH_UP,
        status=ExecutionStatus.QUEUED,
        reason=None,
        scheduled_for=NOW,
        scheduled_until=None,
        instant_count=1,
        queued_at=NOW,
        started_at=None,
        finished_at=None,
        next_attempt_at=NOW + SECOND,
        attempts=0,
        http_status=None,
        response_bytes=None,
        response_excerpt=None,
        error=None,
        replica=None,
    )


async def test_an_execution_that_never_ran_ends_at_its_birth(database: Database):
    """A skipped execution has its reason, and ended when it was written."""
    await add_job(database)
    row = make_unrun(status=ExecutionStatus.SKIPPED, reason=Reason.OVERLAP)
    await add_rows(database, row)
    execution = await found(database, row.id)
    assert execution.status is ExecutionStatus.SKIPPED
    assert execution.reason is Reason.OVERLAP
    assert execution.finished_at == NOW
    assert execution.next_attempt_at is None


async def test_a_stretch_stands_for_many_instants(database: Database):
    """One row may account for a thousand instants, from the first to the last."""
    await add_job(database)
    row = make_unrun(until=NOW + 999 * SECOND, instant_count=1000)
    await add_rows(database, row)
    execution = await found(database, row.id)
    assert execution.scheduled_until == NOW + 999 * SECOND
    assert execution.instant_count == 1000


async def test_a_due_instant_has_one_row(database: Database):
    """A second row for the same instant is refused, also as one that is caught up."""
    await add_job(database)
    await add_rows(database, make_row())
    again = make_row(id=random_execution_id(), cause=Cause.CATCH_UP)
    with pytest.raises(IntegrityError):
        await add_rows(database, again)
    assert len(await history(database)) == 1


async def test_rows_are_inserted_together_or_not_at_all(database: Database):
    """One row that is refused takes the others of its transaction with it."""
    await add_job(database)
    await add_rows(database, make_row(1))
    with pytest.raises(IntegrityError):
        await add_rows(database, make_row(0), make_row(1), make_row(2))
    assert await history(database) == [make_row(1).id]


async def test_one_instant_in_two_clock_epochs_is_two_due_instants(database: Database):
    """A re-created job has its own instants."""
    await add_job(database)
    reborn = make_row(id=random_execution_id(), clock_epoch=1)
    await add_rows(database, make_row(), reborn)
    assert len(await history(database)) == 2


async def test_manual_runs_of_one_instant_are_all_kept(database: Database):
    """Only due instants are unique: a job may be triggered twice in one microsecond."""
    await add_job(database)
    manual = [make_row(id=random_execution_id(), cause=Cause.MANUAL) for _ in range(2)]
    await add_rows(database, make_row(), *manual)
    assert len(await history(database)) == 3


async def test_inserting_nothing_is_allowed(database: Database):
    """A tick may find nothing to write."""
    assert await add_rows(database) == []


async def test_known_ids_are_those_with_a_row(database: Database):
    """Of many ids, more than one statement takes, those in the ledger are told."""
    await add_job(database)
    present = await add_rows(database, make_row(1), make_row(2))
    asked = [ExecutionId(f"exe_{number}") for number in range(1200)]
    asked[0], asked[900] = present
    assert await database.read(execution_repository.known_ids, asked) == set(present)
    assert await database.read(execution_repository.known_ids, []) == set()


async def test_open_executions_are_counted_by_job_and_status(database: Database):
    """Queued, running and retrying ones count, final ones do not; idle jobs are left out."""
    for job_id in (JOB, OTHER, JobId("idle")):
        await add_job(database, job_id)
    rows = [make_row(number, exclusive=False) for number in range(4)]
    await add_rows(database, *rows)
    claimed, _ = await claim_all(database)
    await record(
        database,
        make_ending(claimed[0], ExecutionStatus.COMPLETED),
        make_ending(claimed[1], ExecutionStatus.RETRYING),
    )
    await add_rows(database, make_row(8), make_row(9), make_unrun(10), make_row(1, OTHER))
    ids = [JOB, OTHER, JobId("idle"), *[JobId("unknown")] * 600]
    assert await database.read(execution_repository.count_open, ids) == {
        JOB: Counter(
            {
                ExecutionStatus.QUEUED: 2,
                ExecutionStatus.RUNNING: 2,
                ExecutionStatus.RETRYING: 1,
            }
        ),
        OTHER: Counter({ExecutionStatus.QUEUED: 1}),
    }


async def test_cancelling_ends_what_waits_and_nothing_else(database: Database):
    """Queued and retrying executions of the job end with the reason; running ones go on."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(0, exclusive=False), make_row(1, exclusive=False))
    first, _ = (await claim_all(database))[0]
    await record(database, make_ending(first, ExecutionStatus.RETRYING))
    await add_rows(database, make_row(2), make_row(3, OTHER))
    cancelled = await database.write(
        execution_repository.cancel_waiting, JOB, reason=Reason.PAUSED, now_us=NOW_US
    )
    assert set(cancelled) == {first.attempt.execution_id, make_row(2).id}
    for execution_id in cancelled:
        execution = await found(database, execution_id)
        assert execution.status is ExecutionStatus.CANCELLED
        assert execution.reason is Reason.PAUSED
        assert execution.finished_at == NOW
        assert execution.next_attempt_at is None
    assert (await found(database, make_row(1).id)).status is ExecutionStatus.RUNNING
    assert (await found(database, make_row(3, OTHER).id)).status is ExecutionStatus.QUEUED


async def test_stopping_marks_only_what_runs(database: Database):
    """The attempts under way become their executions' last; those that wait are left alone."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(0), make_row(0, OTHER))
    await claim_all(database)
    await add_rows(database, make_row(1))
    await database.write(execution_repository.stop_running, JOB, reason=Reason.JOB_DELETED)
    rows = await database.rows("SELECT id, stop_reason FROM executions ORDER BY seq")
    assert rows == [
        {"id": make_row(0).id, "stop_reason": "job_deleted"},
        {"id": make_row(0, OTHER).id, "stop_reason": None},
        {"id": make_row(1).id, "stop_reason": None},
    ]


async def test_an_id_has_history_if_any_execution_is_kept(database: Database):
    """A job that never had an execution has no history."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row())
    assert await database.read(execution_repository.has_history, JOB)
    assert not await database.read(execution_repository.has_history, OTHER)


async def test_an_unknown_execution_is_none(database: Database):
    """An id without a row is read as None, and has no attempts."""
    assert await database.read(execution_repository.find_execution, UNKNOWN) is None
    assert await database.read(execution_repository.list_attempts, UNKNOWN) == []


async def test_an_execution_that_waits_has_no_attempts(database: Database):
    """Before its first claim there is nothing to list."""
    await add_job(database)
    await add_rows(database, make_row())
    assert await database.read(execution_repository.list_attempts, make_row().id) == []


async def test_a_live_attempt_is_listed_without_an_end(database: Database):
    """The attempt under way has a start, and neither end nor outcome."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    assert await database.read(execution_repository.list_attempts, make_row().id) == [
        AttemptRecord(
            number=1,
            started_at=run.attempt.started_at,
            ended_at=None,
            outcome=None,
            reason=None,
            http_status=None,
            response_bytes=None,
            error=None,
            replica=OWNER,
        )
    ]


async def test_attempts_are_listed_in_order_the_last_from_its_execution(database: Database):
    """Attempts that were followed by another one, and the last one, make one list."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.RETRYING))
    again = await claim_one(database, now=NOW + timedelta(minutes=1))
    await record(database, make_ending(again, ExecutionStatus.COMPLETED))
    assert await database.read(execution_repository.list_attempts, make_row().id) == [
        AttemptRecord(
            number=1,
            started_at=NOW + SECOND,
            ended_at=NOW + 2 * SECOND,
            outcome=AttemptOutcome.RESPONSE,
            reason=Reason.STATUS,
            http_status=503,
            response_bytes=2,
            error="The target answered 503",
            replica=OWNER,
        ),
        AttemptRecord(
            number=2,
            started_at=NOW + timedelta(minutes=1),
            ended_at=NOW + timedelta(minutes=1, seconds=1),
            outcome=AttemptOutcome.RESPONSE,
            reason=None,
            http_status=200,
            response_bytes=2,
            error=None,
            replica=OWNER,
        ),
    ]


async def test_each_attempt_names_who_makes_it(database: Database):
    """An execution names who runs it or ran it last, none while it waits; attempts keep theirs."""
    await add_job(database)
    await add_rows(database, make_row())
    named = []

    async def look() -> None:
        (listed,) = await read_history(database)
        read = await found(database, make_row().id)
        assert listed.replica == read.replica
        named.append(listed.replica)

    await look()
    first = await claim_one(database, owner="one:1")
    await look()
    await record(database, make_ending(first, ExecutionStatus.RETRYING, owner="one:1"))
    await look()
    second = await claim_one(database, owner="two:2", now=NOW + timedelta(minutes=1))
    await look()
    await record(database, make_ending(second, ExecutionStatus.COMPLETED, owner="two:2"))
    await look()
    assert named == [None, "one:1", None, "two:2", "two:2"]
    attempts = await database.read(execution_repository.list_attempts, make_row().id)
    assert [attempt.replica for attempt in attempts] == ["one:1", "two:2"]


async def test_an_attempt_is_listed_once_while_its_execution_waits_again(database: Database):
    """Between two attempts, and after a cancellation then, the list holds what was made."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.RETRYING))
    listed = await database.read(execution_repository.list_attempts, make_row().id)
    assert [attempt.number for attempt in listed] == [1]
    await database.write(
        execution_repository.cancel_waiting, JOB, reason=Reason.USER, now_us=NOW_US
    )
    assert await database.read(execution_repository.list_attempts, make_row().id) == listed


async def test_kept_attempts_say_who_made_them(database: Database):
    """An attempt's row names its owner and fence."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.RETRYING))
    assert await database.rows("SELECT number, owner, fence FROM attempts") == [
        {"number": 1, "owner": OWNER, "fence": run.fence}
    ]
