"""Both doors while connections to PostgreSQL are stalled, reset, or lost in the very commit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.util import await_only

from app.db.connection_watch import ConnectionLimits
from app.db.session import open_postgres, open_postgres_reader
from app.db.unit_of_work import PostgresWriter, ReadConnection, UnitOfWork, WriteConnection
from app.domain.errors import StorageUnansweredError, StorageUnavailableError
from app.models.tables import idempotency_keys
from tests.support.database_proxy import DatabaseProxy, Loss
from tests.support.databases import Databases

INSERT = sa.insert(idempotency_keys)
SELECT = sa.select(idempotency_keys.c.key).order_by(idempotency_keys.c.key)
LIMITS = ConnectionLimits(pool=0.3, connect=1.0, server=0.5, client=1.0, transaction=3.0)
# A statement's deadline, and room for a busy machine; nothing more is asked of a lost connection.
TOLD_WITHIN = 1.8


@dataclass
class Doors:
    """Both doors behind a proxy."""

    proxy: DatabaseProxy
    unit_of_work: UnitOfWork
    doubts: list[None] = field(default_factory=list)

    async def put(self, key: str) -> None:
        """Store a key."""
        await self.unit_of_work.write(lambda connection: put(connection, key))

    async def keys(self) -> list[str]:
        """Read the keys."""
        return await self.unit_of_work.read(keys)


def put(connection: WriteConnection, key: str) -> None:
    connection.execute(INSERT, {"key": key, "request_hash": "", "answer": "", "created_us": 0})


def keys(connection: ReadConnection) -> list[str]:
    return list(connection.scalars(SELECT))


@pytest.fixture
async def doors(databases: Databases, url: str) -> AsyncIterator[Doors]:
    """Open both doors with short deadlines."""
    async with open_doors(databases, url, connections=1) as opened:
        yield opened


@contextlib.asynccontextmanager
async def open_doors(databases: Databases, url: str, *, connections: int) -> AsyncIterator[Doors]:
    doubts: list[None] = []
    async with DatabaseProxy(databases.server.folder / ".s.PGSQL.5432") as proxy:
        way = f"postgresql://postgres@127.0.0.1:{proxy.port}/{make_url(url).database}"
        unit_of_work = UnitOfWork(
            reader=open_postgres_reader(way, connections=connections, limits=LIMITS),
            writer=PostgresWriter(
                open_postgres(way, connections=connections, limits=LIMITS),
                on_unanswered=lambda: doubts.append(None),
            ),
            hurry=timedelta(seconds=0.1),
        )
        try:
            yield Doors(proxy, unit_of_work, doubts)
        finally:
            await unit_of_work.close()


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Fail if the block takes longer, also if it never ends."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        yield
    assert time.monotonic() - began < seconds


async def test_a_stalled_write_is_told(doors: Doors):
    """A write on a connection that carries nothing any more is refused; then the next works."""
    await doors.put("a")
    doors.proxy.stall()
    async with within(TOLD_WITHIN):
        with pytest.raises(StorageUnavailableError, match="nothing was stored"):
            await doors.put("b")
    doors.proxy.resume()
    await doors.put("c")
    assert await doors.keys() == ["a", "c"]


async def test_a_stalled_read_is_told(doors: Doors):
    """A read on a connection that carries nothing any more is refused; then the next works."""
    assert await doors.keys() == []
    doors.proxy.stall()
    async with within(TOLD_WITHIN):
        with pytest.raises(StorageUnavailableError, match="cannot be read"):
            await doors.keys()
    doors.proxy.resume()
    assert await doors.keys() == []


async def test_one_deadline_is_enough(databases: Databases, url: str):
    """Of idle connections that all lead nowhere one costs a deadline; the others are replaced."""
    async with open_doors(databases, url, connections=4) as doors:
        await asyncio.gather(*(doors.put(key) for key in "abcd"))
        doors.proxy.forget()
        with pytest.raises(StorageUnavailableError):
            await doors.put("e")
        async with within(LIMITS.client):
            await asyncio.gather(*(doors.put(key) for key in "fghi"))


async def test_a_stall_between_statements_is_told(doors: Doors):
    """A transaction that stalls before its last statement is refused, and stores nothing."""

    def put_two(connection: WriteConnection) -> None:
        put(connection, "a")
        doors.proxy.stall()
        put(connection, "b")

    async with within(TOLD_WITHIN):
        with pytest.raises(StorageUnavailableError, match="nothing was stored"):
            await doors.unit_of_work.write(put_two)
    doors.proxy.resume()
    assert await doors.keys() == []


async def test_an_overlong_transaction_is_ended(doors: Doors):
    """Whatever a transaction waits for, its connection is out of the pool for a limited time."""
    never = asyncio.Event()

    def put_and_wait(connection: WriteConnection) -> None:
        put(connection, "a")
        with contextlib.suppress(TimeoutError):
            await_only(asyncio.wait_for(never.wait(), 3.2))

    with pytest.raises(StorageUnavailableError, match="nothing was stored"):
        await doors.unit_of_work.write(put_and_wait)
    await doors.put("b")
    assert await doors.keys() == ["b"]


async def test_a_slow_statement_is_given_up_by_the_server(doors: Doors):
    """A server that lives gives up first: the statement ends there, and the connection is kept."""

    def sleep(connection: WriteConnection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    def pid(connection: WriteConnection) -> object:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    before = await doors.unit_of_work.write(pid)
    async with within(TOLD_WITHIN):
        with pytest.raises(StorageUnavailableError):
            await doors.unit_of_work.write(sleep)
    assert await doors.unit_of_work.write(pid) == before


async def test_a_cancelled_write_does_not_wait_for_a_stalled_peer(doors: Doors):
    """A caller with less patience than a statement's deadline is not kept."""
    await doors.put("a")
    doors.proxy.stall()
    async with within(0.9):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await doors.put("b")
    doors.proxy.resume()
    await doors.put("c")


async def test_a_reset_before_the_commit_stores_nothing(doors: Doors):
    """A connection reset in the middle of a transaction: nothing was stored, and it is said."""

    def put_and_reset(connection: WriteConnection) -> None:
        put(connection, "a")
        doors.proxy.reset()
        put(connection, "b")

    with pytest.raises(StorageUnavailableError, match="nothing was stored"):
        await doors.unit_of_work.write(put_and_reset)
    await doors.put("c")
    assert await doors.keys() == ["c"]
    assert doors.doubts == []


@pytest.mark.parametrize(("how", "stored"), [(Loss.UNSENT, []), (Loss.UNANSWERED, ["a"])])
async def test_a_commit_without_an_answer_claims_nothing(
    doors: Doors, how: Loss, stored: list[str]
):
    """Whether the order or its answer was lost cannot be known, and is not claimed."""
    lost = doors.proxy.lose_commit("INSERT INTO idempotency_keys", how)
    with pytest.raises(StorageUnansweredError, match="may or may not be stored"):
        await doors.put("a")
    assert lost.is_set()
    assert await doors.keys() == stored
    assert len(doors.doubts) == 1


@pytest.mark.parametrize("doubts", [[], [None]], ids=["before", "within"])
async def test_who_gives_up_in_a_commit_leaves_a_doubt(doors: Doors, doubts: list[None]):
    """A commit that nobody waits for any more may be stored; before it, nothing is."""
    stalled = asyncio.Event()

    def stall_around(connection: WriteConnection) -> None:
        if doubts:
            put(connection, "a")
        stalled.set()
        doors.proxy.stall()
        if not doubts:
            put(connection, "a")

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(doors.unit_of_work.write(stall_around))
        await stalled.wait()
        writing.cancel()
    assert writing.cancelled()
    assert doors.doubts == doubts
    doors.proxy.resume()
    assert set(await doors.keys()) <= ({"a"} if doubts else set())


async def test_a_refused_commit_stored_nothing(doors: Doors):
    """A commit that the server itself refuses is no doubt: the changes are undone."""

    def break_at_commit(connection: WriteConnection) -> None:
        put(connection, "a")
        connection.exec_driver_sql(
            "CREATE TEMP TABLE one (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql("INSERT INTO one VALUES (1), (1)")

    with pytest.raises(sa.exc.IntegrityError):
        await doors.unit_of_work.write(break_at_commit)
    assert await doors.keys() == []
    assert doors.doubts == []


async def test_connections_that_end_as_they_begin(doors: Doors):
    """New connections that the other end drops at once are an outage, not a fault of the caller."""
    for engine in (doors.unit_of_work._writer._engine, doors.unit_of_work._reader._engine):  # type: ignore[attr-defined]  # of the two on PostgreSQL
        event.listen(
            engine.sync_engine, "connect", lambda made, _: made.driver_connection.terminate()
        )
    with pytest.raises(StorageUnavailableError, match="nothing was stored"):
        await doors.put("a")
    with pytest.raises(StorageUnavailableError, match="cannot be read"):
        await doors.keys()


async def test_an_exhausted_pool_refuses(doors: Doors):
    """Who waits for a connection longer than its like are in use is refused, not kept."""
    doors.proxy.stall()
    async with within(TOLD_WITHIN):
        told = await asyncio.gather(*(doors.put(key) for key in "abcd"), return_exceptions=True)
    assert [type(one) for one in told] == [StorageUnavailableError] * 4
    doors.proxy.resume()
    await doors.put("e")
    assert await doors.keys() == ["e"]


async def test_a_caller_is_told_before_the_pipeline(doors: Doors):
    """Who reads for somebody that waits is told earlier than the pipeline would be."""
    assert await doors.keys() == []
    doors.proxy.stall()
    async with within(0.9):
        with pytest.raises(StorageUnavailableError, match="cannot be read"):
            await doors.unit_of_work.for_callers().read(keys)
    doors.proxy.resume()
    assert await doors.keys() == []
