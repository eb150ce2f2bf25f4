"""The two doors to the database: what they promise on SQLite and on PostgreSQL alike."""

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.db.unit_of_work import ReadConnection, Together, WriteConnection
from app.domain.errors import JobNotFoundError, ShuttingDownError, StorageUnavailableError
from app.models.tables import idempotency_keys
from tests.support.databases import Database, DatabaseKind, Databases, open_database

OVER_A_CONNECTION = pytest.mark.only_on(
    DatabaseKind.POSTGRES, because="SQLite is part of the process"
)
INSERT = sa.insert(idempotency_keys)
SELECT = sa.select(idempotency_keys.c.key).order_by(idempotency_keys.c.key)
DEADLINE_SECONDS = 20


def put(connection: WriteConnection, key: str) -> str:
    connection.execute(INSERT, {"key": key, "request_hash": "", "answer": "", "created_us": 0})
    return key


def keys(connection: ReadConnection) -> list[str]:
    return list(connection.execute(SELECT).scalars())


async def test_a_write_returns_what_its_function_returned(database: Database):
    """After the answer the change is there for every reader."""
    assert await database.write(put, "a") == "a"
    assert await database.read(keys) == ["a"]


async def test_a_write_reads_its_own_changes(database: Database):
    """Within a transaction a function sees what it wrote."""

    def put_and_look(connection: WriteConnection) -> list[str]:
        put(connection, "a")
        return keys(connection)

    assert await database.unit_of_work.write(put_and_look) == ["a"]


async def test_many_writes_at_once_are_all_stored(database: Database):
    """Two hundred concurrent callers each get their own result."""
    expected = [f"{number:03}" for number in range(200)]
    results = await asyncio.gather(*(database.write(put, key) for key in expected))
    assert results == expected
    assert await database.read(keys) == expected


async def test_a_failing_function_undoes_only_itself(database: Database):
    """Of concurrent writes, those that raise leave nothing, and the others are stored."""

    def put_and_fail(connection: WriteConnection, key: str) -> None:
        put(connection, key)
        raise JobNotFoundError(key)

    async def fail(key: str) -> None:
        with pytest.raises(JobNotFoundError, match=key):
            await database.write(put_and_fail, key)

    good = [f"good-{number:02}" for number in range(20)]
    async with asyncio.TaskGroup() as group:
        for number, key in enumerate(good):
            group.create_task(database.write(put, key))
            group.create_task(fail(f"bad-{number:02}"))
    assert await database.read(keys) == good


async def test_a_refused_function_undoes_only_itself(database: Database):
    """Of concurrent writes of one key, one is stored and the others hear of the constraint."""
    results = await asyncio.gather(
        *(database.write(put, "one") for _ in range(10)),
        *(database.write(put, f"other-{number}") for number in range(10)),
        return_exceptions=True,
    )
    assert results.count("one") == 1
    assert sum(isinstance(result, IntegrityError) for result in results) == 9
    assert len(await database.read(keys)) == 11


async def test_a_programming_error_comes_back_as_it_is(database: Database):
    """What is neither ours nor the database's is passed on, after the changes are undone."""

    def divide(connection: WriteConnection) -> float:
        put(connection, "a")
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        await database.unit_of_work.write(divide)
    assert await database.read(keys) == []


@pytest.mark.parametrize("together", [1, 3])
async def test_an_exhausted_iterator_does_not_hang_the_caller(database: Database, together: int):
    """StopIteration, which no future can carry, is answered too; so are its neighbours."""

    def exhausted(connection: WriteConnection) -> str:
        put(connection, "a")
        return next(iter(keys(connection)[9:]))

    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(database.unit_of_work.write(exhausted) for _ in range(together)),
            database.write(put, "b"),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [RuntimeError] * together + [str]
    assert await database.read(keys) == ["b"]


async def test_a_fault_of_the_database_is_storage_unavailable(database: Database):
    """A statement that the database cannot run stores nothing of its function."""

    def fault(connection: WriteConnection) -> None:
        put(connection, "a")
        connection.exec_driver_sql("SELECT * FROM no_such_table")

    with pytest.raises(StorageUnavailableError, match="nothing was stored"):
        await database.unit_of_work.write(fault)
    assert await database.read(keys) == []


async def test_an_error_of_the_database_shows_no_parameters(database: Database):
    """What a refusal says does not repeat the values, which may hold secrets."""
    await database.write(put, "a")
    with pytest.raises(IntegrityError) as refusal:
        await database.execute(
            "INSERT INTO idempotency_keys VALUES ('a', :secret, '', 0)", secret="hunter2"
        )
    assert "hunter2" not in str(refusal.value)


async def test_a_fault_of_a_read_is_storage_unavailable(database: Database):
    """A read that the database cannot do says so."""
    with pytest.raises(StorageUnavailableError, match="cannot be read"):
        await database.rows("SELECT * FROM no_such_table")


async def test_a_reading_connection_cannot_write(database: Database):
    """A write through the reading door is refused by the database."""
    with pytest.raises(StorageUnavailableError):
        await database.unit_of_work.read(lambda connection: put(WriteConnection(connection), "a"))
    assert await database.read(keys) == []


async def test_a_read_is_one_snapshot(database: Database):
    """What is committed while a read goes on is not seen by it, however many statements it has."""

    async def write_elsewhere() -> None:
        async with open_database(database.url) as other:
            await other.write(put, "meanwhile")

    def read_twice(connection: ReadConnection) -> tuple[list[str], list[str]]:
        before = keys(connection)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(asyncio.run, write_elsewhere()).result(DEADLINE_SECONDS)
        return before, keys(connection)

    assert await database.read(read_twice) == ([], [])
    assert await database.read(keys) == ["meanwhile"]


async def test_a_failed_read_leaves_its_connection_usable(database: Database):
    """More failing reads than there are connections do not use them up."""
    for _ in range(10):
        with pytest.raises(StorageUnavailableError):
            await database.rows("SELECT * FROM no_such_table")
    assert await database.read(keys) == []


async def test_cancelled_readers_do_no_harm(database: Database):
    """Reads whose callers went away leave the door open for the next ones."""
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(database.read(keys)) for _ in range(6)]
            await asyncio.wait(tasks, timeout=0)
            for task in tasks:
                task.cancel()
    assert await database.read(keys) == []


async def test_cancelled_writers_do_no_harm(database: Database):
    """Writes whose callers went away are stored whole or not at all, and the next one is."""

    def put_two(connection: WriteConnection, number: int) -> None:
        put(connection, f"{number:02}-a")
        put(connection, f"{number:02}-b")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(database.write(put_two, number)) for number in range(30)]
        await asyncio.wait(tasks[:1], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    await database.write(put_two, 99)
    stored = await database.read(keys)
    assert stored[-2:] == ["99-a", "99-b"]
    assert [key[:2] for key in stored[::2]] == [key[:2] for key in stored[1::2]]


async def test_close_finishes_what_was_accepted(databases: Databases, kind: DatabaseKind):
    """Writes accepted before the end are stored by the end."""
    async with databases.migrated(kind) as url:
        async with open_database(url) as closing, asyncio.TaskGroup() as group:
            tasks = [group.create_task(closing.write(put, f"{n:02}")) for n in range(50)]
            await asyncio.wait(tasks, timeout=0)
            await closing.unit_of_work.close()
            assert all(task.done() for task in tasks)
        async with open_database(url) as again:
            assert len(await again.read(keys)) == 50


async def test_a_closed_database_refuses(databases: Databases, kind: DatabaseKind):
    """After the end both doors are shut, and closing them again is harmless."""
    async with databases.migrated(kind) as url, open_database(url) as closed:
        await closed.write(put, "before")
        await closed.unit_of_work.close()
        with pytest.raises(ShuttingDownError):
            await closed.write(put, "after")
        with pytest.raises(ShuttingDownError):
            await closed.read(keys)
        await closed.unit_of_work.close()
        async with open_database(url) as again:
            assert await again.read(keys) == ["before"]


async def test_without_a_server_both_doors_say_so(databases: Databases):
    """A PostgreSQL that is not there is storage that is unavailable."""
    url = f"postgresql://postgres@/gone?host={databases.server.folder}/nowhere"
    async with open_database(url) as gone:
        with pytest.raises(StorageUnavailableError):
            await gone.read(keys)
        with pytest.raises(StorageUnavailableError):
            await gone.write(put, "a")


async def test_without_a_database_both_doors_say_so(databases: Databases):
    """A server that has no such database is storage that is unavailable."""
    async with open_database(databases.server.url_of("never_made")) as gone:
        with pytest.raises(StorageUnavailableError):
            await gone.read(keys)
        with pytest.raises(StorageUnavailableError):
            await gone.write(put, "a")


@OVER_A_CONNECTION
async def test_a_connection_that_dies_stores_nothing(postgres: Database):
    """A server that ends the connection before the commit is storage that is unavailable."""

    def put_and_die(connection: WriteConnection) -> None:
        put(connection, "a")
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(StorageUnavailableError):
        await postgres.unit_of_work.write(put_and_die)
    assert await postgres.write(put, "b") == "b"
    assert await postgres.read(keys) == ["b"]


@OVER_A_CONNECTION
async def test_connections_that_died_while_idle_are_replaced(postgres: Database):
    """After a restart of the server the next read and write succeed."""
    await asyncio.gather(*(postgres.write(put, key) for key in "abcd"))
    await postgres.read(keys)
    async with open_database(postgres.url) as other:
        # It answers when they have ended, so that their ends have arrived here before the answer.
        await other.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await postgres.read(keys) == ["a", "b", "c", "d"]
    assert await postgres.write(put, "e") == "e"


@OVER_A_CONNECTION
async def test_a_cancelled_statement_is_undone_on_the_server(postgres: Database):
    """A caller who goes away in the middle of a statement takes its transaction back."""

    def put_and_wait(connection: WriteConnection) -> None:
        put(connection, "a")
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    async def sleeping() -> bool:
        active = await postgres.rows(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database()"
        )
        return bool(active)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(postgres.unit_of_work.write(put_and_wait))
        while not await sleeping():
            pass
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert await postgres.write(put, "b") == "b"
    assert await postgres.read(keys) == ["b"]


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="SQLite's pragmas: see test_sqlite_writer")
async def test_a_commit_on_postgres_reaches_the_disk_first(postgres: Database):
    """A commit is answered when it is flushed, as the server's default has it."""
    assert await postgres.rows("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]


async def test_together_each_caller_gets_its_own(database: Database):
    """Of callers that share a function each gets the result of its own item."""

    def put_all(connection: WriteConnection, items: Sequence[str]) -> list[str]:
        return [put(connection, item) for item in items]

    expected = [f"{number:02}" for number in range(40)]
    results = await asyncio.gather(
        *(database.unit_of_work.write(Together(put_all, key)) for key in expected)
    )
    assert results == expected
    assert await database.read(keys) == expected


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="one thread writes: see test_sqlite_writer")
async def test_together_callers_share_transactions(postgres: Database):
    """Those that come while one runs are the next one together."""

    def transactions(connection: WriteConnection, items: Sequence[int]) -> list[str]:
        (found,) = connection.execute(sa.text("SELECT pg_current_xact_id()::text")).scalars()
        return [found] * len(items)

    found = await asyncio.gather(
        *(postgres.unit_of_work.write(Together(transactions, number)) for number in range(30))
    )
    assert len(set(found)) == 2
    assert len(set(found[1:])) == 1


async def test_together_one_callers_fault_is_its_own(database: Database):
    """A shared function that fails for one item is undone and done for the others alone."""

    def put_all(connection: WriteConnection, items: Sequence[str]) -> list[str]:
        for item in items:
            put(connection, item)
        if "bad" in items:
            raise JobNotFoundError("bad")
        return list(items)

    names = ["a", "bad", "b", "c"]
    results = await asyncio.gather(
        *(database.unit_of_work.write(Together(put_all, name)) for name in names),
        return_exceptions=True,
    )
    assert [str(result)[:7] for result in results] == ["a", "Job bad", "b", "c"]
    assert await database.read(keys) == ["a", "b", "c"]
