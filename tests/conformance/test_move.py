"""A move from an SQLite file to a PostgreSQL database: whole, resumable, and refused in time."""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from app.backends.embedded import DataLock
from app.backends.postgres.leader import LOCK_KEY
from app.core.config import Settings
from app.db.migrate import migrate
from app.db.move import Moved, MoveOutcome, Progress, move
from app.db.move_source import BATCH_ROWS, TABLES
from app.db.session import DatabaseOptions
from app.db.unit_of_work import WriteConnection
from app.domain.clock import SystemClock
from app.domain.errors import StorageInUseError, StorageUnavailableError
from app.domain.execution import ExecutionStatus
from app.main import move as move_command
from app.repositories import leadership_repository
from tests.conformance.builders import (
    JOB,
    NOW,
    add_job,
    add_rows,
    claim_all,
    make_ending,
    make_row,
    make_unrun,
    record,
)
from tests.support.databases import DatabaseKind, Databases, open_database
from tests.support.service import ROOT

pytestmark = pytest.mark.only_on(
    DatabaseKind.SQLITE, DatabaseKind.POSTGRES, because="a move goes from the one to the other"
)
ROWS = 2 * BATCH_ROWS + 3
_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.db.move import move
from app.db.session import DatabaseOptions

def die(progress):
    if progress.table == "executions":
        os.kill(os.getpid(), signal.SIGKILL)

source, target, key = sys.argv[1:]
asyncio.run(
    move(Path(source), DatabaseOptions(url=target), leader_lock=int(key), on_progress=die)
)
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A filled source and an empty target."""

    source: str
    target: str

    @property
    def path(self) -> Path:
        return DatabaseOptions(url=self.source).sqlite_path

    async def move(self, on_progress: Callable[[Progress], None] = lambda _: None) -> Moved:
        options = DatabaseOptions(url=self.target)
        return await move(self.path, options, leader_lock=LOCK_KEY, on_progress=on_progress)

    async def refusal(self, error: type[Exception] = StorageInUseError) -> str:
        with pytest.raises(error) as caught:
            await self.move()
        return str(caught.value)

    async def killed_move(self) -> None:
        """Move in a process that is killed behind the first batch of executions."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED, str(self.path), self.target, str(LOCK_KEY), cwd=ROOT
        )
        assert await process.wait() == -signal.SIGKILL

    async def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Read all rows of the target."""
        async with connected(self.target) as connection:
            return {
                table.name: sorted(
                    (
                        tuple(row)
                        for row in await connection.fetch(
                            f"SELECT {', '.join(c.name for c in table.columns)} FROM {table.name}"  # noqa: S608 - constants
                        )
                    ),
                    key=repr,
                )
                for table in TABLES
            }

    def source_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Read all rows of the source."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return {
                table.name: sorted(
                    connection.execute(
                        f"SELECT {', '.join(c.name for c in table.columns)} FROM {table.name}"  # noqa: S608 - constants
                    ),
                    key=repr,
                )
                for table in TABLES
            }


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(url: str) -> None:
    """Leave what a killed service leaves: a long history, a run under way, one that waits."""

    def lead(connection: WriteConnection) -> None:
        leadership_repository.take_leadership(connection, holder="host:1", now=NOW)
        connection.exec_driver_sql("INSERT INTO idempotency_keys VALUES ('key', 'h', '{}', 1)")
        connection.exec_driver_sql("INSERT INTO host_starts VALUES ('h:80', 1)")
        connection.exec_driver_sql(
            "INSERT INTO service_events (at_us, kind, since_us, process)"
            " VALUES (1, 'started', NULL, 'host:1'), (2, 'stopped', NULL, 'host:1')"
        )

    async with open_database(url) as database:
        await database.write(lead)
        await add_job(database)
        await add_job(database, "other-仕事")
        await add_rows(database, *(make_unrun(number) for number in range(ROWS)))
        await add_rows(database, make_row(0, "other-仕事"), make_row(ROWS, JOB))
        claimed, _ = await claim_all(database)
        await record(database, make_ending(claimed[0], ExecutionStatus.RETRYING))
        again, _ = await claim_all(database, now=NOW + timedelta(minutes=1))
        await record(database, make_ending(again[0], ExecutionStatus.COMPLETED))
        await add_rows(database, make_row(ROWS + 1, JOB))


@pytest.fixture
async def pair(databases: Databases) -> AsyncIterator[Pair]:
    """Make a filled source and an empty target."""
    async with (
        databases.migrated(DatabaseKind.SQLITE) as source,
        databases.empty(DatabaseKind.POSTGRES) as target,
    ):
        await fill(source)
        yield Pair(source, target)


async def test_every_row_is_moved_as_it_is(pair: Pair):
    """Ids, revisions, attempts, counters and what runs are on the target as on the source."""
    source = pair.source_rows()
    told: list[Progress] = []

    moved = await pair.move(told.append)

    statuses = {row[9] for row in source["executions"]}
    assert statuses == {"missed", "completed", "running", "queued"}
    assert all(source.values())
    assert await pair.rows() == source
    assert pair.source_rows() == source
    assert moved.outcome is MoveOutcome.MOVED
    assert {name: one.rows for name, one in moved.sums.items()} == {
        name: len(rows) for name, rows in source.items()
    }
    assert [one.copied for one in told if one.table == "executions"] == [
        BATCH_ROWS,
        2 * BATCH_ROWS,
        ROWS + 3,
    ]


async def test_new_rows_follow_the_moved_ones(pair: Pair):
    """On the target the next row has the next number, and counting goes on from what was moved."""
    await pair.move()
    totals = "SELECT sum(total) AS total FROM job_totals"
    async with open_database(pair.target) as database:
        (before,) = await database.rows(totals)
        await add_rows(database, make_unrun(ROWS + 5))
        (after,) = await database.rows(totals)
        (found,) = await database.rows("SELECT max(seq) AS last, count(*) AS rows FROM executions")

    assert after["total"] == before["total"] + 1
    assert found == {"last": ROWS + 4, "rows": ROWS + 4}


async def test_a_second_move_has_nothing_to_do(pair: Pair):
    """A finished move is told from one to be made, also when the target has been served since."""
    first = await pair.move()
    async with open_database(pair.target) as database:
        await add_rows(database, make_unrun(ROWS + 5))
    second = await pair.move()

    assert second == Moved(outcome=MoveOutcome.NOTHING_TO_DO, sums=first.sums)
    assert len((await pair.rows())["executions"]) == ROWS + 4


async def test_a_killed_move_goes_on_where_it_stopped(pair: Pair):
    """After a kill between two batches the next move copies the rest, and all is there once."""
    await pair.killed_move()
    assert len((await pair.rows())["executions"]) == BATCH_ROWS
    told: list[Progress] = []

    moved = await pair.move(told.append)

    assert moved.outcome is MoveOutcome.RESUMED
    assert told[0] == Progress("executions", 2 * BATCH_ROWS, ROWS + 3)
    assert await pair.rows() == pair.source_rows()


async def test_half_a_copy_is_not_served(pair: Pair):
    """No service starts on a target while its move is unfinished; after it, one does."""
    await pair.killed_move()
    with pytest.raises(StorageUnavailableError, match="run the same myscheduler move again"):
        await migrate(DatabaseOptions(url=pair.target))
    await pair.move()

    assert await migrate(DatabaseOptions(url=pair.target)) == []


async def test_a_service_that_starts_meanwhile_waits(pair: Pair):
    """A start on the target during the move goes on when all is moved."""
    copying = asyncio.Event()
    order: list[str] = []

    async def start() -> None:
        await copying.wait()
        await migrate(DatabaseOptions(url=pair.target))
        order.append("started")

    async def run() -> None:
        await pair.move(lambda _: copying.set())
        order.append("moved")

    await asyncio.gather(run(), start())

    assert order == ["moved", "started"]


async def test_a_source_that_changed_is_not_mixed(pair: Pair):
    """What an interrupted move left is not completed from another state of the source."""
    await pair.killed_move()
    with contextlib.closing(sqlite3.connect(pair.path)) as connection, connection:
        connection.execute("UPDATE jobs SET updated_us = updated_us + 1 WHERE id = 'job'")

    assert "half a copy" in await pair.refusal()


async def test_a_source_that_went_on_is_not_moved_again(pair: Pair):
    """A source that was served after its move is refused; the target stays as it is."""
    await pair.move()
    moved = await pair.rows()
    with contextlib.closing(sqlite3.connect(pair.path)) as connection, connection:
        connection.execute("DELETE FROM idempotency_keys")

    assert "was moved into the database of --to already" in await pair.refusal()
    assert await pair.rows() == moved


async def test_other_jobs_are_not_mixed(pair: Pair):
    """A target that holds jobs of its own is refused and unchanged."""
    await migrate(DatabaseOptions(url=pair.target))
    async with open_database(pair.target) as database:
        await add_job(database, "theirs")

    assert "holds other jobs, and nothing was changed" in await pair.refusal()
    assert [row[0] for row in (await pair.rows())["jobs"]] == ["theirs"]


async def test_what_a_first_start_left_is_no_obstacle(pair: Pair):
    """A target on which a service started once, without any job, is filled."""
    await migrate(DatabaseOptions(url=pair.target))
    async with open_database(pair.target) as database:
        await database.write(leadership_repository.take_leadership, holder="x:1", now=NOW)
    await pair.move()

    assert await pair.rows() == pair.source_rows()


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (f"SELECT pg_advisory_lock({LOCK_KEY})", "A MyScheduler service leads"),
        ("SELECT 1", "others are connected to it (as postgres)"),
    ],
    ids=["leader", "worker"],
)
async def test_a_target_in_use_is_refused(pair: Pair, statement: str, sentence: str):
    """While a service leads on the target, or is connected to it at all, nothing is moved."""
    async with connected(pair.target) as connection:
        await connection.execute(statement)
        told = await pair.refusal()
        noted = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"
        assert await connection.fetchval(noted) is None

    assert sentence in told


@contextlib.asynccontextmanager
async def roles(databases: Databases, *names: str) -> AsyncIterator[None]:
    """Make users without any right of an administrator."""
    async with connected(databases.server.url_of("postgres")) as connection:
        for name in names:
            await connection.execute(f"CREATE ROLE {name} LOGIN")
        try:
            yield
        finally:
            await connection.execute(f"DROP ROLE {', '.join(names)}")


async def test_another_user_of_the_target_is_seen(databases: Databases):
    """A session of any user is in the way of one who may not see what it does, and is named."""
    async with (
        databases.migrated(DatabaseKind.SQLITE) as source,
        roles(databases, "mover", "somebody"),
        databases.empty(DatabaseKind.POSTGRES) as target,
    ):
        await fill(source)
        async with connected(target) as administrator:
            name = await administrator.fetchval("SELECT current_database()")
            await administrator.execute(f"ALTER DATABASE {name} OWNER TO mover")
        pair = Pair(source, target.replace("//postgres@", "//mover@"))

        async with connected(target.replace("//postgres@", "//somebody@")):
            told = await pair.refusal()

        assert "others are connected to it (as somebody)" in told
        assert (await pair.move()).outcome is MoveOutcome.MOVED


async def test_a_row_that_differs_is_found(pair: Pair):
    """If somebody else changed what was copied, the move says where and does not end well."""
    await pair.killed_move()
    async with connected(pair.target) as connection:
        await connection.execute("UPDATE jobs SET name = 'changed' WHERE id = 'job'")

    told = await pair.refusal(StorageUnavailableError)

    assert "The copy differs from its source in jobs:" in told
    with pytest.raises(StorageUnavailableError, match="is not finished"):
        await migrate(DatabaseOptions(url=pair.target))


async def test_a_row_that_does_not_fit_is_said(pair: Pair):
    """What PostgreSQL cannot hold ends the move in a sentence that says so."""
    with contextlib.closing(sqlite3.connect(pair.path)) as connection, connection:
        connection.execute("UPDATE jobs SET name = 'a' || char(0) || 'b' WHERE id = 'job'")

    assert "refuses a row of the source" in await pair.refusal(StorageUnavailableError)


async def test_the_command_needs_the_source_alone(pair: Pair):
    """The command is refused while a service holds the source, and holds it while it moves."""
    settings = Settings()
    lock = DataLock(pair.path)
    lock.acquire(clock=SystemClock())
    with pytest.raises(StorageInUseError, match="Another MyScheduler process uses"):
        await asyncio.to_thread(move_command, settings, pair.source, pair.target)
    lock.release()

    moved = await asyncio.to_thread(move_command, settings, pair.source, pair.target)

    structlog.reset_defaults()  # commands configure logging for a process of their own
    assert moved.outcome is MoveOutcome.MOVED
    assert lock.holder() is None


async def test_an_older_source_is_migrated_first(pair: Pair):
    """A source whose schema is not this program's is refused, with what to do."""
    with contextlib.closing(sqlite3.connect(pair.path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")

    told = await pair.refusal(StorageUnavailableError)

    assert "The source has the schema 0001" in told
    assert "myscheduler migrate" in told


async def test_a_target_that_is_not_there_is_said(pair: Pair):
    """A database that cannot be reached, or a source that is none, is a sentence."""
    gone = Pair(pair.source, pair.target.replace("test_", "absent_"))
    assert "does not exist" in await gone.refusal(StorageUnavailableError)
    pair.path.write_bytes(b"no database " * 1000)
    assert "file is not a database" in await pair.refusal(StorageUnavailableError)


async def test_a_user_without_the_right_is_said(pair: Pair):
    """A user who does not own the target's tables is told so."""
    await migrate(DatabaseOptions(url=pair.target))
    async with connected(pair.target) as connection:
        await connection.execute("DROP ROLE IF EXISTS poor")
        await connection.execute("CREATE ROLE poor LOGIN")
        await connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO poor")
    poor = Pair(pair.source, pair.target.replace("postgres@", "poor@"))
    try:
        assert "the user who owns the tables" in await poor.refusal(StorageUnavailableError)
    finally:
        async with connected(pair.target) as connection:
            await connection.execute("DROP OWNED BY poor; DROP ROLE poor")
