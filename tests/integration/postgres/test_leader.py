"""Who leads among replicas, and how the lead passes on, on a real PostgreSQL."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.util import await_only

from app.backends.postgres.leader import LOCK_KEY, LeaderOptions, PostgresLeader
from app.db.session import open_postgres, open_postgres_direct, open_postgres_reader
from app.db.unit_of_work import PostgresWriter, UnitOfWork, WriteConnection
from app.domain.clock import SystemClock
from app.domain.errors import StorageInUseError, StorageUnavailableError
from app.domain.tenure import Tenure
from app.engine.tasks import Tasks
from tests.support.partition import network_postgres
from tests.support.service import eventually

FAST = LeaderOptions(
    every=timedelta(milliseconds=50),
    ping_within=timedelta(milliseconds=300),
    silence_max=timedelta(seconds=1),
    trust_margin=timedelta(milliseconds=200),
)


class HeldClock(SystemClock):
    """A clock whose monotonic time can be moved ahead, as a suspended process sees it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@dataclass
class Replica:
    """A leader with a database of its own connections, and what it was told."""

    leader: PostgresLeader
    unit_of_work: UnitOfWork
    clock: HeldClock
    tasks: Tasks = field(default_factory=Tasks)
    told: list[str] = field(default_factory=list)
    last_beats: list[datetime | None] = field(default_factory=list)

    def campaign(self) -> None:
        async def gained(last_beat: datetime | None) -> None:
            self.last_beats.append(last_beat)
            self.told.append("gained")

        async def lost() -> None:
            self.told.append("lost")

        self.tasks.loop("leader", lambda: self.leader.run(gained, lost))

    async def leads(self, *, seconds: float = 20) -> None:
        async def asked() -> bool:
            return self.leader.is_leading and self.told[-1:] == ["gained"]

        await eventually(asked, seconds=seconds)

    async def tick(self) -> None:
        """Commit what only the leader may."""
        await self.unit_of_work.write(self.leader.guard)


@contextlib.asynccontextmanager
async def replica(url: str, name: str) -> AsyncIterator[Replica]:
    unit_of_work = UnitOfWork(
        reader=open_postgres_reader(url, connections=1),
        writer=PostgresWriter(open_postgres(url, connections=2)),
    )
    engine, clock = open_postgres_direct(url), HeldClock()
    leader = PostgresLeader(
        engine=engine, unit_of_work=unit_of_work, owner=name, clock=clock, options=FAST
    )
    made = Replica(leader=leader, unit_of_work=unit_of_work, clock=clock)
    try:
        yield made
    finally:
        leader.resign()
        await made.tasks.end_all()
        await engine.dispose()
        await unit_of_work.close()


async def rows(of: Replica, statement: str, **parameters: object) -> list[sa.Row[tuple[object]]]:
    return await of.unit_of_work.read(
        lambda connection: list(connection.execute(sa.text(statement), parameters))
    )


@pytest.mark.slow
async def test_the_server_asks_whether_a_leader_is_there():
    """Over a network the leader's session has keepalives, and waits for no lock without end."""
    # An address of this machine that no other test takes.
    number = os.getpid()
    host = f"127.{64 + number // 65536 % 64}.{number // 256 % 256}.{number % 256}"
    with network_postgres(host) as server:
        engine = open_postgres_direct(server.network_url("postgres"))
        try:
            async with engine.connect() as connection:
                shown = {
                    name: await connection.scalar(sa.text(f"SHOW {name}")) for name in _SETTINGS
                }
        finally:
            await engine.dispose()
    assert shown == _SETTINGS


# Three unanswered questions two seconds apart, the first after three: nine seconds.
_SETTINGS = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "lock_timeout": "5s",
}


async def test_one_of_two_leads(url: str):
    """Of two replicas one leads; the other commits no tick, and the lock is there to be seen."""
    async with replica(url, "one") as one, replica(url, "two") as two:
        one.campaign()
        await one.leads()
        two.campaign()
        await one.tick()
        with pytest.raises(StorageInUseError):
            await two.tick()
        held = await rows(
            one, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = :key AND granted",
            key=LOCK_KEY,
        )  # fmt: skip
        assert len(held) == 1
        assert two.told == []
        since = one.leader.tenure.leading_since
        assert one.leader.tenure == Tenure(terms_won=1, leading_since=since)
        assert two.leader.tenure == Tenure()


async def test_the_lead_passes_on_by_resignation(url: str):
    """A leader that resigns says so at once, and the next one hears when it was last alive."""
    async with replica(url, "one") as one, replica(url, "two") as two:
        one.campaign()
        await one.leads()
        two.campaign()
        one.leader.resign()
        await two.leads()
        assert one.told == ["gained", "lost"]
        assert one.last_beats == [None]
        assert two.last_beats[0] is not None
        await two.tick()
        with pytest.raises(StorageInUseError):
            await one.tick()
        assert one.leader.tenure == Tenure(terms_won=1, terms_lost=1)
        since = two.leader.tenure.leading_since
        assert two.leader.tenure == Tenure(terms_won=1, takeovers=1, leading_since=since)


async def test_a_leader_whose_connection_ends_steps_down(url: str):
    """When the database ends the leader's connection, it steps down and campaigns again."""
    async with replica(url, "one") as one:
        one.campaign()
        await one.leads()
        await rows(
            one,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND objid = :key", key=LOCK_KEY,
        )  # fmt: skip
        await eventually(lambda: _told(one, ["gained", "lost", "gained"]))
        await one.tick()
        assert (one.leader.tenure.terms_won, one.leader.tenure.takeovers) == (2, 0)


async def _told(of: Replica, expected: list[str]) -> bool:
    return of.told == expected


async def test_a_silent_leader_is_cut_off(url: str):
    """A leader that stopped while holding the lock is replaced, and what it then tries fails."""
    async with replica(url, "one") as one, replica(url, "two") as two:
        one.campaign()
        await one.leads()
        silent = asyncio.Event()

        async def silence(_connection: object) -> None:
            await silent.wait()

        # Its connection stays open and asks nothing more, as that of a stopped process.
        one.leader._ping = silence  # type: ignore[method-assign, assignment]  # stands for SIGSTOP
        two.campaign()
        await two.leads()
        one.clock.ahead = 60.0
        assert not one.leader.is_leading
        with pytest.raises(StorageInUseError):
            await one.tick()
        # Even one that still trusted itself is fenced by its term.
        one.leader._trusted_until = float("inf")
        with pytest.raises(StorageInUseError, match="taken over"):
            await one.tick()
        await two.tick()
        assert two.leader.tenure.cut_offs == 1


def _hold(_connection: WriteConnection) -> None:
    """Leave an open transaction between two statements."""


def _prepare(connection: WriteConnection) -> None:
    """Leave an open transaction between preparing a statement and executing it."""
    session = connection.connection.driver_connection
    assert session is not None
    await_only(session.prepare("UPDATE leadership SET term = term"))


@pytest.mark.slow
async def test_a_host_that_a_silent_claim_holds_is_freed(url: str):
    """A claim that stopped before it wrote anything holds hosts: its session is ended too."""
    async with replica(url, "one") as one, replica(url, "two") as two:
        silent, claimed = asyncio.Event(), asyncio.Event()

        def hold_host(connection: WriteConnection) -> None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(17)"))
            _prepare(connection)
            claimed.set()
            await_only(silent.wait())

        claiming = one.tasks.spawn(one.unit_of_work.write(hold_host), name="claim")
        await claimed.wait()
        two.campaign()

        async def is_free() -> bool:
            return not await rows(two, "SELECT 1 FROM pg_locks WHERE objid = 17")

        try:
            # After ten seconds a process that is not stopped itself gives up its transaction.
            await eventually(is_free, seconds=9)
        finally:
            silent.set()
            await asyncio.wait([claiming])
        with pytest.raises(StorageUnavailableError):
            claiming.result()


@pytest.mark.slow
@pytest.mark.parametrize("leave", [_hold, _prepare])
async def test_a_leader_that_stops_in_a_tick_is_replaced(
    url: str, leave: Callable[[WriteConnection], None]
):
    """A leader that was stopped amid a tick, or a statement of it, keeps no other from leading."""
    async with replica(url, "one") as one, replica(url, "two") as two:
        one.campaign()
        await one.leads()
        silent, guarded = asyncio.Event(), asyncio.Event()

        async def silence(_connection: object) -> None:
            await silent.wait()

        def tick(connection: WriteConnection) -> None:
            one.leader.guard(connection)
            leave(connection)
            guarded.set()
            await_only(silent.wait())

        ticking = one.tasks.spawn(one.unit_of_work.write(tick), name="tick")
        await guarded.wait()
        one.leader._ping = silence  # type: ignore[method-assign, assignment]  # stands for SIGSTOP
        two.campaign()
        try:
            # The database takes it that a transaction whose client is silent is a lost one.
            await two.leads(seconds=10)
        finally:
            silent.set()
            await asyncio.wait([ticking])
        with pytest.raises(StorageUnavailableError):
            ticking.result()
