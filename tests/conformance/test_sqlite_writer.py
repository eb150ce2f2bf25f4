"""What only the one writer of an SQLite file promises."""

import asyncio
import contextlib
import resource
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.db.session import DatabaseOptions, open_sqlite_writer
from app.db.unit_of_work import ReadConnection, SqliteWriter, Together, WriteConnection
from app.domain.errors import StorageUnavailableError
from app.models.tables import idempotency_keys
from tests.support.databases import Database, DatabaseKind, Databases, open_database
from tests.support.service import eventually

pytestmark = pytest.mark.only_on(
    DatabaseKind.SQLITE, because="a server has a pool: see test_unit_of_work"
)
INSERT = sa.insert(idempotency_keys)
DEADLINE_SECONDS = 20
UNITS_MAX = 256


class CountingWriter(SqliteWriter):
    """The writer of a file, and how many transactions it ended how."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.rollbacks = 0
        engine = open_sqlite_writer(path)
        event.listen(engine, "commit", self._count_commit)
        event.listen(engine, "rollback", self._count_rollback)
        super().__init__(engine)

    def _count_commit(self, _connection: sa.Connection) -> None:
        self.commits += 1

    def _count_rollback(self, _connection: sa.Connection) -> None:
        self.rollbacks += 1

    def stored(self) -> list[str]:
        """Read what is committed, as another process would."""
        statement = "SELECT key FROM idempotency_keys ORDER BY rowid"
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [key for (key,) in connection.execute(statement)]

    def wal_bytes(self) -> int:
        """Tell the size of the log."""
        return self.path.with_name(self.path.name + "-wal").stat().st_size


@pytest.fixture
async def writer(databases: Databases) -> AsyncIterator[CountingWriter]:
    async with databases.migrated(DatabaseKind.SQLITE) as url:
        opened = CountingWriter(DatabaseOptions(url=url).sqlite_path)
        try:
            yield opened
        finally:
            await opened.close()


def put(connection: WriteConnection, key: str) -> str:
    connection.execute(INSERT, {"key": key, "request_hash": "", "answer": "", "created_us": 0})
    return key


@contextlib.asynccontextmanager
async def busy(writer: SqliteWriter) -> AsyncIterator[None]:
    """Keep the writer in a function, so that what is written in the block waits together."""
    entered, release = threading.Event(), threading.Event()

    def block(_connection: WriteConnection) -> bool:
        entered.set()
        return release.wait(DEADLINE_SECONDS)

    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(writer.write(block))
        await asyncio.to_thread(entered.wait, DEADLINE_SECONDS)
        try:
            yield
        finally:
            release.set()
        assert await blocked


async def write_together(writer: SqliteWriter, *keys: str) -> list[str | BaseException]:
    """Write keys that wait for the writer at the same time."""
    loop = asyncio.get_running_loop()
    async with busy(writer):
        waiting = asyncio.gather(
            *(writer.write(lambda connection, key=key: put(connection, key)) for key in keys),  # type: ignore[misc]  # mypy does not infer the default
            return_exceptions=True,
        )
        # One turn of the loop, in which each of them queues its function.
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
    return await waiting


@contextlib.contextmanager
def full_disk(bytes_max: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as if the disk ended there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_lone_write_is_committed_at_once(writer: CountingWriter):
    """One write is one transaction, and another process sees it when it is answered."""
    for number, key in enumerate("abc", start=1):
        await writer.write(lambda connection, key=key: put(connection, key))  # type: ignore[misc]  # as above
        assert writer.commits == number
        assert writer.stored()[-1] == key


async def test_writes_that_wait_share_one_transaction(writer: CountingWriter):
    """Two hundred writes that wait together are committed once."""
    keys = [f"{number:03}" for number in range(200)]
    assert await write_together(writer, *keys) == keys
    assert writer.stored() == keys
    assert writer.commits == 2  # the one that kept the writer busy, and theirs


async def test_a_transaction_takes_a_bounded_number_of_writes(writer: CountingWriter):
    """More writes than one transaction takes are committed in several, in order."""
    keys = [f"{number:03}" for number in range(2 * UNITS_MAX + 1)]
    assert await write_together(writer, *keys) == keys
    assert writer.stored() == keys
    assert writer.commits == 4


async def test_a_failure_among_many_costs_no_second_transaction(writer: CountingWriter):
    """A write that is refused is undone inside the transaction the others share."""
    results = await write_together(writer, "a", "b", "a", "c", "b", "d")
    assert [type(result).__name__ for result in results] == [
        "str", "str", "IntegrityError", "str", "IntegrityError", "str"
    ]  # fmt: skip
    assert writer.stored() == ["a", "b", "c", "d"]
    assert (writer.commits, writer.rollbacks) == (2, 0)


async def test_a_function_with_a_savepoint_of_its_own_may_share(writer: CountingWriter):
    """A function that undoes a part of itself keeps the rest."""

    def half(connection: WriteConnection) -> None:
        put(connection, "kept")
        nested = connection.begin_nested()
        put(connection, "undone")
        nested.rollback()

    async with asyncio.TaskGroup() as group, busy(writer):
        group.create_task(writer.write(half))
        group.create_task(writer.write(lambda connection: put(connection, "other")))
    assert writer.stored() == ["kept", "other"]


async def test_a_locked_database_fails_all_and_stores_nothing(writer: CountingWriter):
    """While another process holds the lock, writes fail after some patience, and later succeed."""

    def lose_patience(connection: WriteConnection) -> None:
        connection.exec_driver_sql("PRAGMA busy_timeout=20")

    await writer.write(lose_patience)
    with contextlib.closing(sqlite3.connect(writer.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for keys in ("a", "bcd"):
            results = await asyncio.gather(
                *(writer.write(lambda c, key=key: put(c, key)) for key in keys),  # type: ignore[misc]  # as above
                return_exceptions=True,
            )
            assert {type(result) for result in results} == {StorageUnavailableError}
        other.execute("ROLLBACK")
    assert writer.stored() == []
    assert await writer.write(lambda connection: put(connection, "e")) == "e"
    assert writer.stored() == ["e"]


async def test_what_waits_behind_others_waits_no_longer(databases: Databases):
    """A write that comes while another one meets the lock is refused a moment after it.

    What comes once both are refused has the whole patience again.
    """
    patience = timedelta(seconds=2)
    async with databases.migrated(DatabaseKind.SQLITE) as url:
        path = DatabaseOptions(url=url).sqlite_path
        writer = SqliteWriter(open_sqlite_writer(path), patience=patience)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.TaskGroup() as group:
                first = group.create_task(_refused_after(writer, "a"))
                await eventually(lambda: writer._busy_ms is not None)
                behind = group.create_task(_refused_after(writer, "b"))
            assert await first > patience.total_seconds() * 0.9
            assert await behind < patience.total_seconds() * 1.5
            assert await _refused_after(writer, "c") > patience.total_seconds() * 0.9
            other.execute("ROLLBACK")
        await writer.close()


async def _refused_after(writer: SqliteWriter, key: str) -> float:
    """Write, be refused, and tell how long that took."""
    begin = time.monotonic()
    with pytest.raises(StorageUnavailableError):
        await writer.write(lambda connection: put(connection, key))
    return time.monotonic() - begin


async def test_a_commit_that_fails_fails_all_and_stores_nothing(writer: CountingWriter):
    """When the disk is full at the commit, every write it carried fails; space heals it."""
    await writer.write(lambda connection: put(connection, "before"))
    with full_disk(writer.wal_bytes()):
        results = await write_together(writer, "a", "b", "c")
        assert {type(result) for result in results} == {StorageUnavailableError}
        assert writer.stored() == ["before"]
        with pytest.raises(StorageUnavailableError):
            await writer.write(lambda connection: put(connection, "d"))
    assert await writer.write(lambda connection: put(connection, "after")) == "after"
    assert writer.stored() == ["before", "after"]


async def test_a_full_database_undoes_whole_transactions(writer: CountingWriter):
    """When there is no page left in the middle of a batch, no write of it is answered as stored."""

    def fill(connection: WriteConnection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")

    await writer.write(fill)
    results = await write_together(writer, "small", "x" * 100_000, "late")
    answered = [result for result in results if isinstance(result, str)]
    assert isinstance(results[1], StorageUnavailableError)
    assert writer.stored() == answered


async def test_writes_never_run_on_the_event_loops_thread(sqlite: Database):
    """All functions run in one thread, which is not the loop's."""
    idents = await asyncio.gather(
        *(sqlite.unit_of_work.write(lambda _connection: threading.get_ident()) for _ in range(20))
    )
    assert len(set(idents)) == 1
    assert idents[0] != threading.get_ident()


async def test_a_cancelled_caller_leaves_the_writer_working(writer: CountingWriter):
    """A caller who goes away while waiting takes nobody along."""
    async with asyncio.TaskGroup() as group, busy(writer):
        gone = group.create_task(writer.write(lambda connection: put(connection, "gone")))
        stays = group.create_task(writer.write(lambda connection: put(connection, "stays")))
        await asyncio.wait([gone], timeout=0)
        gone.cancel()
    assert gone.cancelled()
    assert stays.result() == "stays"
    assert "stays" in writer.stored()


async def test_close_may_be_called_while_the_writer_is_busy(writer: CountingWriter):
    """Closing waits for the function under way and for those behind it."""
    async with asyncio.TaskGroup() as group:
        async with busy(writer):
            behind = group.create_task(writer.write(lambda connection: put(connection, "behind")))
            await asyncio.wait([behind], timeout=0)
            closing = group.create_task(writer.close())
            await asyncio.wait([closing], timeout=0)
            assert not closing.done()
        await closing
    assert behind.result() == "behind"
    assert writer.stored() == ["behind"]


async def test_the_callers_loop_may_be_gone(writer: CountingWriter):
    """A function whose caller's loop has ended meanwhile is stored, and the writer goes on."""
    loop = asyncio.new_event_loop()

    def run_and_leave() -> None:
        async def queue() -> None:
            task = loop.create_task(writer.write(lambda connection: put(connection, "left")))
            await asyncio.wait([task], timeout=0)
            task.cancel()
            await asyncio.wait([task])

        loop.run_until_complete(queue())
        loop.close()

    async with busy(writer):
        await asyncio.to_thread(run_and_leave)
    assert await writer.write(lambda connection: put(connection, "next")) == "next"
    assert writer.stored() == ["left", "next"]


@pytest.mark.parametrize(
    ("pragma", "expected"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),  # FULL: an answered change survives power loss
        ("foreign_keys", 1),
        ("busy_timeout", 5000),
        ("temp_store", 2),
        ("query_only", 0),
    ],
)
async def test_the_writers_pragmas_are_in_force(sqlite: Database, pragma: str, expected: str | int):
    """The writing connection keeps its promises, before and after a failure."""

    def value(connection: WriteConnection) -> object:
        return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()

    assert await sqlite.unit_of_work.write(value) == expected
    with pytest.raises(StorageUnavailableError):
        await sqlite.execute("SELECT * FROM no_such_table")
    assert await sqlite.unit_of_work.write(value) == expected


@pytest.mark.parametrize(
    ("pragma", "expected"), [("journal_mode", "wal"), ("query_only", 1), ("busy_timeout", 5000)]
)
async def test_the_readers_pragmas_are_in_force(sqlite: Database, pragma: str, expected: str | int):
    """Every reading connection is prepared, the last as well as the first."""
    readers = 4
    all_read = threading.Barrier(readers, timeout=DEADLINE_SECONDS)

    def value(connection: ReadConnection) -> object:
        all_read.wait()
        return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()

    async def read() -> object:
        return await sqlite.unit_of_work.read(value)

    assert await asyncio.gather(*(read() for _ in range(readers))) == [expected] * readers


async def test_readers_are_not_held_up_by_a_writer(sqlite: Database):
    """While a transaction is open, reads see what was committed before it."""
    entered, release = threading.Event(), threading.Event()

    def put_and_wait(connection: WriteConnection) -> bool:
        put(connection, "a")
        entered.set()
        return release.wait(DEADLINE_SECONDS)

    def count(connection: ReadConnection) -> int:
        return connection.execute(sa.select(sa.func.count(idempotency_keys.c.key))).scalar_one()

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(sqlite.unit_of_work.write(put_and_wait))
        await asyncio.to_thread(entered.wait, DEADLINE_SECONDS)
        assert await sqlite.read(count) == 0
        release.set()
    assert writing.result()
    assert await sqlite.read(count) == 1


async def test_a_closed_file_leaves_no_log_behind(databases: Databases):
    """After the end the file stands alone: the log is written into it and removed."""
    async with databases.migrated(DatabaseKind.SQLITE) as url:
        path = DatabaseOptions(url=url).sqlite_path
        async with open_database(url) as opened:
            await opened.write(put, "a")
            assert path.with_name(path.name + "-wal").exists()
        assert [found.name for found in path.parent.glob(path.name + "*")] == [path.name]


async def test_what_waits_together_is_one_call(sqlite: Database):
    """Callers that wait for the writer with one shared function are served by one call of it."""
    calls: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def hold(_connection: WriteConnection) -> bool:
        entered.set()
        return release.wait(DEADLINE_SECONDS)

    def count(_connection: WriteConnection, items: Sequence[int]) -> Sequence[int]:
        calls.append(len(items))
        return items

    async with asyncio.TaskGroup() as group:
        group.create_task(sqlite.unit_of_work.write(hold))
        await asyncio.to_thread(entered.wait, DEADLINE_SECONDS)
        waiting = [
            group.create_task(sqlite.unit_of_work.write(Together(count, number)))
            for number in range(30)
        ]
        await asyncio.sleep(0)
        release.set()
    assert [task.result() for task in waiting] == list(range(30))
    assert calls == [30]
