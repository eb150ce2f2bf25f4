"""What is put right after a commit that the database did not confirm, on both databases."""

from dataclasses import replace

import pytest

from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId
from app.repositories import doubt_repository, execution_repository, job_repository
from app.repositories.run_repository import Ending
from tests.conformance.builders import (
    FENCE,
    JOB,
    OWNER,
    add_job,
    add_rows,
    claim_all,
    claim_one,
    make_ending,
    make_row,
    read_history,
    record,
)
from tests.support.databases import Database


async def withdraw(
    database: Database, *ids: ExecutionId, owner: str = OWNER, fence: int = FENCE
) -> list[ExecutionId]:
    return await database.write(
        doubt_repository.withdraw_claims, set(ids), owner=owner, fence=fence
    )


async def again(database: Database, *endings: Ending) -> list[Ending]:
    return await database.write(doubt_repository.record_again, endings)


async def test_a_claim_is_withdrawn(database: Database):
    """A run that was claimed and not begun waits as it did, and its start is not counted."""
    await add_job(database)
    [execution_id] = await add_rows(database, make_row())
    await claim_one(database)
    await database.write(job_repository.count_starts, {JOB: 1})

    assert await withdraw(database, execution_id) == [execution_id]
    [row] = await read_history(database)
    assert (row.status, row.attempts, row.started_at) == (ExecutionStatus.QUEUED, 0, None)
    job = await database.read(job_repository.find_job, JOB)
    assert job is not None
    assert job.execution_count == 0
    assert (await claim_one(database)).attempt.number == 1


async def test_the_claim_of_a_retry_is_withdrawn(database: Database):
    """A second attempt that was not begun is one again; the run's first start stays."""
    await add_job(database)
    [execution_id] = await add_rows(database, make_row())
    first = await claim_one(database)
    await record(database, make_ending(first, ExecutionStatus.RETRYING))
    await claim_one(database)

    assert await withdraw(database, execution_id) == [execution_id]
    [row] = await read_history(database)
    assert (row.status, row.attempts) == (ExecutionStatus.RETRYING, 1)
    second = await claim_one(database)
    assert second.attempt.number == 2
    assert second.first_started_at == first.first_started_at


@pytest.mark.parametrize("whose", [{"owner": "another:2"}, {"fence": FENCE + 1}])
async def test_the_claims_of_others_stay(database: Database, whose: dict[str, object]):
    """What another process claimed, or this one under another fence, is not touched."""
    await add_job(database)
    [execution_id] = await add_rows(database, make_row())
    await claim_one(database, **whose)
    assert await withdraw(database, execution_id) == []
    [row] = await read_history(database)
    assert row.status is ExecutionStatus.RUNNING


async def test_only_the_named_claims_are_withdrawn(database: Database):
    """A run that this process sends meanwhile goes on; one that waits, goes on waiting."""
    await add_job(database, "other")
    await add_job(database)
    [doubtful] = await add_rows(database, make_row())
    [sent] = await add_rows(database, make_row(job_id="other"))
    await claim_all(database)
    assert await withdraw(database, doubtful) == [doubtful]
    assert await withdraw(database, doubtful) == []
    [row] = await read_history(database, "other")
    assert (row.id, row.status) == (sent, ExecutionStatus.RUNNING)


async def test_a_cancelled_claim_is_left_to_the_rescue(database: Database):
    """A run that must not be sent any more does not wait again."""
    await add_job(database)
    [execution_id] = await add_rows(database, make_row())
    await claim_one(database)
    await database.write(execution_repository.stop_running, JOB, reason=Reason.USER)
    assert await withdraw(database, execution_id) == []


@pytest.mark.parametrize("status", [ExecutionStatus.COMPLETED, ExecutionStatus.RETRYING])
async def test_an_ending_is_written_once(database: Database, status: ExecutionStatus):
    """An ending that is not stored is written, and one that is, is told and left as it is."""
    await add_job(database)
    await add_rows(database, make_row())
    ending = make_ending(await claim_one(database), status)
    assert await again(database, ending) == [ending]
    before = await read_history(database)
    assert await again(database, ending) == [ending]
    assert await read_history(database) == before


async def test_a_retry_that_went_on_is_told(database: Database):
    """An ending whose retry another process has taken by now was written all the same."""
    await add_job(database)
    await add_rows(database, make_row())
    ending = make_ending(await claim_one(database), ExecutionStatus.RETRYING)
    await record(database, ending)
    await claim_one(database, owner="another:2")
    assert await again(database, ending) == [ending]


async def test_an_ending_is_told_as_it_was_written(database: Database):
    """A retry that was cancelled instead is told as cancelled."""
    await add_job(database)
    await add_rows(database, make_row())
    ending = make_ending(await claim_one(database), ExecutionStatus.RETRYING)
    await database.write(execution_repository.stop_running, JOB, reason=Reason.USER)
    written = await record(database, ending)
    assert [one.status for one in written] == [ExecutionStatus.CANCELLED]
    assert await again(database, ending) == written


async def test_the_endings_of_others_are_not_told(database: Database):
    """A row that another process ended, or that is gone, has no ending of this process's."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database, owner="another:2")
    theirs = make_ending(run, ExecutionStatus.COMPLETED, owner="another:2")
    await record(database, theirs)
    mine = replace(theirs, owner=OWNER, ended_at=run.attempt.started_at)
    gone = replace(mine, execution_id=ExecutionId("exe_unknown"))
    assert await again(database, mine, gone) == []
