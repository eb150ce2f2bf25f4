"""What only the readers of an SQLite file promise."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from app.db.session import DatabaseOptions, open_sqlite_reader
from app.db.unit_of_work import ReadConnection
from app.domain.errors import StorageUnavailableError
from tests.support.databases import Database, DatabaseKind, Databases, open_database

pytestmark = pytest.mark.only_on(
    DatabaseKind.SQLITE, because="a server has a pool: see test_unit_of_work"
)
DEADLINE_SECONDS = 20
READERS = 4
# Counts until it is interrupted: some minutes.
_ENDLESS = """WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers
    WHERE n < 1000000000) SELECT count(*) FROM numbers"""


def one(connection: ReadConnection) -> int:
    number: int = connection.exec_driver_sql("SELECT 1").scalar_one()
    return number


async def test_the_loop_turns_while_all_readers_are_busy(sqlite: Database):
    """Reads beyond the number of readers wait for one of them, and hold up nobody else."""
    release = threading.Event()

    def wait(connection: ReadConnection) -> int:
        assert release.wait(DEADLINE_SECONDS)
        return one(connection)

    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        busy = [group.create_task(sqlite.read(wait)) for _ in range(READERS)]
        later = group.create_task(sqlite.read(one))
        await asyncio.wait([later], timeout=0.05)
        assert not later.done()
        release.set()
    assert [task.result() for task in [*busy, later]] == [1] * (READERS + 1)


async def test_a_read_whose_caller_went_away_before_it_began_is_left_out(sqlite: Database):
    """What nobody waits for any more costs the readers nothing."""
    begun: list[str] = []
    release = threading.Event()

    def wait(_connection: ReadConnection) -> bool:
        return release.wait(DEADLINE_SECONDS)

    async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(sqlite.read(wait))
        await asyncio.sleep(0)
        gone = group.create_task(sqlite.read(lambda _: begun.append("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        release.set()
    assert await sqlite.read(one) == 1
    assert begun == []


async def test_a_read_that_nobody_waits_for_does_not_hold_up_the_end(
    databases: Databases,
):
    """The end breaks off a statement whose caller went away."""
    began = threading.Event()

    def count_on(connection: ReadConnection) -> None:
        began.set()
        connection.exec_driver_sql(_ENDLESS)

    async with databases.migrated(DatabaseKind.SQLITE) as url, open_database(url) as database:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(database.read(count_on))
            await asyncio.to_thread(began.wait, DEADLINE_SECONDS)
            reading.cancel()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await database.unit_of_work.close()


async def test_a_connection_that_failed_is_opened_anew(tmp_path: Path):
    """A file that could not be opened is read as soon as it can be."""
    path = tmp_path / "later" / "jobs.db"
    reader = open_sqlite_reader(path, readers=1)
    try:
        with pytest.raises(Exception, match="unable to open"):
            await reader.read(one)
        path.parent.mkdir()
        sqlite3.connect(path).close()
        assert await reader.read(one) == 1
    finally:
        await reader.close()


async def test_a_caller_whose_loop_is_gone_does_no_harm(sqlite: Database):
    """The answer of a read goes nowhere if its loop has closed, and the next read is answered."""
    path = DatabaseOptions(url=sqlite.url).sqlite_path
    reader = open_sqlite_reader(path, readers=1)
    began, release = threading.Event(), threading.Event()

    def wait(_connection: ReadConnection) -> bool:
        began.set()
        return release.wait(DEADLINE_SECONDS)

    async def ask_and_leave() -> None:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.read(wait))
            await asyncio.to_thread(began.wait, DEADLINE_SECONDS)
            reading.cancel()

    try:
        await asyncio.to_thread(asyncio.run, ask_and_leave())
        release.set()
        assert await reader.read(one) == 1
    finally:
        await reader.close()


async def test_an_exhausted_iterator_does_not_hang_the_reader(sqlite: Database):
    """StopIteration, which no future can carry, is answered too."""
    empty: list[int] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await sqlite.read(lambda _: next(iter(empty)))
    assert await sqlite.read(one) == 1


async def test_a_fault_is_answered_as_unavailable_and_the_reader_goes_on(sqlite: Database):
    """A statement that fails costs its reader the connection, not the thread."""
    for _ in range(2 * READERS):
        with pytest.raises(StorageUnavailableError):
            await sqlite.rows("SELECT * FROM no_such_table")
    assert await sqlite.read(one) == 1
