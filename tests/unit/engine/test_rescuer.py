"""When the rescuer settles what looks lost, and when it waits for owners that may live."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from app.db.unit_of_work import ReadConnection, UnitOfWork, WriteConnection
from app.domain.errors import StorageUnavailableError
from app.domain.ids import ExecutionId, JobId
from app.engine.rescuer import PATIENCE_AMONG_REPLICAS, Rescuer, RescuerOptions
from app.engine.tasks import Tasks
from app.repositories.orphan_repository import OrphanRun
from tests.support.builders import NOON, make_policy
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

T = TypeVar("T")

SECOND = timedelta(seconds=1)
ORPHAN = OrphanRun(
    execution_id=ExecutionId("exe_1"),
    job_id=JobId("job"),
    host="host:80",
    owner="dead:1",
    fence=1,
    number=1,
    retries=0,
    attempt_started_at=NOON,
    policy=make_policy(),
)


class LostRun:
    """A database in which one run looks lost until it is settled, at one of its doors."""

    def __init__(self) -> None:
        self.broken = False
        self.refused = self.looks = 0
        self.settled = False

    async def read(self, _unit: Callable[[ReadConnection], T]) -> T:
        if self.broken:
            self.refused += 1
            raise StorageUnavailableError("The database cannot be read right now")
        self.looks += 1
        found: Any = [] if self.settled else [ORPHAN]
        return found  # type: ignore[no-any-return]  # of the one function that is asked

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        assert isinstance(unit, partial)
        self.settled = True
        written: Any = unit.keywords["endings"]
        return written  # type: ignore[no-any-return]  # as above

    async def close(self) -> None:
        return

    async def looked_at(self) -> None:
        """Wait for some more looks."""
        enough = self.looks + 3
        await eventually(lambda: self.looks >= enough, every=0.001)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock(NOON) as clock:
        yield clock


@pytest.fixture
def database() -> LostRun:
    return LostRun()


@contextlib.asynccontextmanager
async def rescuing(
    database: LostRun,
    clock: VirtualClock,
    patience: timedelta = PATIENCE_AMONG_REPLICAS,
    *,
    in_touch: timedelta = timedelta(0),
) -> AsyncIterator[None]:
    """Look all the time as long as the block lasts; in touch for so long by then."""
    since = clock.monotonic() - in_touch.total_seconds()
    rescuer = Rescuer(
        unit_of_work=UnitOfWork(reader=database, writer=database),
        clock=clock,
        options=RescuerOptions(every=timedelta(milliseconds=1), patience=patience),
        in_touch_since=lambda: since,
        owned=tuple,
        rescued=lambda _runs: None,
    )

    tasks = Tasks()
    tasks.loop("rescuer", rescuer.run, course=rescuer.course)
    yield
    await tasks.end_all()


async def settles_after_fifteen_seconds(database: LostRun, clock: VirtualClock) -> None:
    """Let time pass until the lost run is settled: not before, and not much later."""
    for _ in range(3):
        await database.looked_at()
        clock.advance(4.9 * SECOND)
    await database.looked_at()
    assert not database.settled
    clock.advance(SECOND)
    await eventually(lambda: database.settled)


async def test_a_process_alone_settles_at_once(database: LostRun, clock: VirtualClock):
    """Where no other process has leases there is nobody to be patient with."""
    async with rescuing(database, clock, timedelta(0)):
        await eventually(lambda: database.settled)


async def test_a_new_leader_that_knows_the_database_settles_at_once(
    database: LostRun, clock: VirtualClock
):
    """One that was in touch all the time as a follower need not wait: leaders may change often."""
    async with rescuing(database, clock, in_touch=15 * SECOND):
        await eventually(lambda: database.settled)


async def test_owners_come_first_where_the_database_is_new(database: LostRun, clock: VirtualClock):
    """Until it is in touch for fifteen seconds a leader waits, then settles what is over."""
    async with rescuing(database, clock):
        await settles_after_fifteen_seconds(database, clock)


@pytest.mark.parametrize("how", ["failed", "not looked"])
async def test_owners_come_first_after_an_absence(database: LostRun, clock: VirtualClock, how: str):
    """After a look that failed, or none for fifteen seconds, it waits for fifteen more."""
    database.settled = True
    async with rescuing(database, clock):
        for _ in range(4):
            await database.looked_at()
            clock.advance(5 * SECOND)
        await database.looked_at()
        if how == "failed":
            database.broken = True
            await eventually(lambda: database.refused)
            database.broken = False
        else:
            clock.advance(16 * SECOND)
        database.settled = False
        await settles_after_fifteen_seconds(database, clock)
