"""When leases are renewed, and which."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from app.backends.embedded import EmbeddedLeader
from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.errors import StorageUnavailableError
from app.domain.ids import ExecutionId
from app.engine.leases import SPAN_AMONG_REPLICAS, LeaseOptions, Leases
from app.engine.tasks import Tasks
from tests.support.builders import NOON
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

T = TypeVar("T")

SECOND = timedelta(seconds=1)
ONE, TWO = ExecutionId("exe_1"), ExecutionId("exe_2")
# As in use, but looked for all the time.
OPTIONS = LeaseOptions(span=SPAN_AMONG_REPLICAS, renew_every=timedelta(milliseconds=1))


class RenewingWriter:
    """Says that all leases are renewed but those ``kept``; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[ExecutionId]] = []
        self.kept: set[ExecutionId] = set()
        self.on_write: Callable[[], None] = lambda: None
        self.broken = False

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        if self.broken:
            raise StorageUnavailableError("The database did not take the change")
        assert isinstance(unit, partial)
        self.asked.append(unit.keywords["ids"])
        self.on_write()
        answer: Any = [one for one in unit.keywords["ids"] if one not in self.kept]
        return answer  # type: ignore[no-any-return]  # of the one function that is asked

    async def close(self) -> None:
        return


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock(NOON) as clock:
        yield clock


@pytest.fixture
def writer() -> RenewingWriter:
    return RenewingWriter()


@pytest.fixture
def leases(writer: RenewingWriter, clock: VirtualClock) -> Leases:
    unread: Any = None
    return Leases(
        unit_of_work=UnitOfWork(reader=unread, writer=writer),
        leader=EmbeddedLeader(owner="me", term=1, since=clock.now()),
        clock=clock,
        options=OPTIONS,
    )


@contextlib.asynccontextmanager
async def running(leases: Leases) -> AsyncIterator[None]:
    """Run the loop as long as the block lasts."""
    tasks = Tasks()
    tasks.loop("leases", leases.run, course=leases.course)
    yield
    await tasks.end_all()


async def looked(leases: Leases) -> None:
    """Wait until the loop has had some rounds."""
    for _ in range(3):
        leases.course._went_on = False
        await eventually(lambda: leases.course._went_on, every=0.001)


async def test_a_young_lease_costs_no_write(
    leases: Leases, writer: RenewingWriter, clock: VirtualClock
):
    """What ends within ten seconds of its claim is never written for a second time."""
    for number in range(1000):
        leases.hold(ExecutionId(f"exe_{number}"), since=clock.monotonic())
    async with running(leases):
        clock.advance(9.9 * SECOND)
        await looked(leases)
        for number in range(1000):
            leases.let_go(ExecutionId(f"exe_{number}"))
        clock.advance(SECOND)
        await looked(leases)
    assert writer.asked == []


async def test_an_old_lease_is_renewed_and_young_again(
    leases: Leases, writer: RenewingWriter, clock: VirtualClock
):
    """All that are old are renewed by one statement, then none for ten seconds."""
    leases.hold(ONE, since=clock.monotonic())
    leases.hold(TWO, since=clock.monotonic())
    async with running(leases):
        for _ in range(3):
            clock.advance(10 * SECOND)
            await looked(leases)
            clock.advance(5 * SECOND)
            await looked(leases)
    assert writer.asked == [[ONE, TWO]] * 3


async def test_a_lease_that_was_not_renewed_is_tried_again(
    leases: Leases, writer: RenewingWriter, clock: VirtualClock
):
    """A row that another transaction held is asked for at the next look, by itself."""
    leases.hold(ONE, since=clock.monotonic())
    leases.hold(TWO, since=clock.monotonic())
    writer.kept = {TWO}
    clock.advance(10 * SECOND)
    async with running(leases):
        await eventually(lambda: len(writer.asked) > 1)
    assert writer.asked[:2] == [[ONE, TWO], [TWO]]


async def test_a_run_that_is_claimed_anew_meanwhile_stays_young(
    leases: Leases, writer: RenewingWriter, clock: VirtualClock
):
    """The answer of a renewal makes no lease older that was taken while it was under way."""
    leases.hold(ONE, since=clock.monotonic())

    def claim_anew() -> None:
        clock.advance(5 * SECOND)
        leases.let_go(TWO)
        leases.hold(ONE, since=clock.monotonic())

    leases.hold(TWO, since=clock.monotonic())
    writer.on_write = claim_anew
    clock.advance(10 * SECOND)
    async with running(leases):
        await looked(leases)
        clock.advance(9 * SECOND)
        await looked(leases)
    assert writer.asked == [[ONE, TWO]]
    assert leases.held == {ONE}


async def test_a_failed_renewal_is_told(
    leases: Leases, writer: RenewingWriter, clock: VirtualClock
):
    """What the database raises ends the loop, whose supervisor starts it again; nothing is lost."""
    leases.hold(ONE, since=clock.monotonic())
    clock.advance(10 * SECOND)
    writer.broken = True
    with pytest.raises(StorageUnavailableError):
        await leases.run()
    writer.broken = False
    async with running(leases):
        await looked(leases)
    assert writer.asked == [[ONE]]


def test_a_lease_lasts_until_it_is_renewed():
    """Options by which a lease would end before its renewal are refused."""
    with pytest.raises(ValueError, match="longer"):
        LeaseOptions(span=5 * SECOND, margin=SECOND)
    assert OPTIONS.longest == 30 * SECOND
