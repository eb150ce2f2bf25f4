from collections.abc import Callable
from typing import TypeVar

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.execution import ExecutionStatus, WaitingRun
from app.domain.ids import ExecutionId
from app.engine.rescuer import Rescuer, RescuerOptions
from app.engine.tasks import Tasks
from app.repositories import lease_repository
from app.repositories.lease_repository import Renewal
from tests.conformance.builders import (
    FENCE,
    OWNER,
    SECOND,
    add_job,
    add_rows,
    claim_all,
    make_row,
    read_history,
)
from tests.support.builders import NOON
from tests.support.databases import Database
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

T = TypeVar("T")


class LateReader:
    """Gives what it read when the owner of one run has renewed its lease."""

    def __init__(self, database: Database, renewed: ExecutionId) -> None:
        self._database = database
        self._renewed = renewed

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        found = await self._database.unit_of_work.read(unit)
        now = NOON + 1000 * SECOND
        renewal = Renewal(owner=OWNER, fence=FENCE, now=now, lease=1000 * SECOND)
        await self._database.write(lease_repository.renew_leases, [self._renewed], renewal)
        return found

    async def close(self) -> None:
        return


async def test_a_run_that_is_renewed_meanwhile_is_not_lost(database: Database):
    """Between the look at leases and the settling an owner may renew: its run goes on."""
    await add_job(database)
    await add_rows(database, make_row(1, exclusive=False), make_row(2, exclusive=False))
    kept, lost = sorted(run.attempt.execution_id for run in (await claim_all(database))[0])
    await database.execute("UPDATE executions SET lease_until_us = 1")
    rescued: list[WaitingRun] = []
    tasks = Tasks()
    with VirtualClock(NOON) as clock:
        rescuer = Rescuer(
            unit_of_work=UnitOfWork(
                reader=LateReader(database, kept), writer=database.unit_of_work._writer
            ),
            clock=clock,
            options=RescuerOptions(),
            in_touch_since=clock.monotonic,
            owned=tuple,
            rescued=rescued.extend,
        )
        tasks.loop("rescuer", rescuer.run, course=rescuer.course)
        await eventually(lambda: rescued)
        await tasks.end_all()
    assert [run.id for run in rescued] == [lost]
    status = {row.id: row.status for row in await read_history(database)}
    assert status == {kept: ExecutionStatus.RUNNING, lost: ExecutionStatus.RETRYING}
