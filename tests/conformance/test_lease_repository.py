import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import SystemClock, to_us
from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId
from app.models.tables import executions
from app.repositories import execution_repository, lease_repository
from app.repositories.lease_repository import Renewal
from tests.conformance.builders import (
    FENCE,
    JOB,
    NOW,
    OWNER,
    SECOND,
    add_job,
    add_rows,
    claim_all,
    claim_one,
    left_open,
    make_ending,
    make_row,
    record,
)
from tests.support.databases import Database, DatabaseKind

HOUR = timedelta(hours=1)
MINE = Renewal(owner=OWNER, fence=FENCE, now=NOW, lease=HOUR)


async def lease_of(database: Database, execution_id: ExecutionId) -> timedelta | None:
    """Tell how long a run is leased from now, as the database sees now."""
    (row,) = await database.rows(
        "SELECT lease_until_us FROM executions WHERE id = :id", id=execution_id
    )
    sqlite = database.kind is DatabaseKind.SQLITE
    now_us = to_us(NOW if sqlite else SystemClock().now())
    left = row["lease_until_us"]
    return None if left is None else timedelta(microseconds=int(left) - now_us)


async def renew(
    database: Database, ids: Sequence[ExecutionId], renewal: Renewal = MINE
) -> list[ExecutionId]:
    return await database.write(lease_repository.renew_leases, ids, renewal)


async def end_lease(database: Database, execution_id: ExecutionId) -> None:
    await database.execute(
        "UPDATE executions SET lease_until_us = 1 WHERE id = :id", id=execution_id
    )


@contextlib.asynccontextmanager
async def held(database: Database, execution_id: ExecutionId) -> AsyncIterator[None]:
    """Have a row locked by another transaction as long as the block lasts."""
    row = sa.select(executions.c.id).where(executions.c.id == execution_id)
    async with left_open(database, lambda connection: connection.execute(row.with_for_update())):
        yield


@pytest.mark.parametrize(
    ("span", "covered"), [(timedelta(seconds=20), 20), (timedelta(seconds=40), 30), (None, 30)]
)
async def test_a_lease_covers_a_part_of_a_long_attempt(
    database: Database, span: timedelta | None, covered: int
):
    """Of a timeout of 30 s a lease covers no more than is asked for, and the margin on top."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database, lease_span=span, now=NOW)
    left = await lease_of(database, run.attempt.execution_id)
    assert left is not None
    assert abs(left - (covered + 10) * SECOND) < 5 * SECOND


async def test_a_lease_is_renewed_by_the_databases_clock(database: Database):
    """A renewed lease lasts from now on, also one that was over, as nobody has rescued its run."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    execution_id = run.attempt.execution_id
    await end_lease(database, execution_id)
    assert await renew(database, [execution_id]) == [execution_id]
    left = await lease_of(database, execution_id)
    assert left is not None
    assert abs(left - HOUR) < 10 * SECOND


@pytest.mark.parametrize(
    "renewal",
    [replace(MINE, owner="another:2"), replace(MINE, fence=FENCE + 1)],
    ids=["owner", "fence"],
)
async def test_nobody_elses_lease_is_renewed(database: Database, renewal: Renewal):
    """A process that lost its run to another, or its term, renews nothing."""
    await add_job(database)
    await add_rows(database, make_row())
    execution_id = (await claim_one(database)).attempt.execution_id
    await end_lease(database, execution_id)
    assert await renew(database, [execution_id], renewal) == []
    assert await database.rows("SELECT lease_until_us FROM executions") == [{"lease_until_us": 1}]


async def test_what_does_not_run_gets_no_lease(database: Database):
    """A run that has ended, or waits for its next attempt, stays without a lease."""
    await add_job(database)
    await add_rows(database, make_row(1, exclusive=False), make_row(2, exclusive=False))
    first, second = (await claim_all(database))[0]
    await record(
        database,
        make_ending(first, ExecutionStatus.COMPLETED),
        make_ending(second, ExecutionStatus.RETRYING),
    )
    ids = [first.attempt.execution_id, second.attempt.execution_id]
    assert await renew(database, ids) == []
    assert [await lease_of(database, one) for one in ids] == [None, None]


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="an SQLite file has one writer")
async def test_a_renewal_waits_for_no_other_transaction(postgres: Database):
    """A row that another transaction holds is left out, and nothing waits or deadlocks."""
    await add_job(postgres)
    await add_rows(postgres, make_row(1, exclusive=False), make_row(2, exclusive=False))
    ids = sorted(run.attempt.execution_id for run in (await claim_all(postgres))[0])
    async with held(postgres, ids[0]):
        assert await renew(postgres, ids) == ids[1:]
    assert sorted(await renew(postgres, ids)) == ids


async def test_only_leases_that_are_over_are_held(database: Database):
    """Of runs that looked lost, one that was renewed since, or has ended, is lost no more."""
    await add_job(database)
    rows = [make_row(number, exclusive=False) for number in range(1, 4)]
    await add_rows(database, *rows)
    claimed = (await claim_all(database))[0]
    ids = [run.attempt.execution_id for run in claimed]
    for one in ids:
        await end_lease(database, one)
    await renew(database, ids[:1])
    await record(database, make_ending(claimed[1], ExecutionStatus.COMPLETED))
    over = await database.write(lease_repository.hold_those_over, ids, now=NOW)
    assert over == {ids[2]}


async def test_a_stopped_run_is_still_leased(database: Database):
    """A run that is to be cancelled goes on until its attempt ends, under its lease."""
    await add_job(database)
    await add_rows(database, make_row())
    execution_id = (await claim_one(database)).attempt.execution_id

    def stop(connection: WriteConnection) -> None:
        execution_repository.stop_running(connection, JOB, reason=Reason.PAUSED)

    await database.write(stop)
    assert await renew(database, [execution_id]) == [execution_id]
