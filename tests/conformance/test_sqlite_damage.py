"""How damage of an SQLite file is found in time, and what the writer does when it meets it."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db.damage import Damage, find_damaged_table
from app.db.session import open_sqlite_reader, open_sqlite_writer
from app.db.unit_of_work import ReadConnection, SqliteWriter, UnitOfWork, WriteConnection
from app.domain.errors import StorageDamagedError
from tests.support.sqlite_pages import damage_leaves

ROWS = 200
DEADLINE_SECONDS = 20


class SlowTable:
    """A database whose first table takes two milliseconds a row to check, and what it was asked."""

    def __init__(self) -> None:
        self.checked = 0
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.create_function("is_well", 1, self._check)
        self.connection.execute("CREATE TABLE slow (x INTEGER CHECK (is_well(x)))")
        self.connection.execute("CREATE TABLE quick (x INTEGER)")
        self.connection.executemany("INSERT INTO slow VALUES (?)", [(n,) for n in range(ROWS)])
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def _check(self, _x: int) -> bool:
        self.checked += 1
        return not threading.Event().wait(0.002)


@pytest.fixture
def slow() -> Iterator[SlowTable]:
    made = SlowTable()
    made.checked = 0
    yield made
    made.connection.close()


def test_a_look_is_bounded(slow: SlowTable):
    """A table that takes longer than its share is left for the next one, which is looked at."""
    assert find_damaged_table(slow.connection, seconds=0.1) is None
    assert slow.statements[-1] == "PRAGMA quick_check('quick')"
    assert 0 < slow.checked < ROWS


def test_a_look_without_time_finds_nothing(slow: SlowTable):
    """No table is looked at when the time is over."""
    assert find_damaged_table(slow.connection, seconds=0) is None
    assert slow.checked == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file with a good table and one that is damaged."""
    file = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE good (x TEXT)")
        connection.execute("CREATE TABLE bad (x TEXT)")
        connection.executemany("INSERT INTO bad VALUES (?)", [("x" * 500,)] * 100)
        connection.commit()
    damage_leaves(file, "bad")
    return file


def put(connection: WriteConnection) -> None:
    connection.exec_driver_sql("INSERT INTO good VALUES ('new')")


def meet_damage(connection: ReadConnection) -> None:
    connection.exec_driver_sql("SELECT count(*), max(x) FROM bad").fetchall()


def tell_damage(_connection: ReadConnection) -> None:
    """Fail as a statement does that meets damage, on a connection which could still commit."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    raise sa.exc.DatabaseError(None, None, error)


def count_good(connection: ReadConnection) -> int:
    return len(connection.exec_driver_sql("SELECT x FROM good").fetchall())


def rows_of(path: Path) -> int:
    """Count what is committed, as another process would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return len(connection.execute("SELECT x FROM good").fetchall())


@pytest.mark.parametrize("fail", [meet_damage, tell_damage])
async def test_a_batch_that_meets_damage_is_undone(
    path: Path, fail: Callable[[ReadConnection], None]
):
    """Of functions that wait together none is acknowledged once one of them meets a bad page."""
    writer = SqliteWriter(open_sqlite_writer(path), damage=Damage(path))
    entered, release = threading.Event(), threading.Event()

    def block(_connection: WriteConnection) -> None:
        entered.set()
        release.wait(DEADLINE_SECONDS)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.write(block))
            await asyncio.to_thread(entered.wait, DEADLINE_SECONDS)
            together = asyncio.gather(
                *(writer.write(unit) for unit in (put, fail, put)), return_exceptions=True
            )
            asyncio.get_running_loop().call_soon(release.set)
        assert [type(end) for end in await together] == [StorageDamagedError] * 3
        with pytest.raises(StorageDamagedError):
            await writer.write(put)
    finally:
        await writer.close()
    assert rows_of(path) == 0


async def test_damage_that_a_read_meets_ends_the_writes(path: Path):
    """What the one door learns the other knows; damage that nobody shares ends nothing."""
    damage = Damage(path)
    doors = UnitOfWork(
        reader=open_sqlite_reader(path, readers=1),
        writer=SqliteWriter(open_sqlite_writer(path), damage=damage),
        damage=damage,
    )
    onlooker = UnitOfWork(
        reader=open_sqlite_reader(path, readers=1),
        writer=SqliteWriter(open_sqlite_writer(path)),
    )
    try:
        await doors.write(put)
        for door in (onlooker, doors):
            with pytest.raises(StorageDamagedError):
                await door.read(meet_damage)
        with pytest.raises(StorageDamagedError):
            await doors.write(put)
        with pytest.raises(StorageDamagedError):
            await doors.read(count_good)
        assert await onlooker.read(count_good) == 1
    finally:
        with damage.left_alone():
            await doors.close()
            await onlooker.close()
    assert path.with_name("jobs.db-wal").stat().st_size > 0
