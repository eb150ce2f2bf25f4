"""Moves everything from an SQLite file into a PostgreSQL database: rows as they are.

Tables go in the order of their references, each in batches; a batch, and the note of how far it
goes, is one transaction, so an interrupted move goes on where it stopped. At the end both sides are
read whole and compared. Until then no service starts on the target: it waits for the lock that
migrations take, and later reads the note (``db/move_marker.py``).

Nothing is settled on the way. What an ended process left running is found by its lease when the
service starts on the target; counters are copied, not counted again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app.db.migrate import MIGRATION_LOCK, migrate_target
from app.db.move_marker import READ_NOTE, MoveNote, MoveState, read_note
from app.db.move_source import (
    BATCH_ROWS,
    TABLES,
    Batch,
    Checksum,
    MoveSource,
    Summing,
    Survey,
    open_source,
)
from app.db.session import DatabaseOptions, open_postgres_direct
from app.domain.errors import StorageInUseError, StorageUnavailableError
from app.models.tables import executions, idempotency_keys, jobs, leadership, service_events

# A process that ended a moment ago may still be among the server's sessions.
_LOCK_TRIES = 15
_LOCK_REST_SECONDS = 0.2

# Of other users' sessions the server shows everybody the database and the user, but the type to its
# administrators only. Those of its own that care for a database have no user.
_OTHERS = (
    "SELECT string_agg(DISTINCT coalesce(usename::text, usesysid::text), ', ')"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'"
)
_SET_SEQUENCE = (
    "SELECT setval(pg_get_serial_sequence('{0}', 'seq'), max(seq)) FROM {0} HAVING max(seq) > 0"
)
# What a service leaves that started once and never had a job.
_LEFT_BY_A_START = (leadership, service_events, idempotency_keys)
_MADE_ANEW = "Give --to an empty database: drop this one and create it again"


class MoveOutcome(StrEnum):
    """What a move came to."""

    MOVED = "moved"
    RESUMED = "resumed"  # and finished
    NOTHING_TO_DO = "nothing_to_do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A finished move; ``sums`` are equal on both sides, by table."""

    outcome: MoveOutcome
    sums: dict[str, Checksum]


@dataclass(frozen=True, slots=True)
class Progress:
    """So many of a table's rows are on the target."""

    table: str
    copied: int
    total: int


OnProgress = Callable[[Progress], None]


async def move(
    source: Path, target: DatabaseOptions, *, leader_lock: int, on_progress: OnProgress
) -> Moved:
    """Move ``source``, whose lock the caller holds, to ``target``, whose leader's lock is named.

    Safe to repeat: goes on with an interrupted move, and does nothing after a finished one. Raises
    ``StorageInUseError``, and ``StorageUnavailableError`` for everything else that is in the way.
    """
    try:
        with open_source(source) as opened:
            async with _open_target(target, leader_lock) as connection:
                await _refuse_other_schema(opened, connection)
                return await _Move(opened, connection, str(source), on_progress).run()
    except asyncpg.InsufficientPrivilegeError as error:
        raise StorageUnavailableError(
            "The user of --to may not do that; give the user who owns the tables there"
        ) from error
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise StorageUnavailableError(
            f"The database of --to refuses a row of the source: {error}. Nothing is served from "
            "it, and the source is as it was"
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError, OSError) as error:
        raise StorageUnavailableError(
            f"The database of --to did not do its part ({getattr(error, 'orig', error)}). Nothing "
            "is lost: run the same command again, and a move that has begun goes on"
        ) from error


class _Move:
    """One run of the command, between an open source and a locked target."""

    def __init__(
        self, source: MoveSource, connection: Any, name: str, on_progress: OnProgress
    ) -> None:
        self._source = source
        self._connection = connection
        self._name = name
        self._on_progress = on_progress

    async def run(self) -> Moved:
        survey = self._source.survey()
        note = read_note(await self._connection.fetchval(READ_NOTE))
        outcome = MoveOutcome.MOVED if note is None else MoveOutcome.RESUMED
        if note is None:
            note = await self._begin(survey)
        elif note.fingerprint != survey.fingerprint:
            raise _other_source(note)
        elif note.state is MoveState.FINISHED:
            return Moved(outcome=MoveOutcome.NOTHING_TO_DO, sums=survey.sums)
        for table in TABLES:
            note = await self._copy(table, note, survey.sums[table.name])
        await self._compare(survey.sums)
        await self._finish(note)
        return Moved(outcome=outcome, sums=survey.sums)

    async def _begin(self, survey: Survey) -> MoveNote:
        """Note that the target, which has no job, is being filled."""
        note = MoveNote(source=self._name, fingerprint=survey.fingerprint)
        async with self._connection.transaction():
            if await self._connection.fetchval(f"SELECT count(*) FROM {jobs.name}"):  # noqa: S608
                raise StorageInUseError(
                    f"The database of --to holds other jobs, and nothing was changed. {_MADE_ANEW}"
                )
            for table in _LEFT_BY_A_START:
                await self._connection.execute(f"DELETE FROM {table.name}")  # noqa: S608
            await self._connection.execute(note.statement())
        return note

    async def _copy(self, table: sa.Table, note: MoveNote, wanted: Checksum) -> MoveNote:
        after = note.copied.get(table.name, 0)
        copied = await self._connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608
        for batch in self._source.batches(table, after=after):
            note = replace(note, copied={**note.copied, table.name: batch.last})
            async with self._connection.transaction():
                await self._fill(table, batch)
                await self._connection.execute(note.statement())
            copied += len(batch.rows)
            self._on_progress(Progress(table.name, copied, wanted.rows))
        return note

    async def _fill(self, table: sa.Table, batch: Batch) -> None:
        """Write rows as they are; the triggers would count executions that are counted already."""
        counted = table is executions
        if counted:
            await self._connection.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
        await self._connection.copy_records_to_table(
            table.name, records=batch.rows, columns=_columns(table)
        )
        if counted:
            await self._connection.execute(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")

    async def _compare(self, wanted: dict[str, Checksum]) -> None:
        found = {table.name: await self._sum_up(table) for table in TABLES}
        differing = [name for name in wanted if wanted[name] != found[name]]
        if differing:
            raise StorageUnavailableError(
                f"The copy differs from its source in {', '.join(differing)}: somebody else wrote "
                f"to the database of --to. No service starts on it. {_MADE_ANEW}"
            )

    async def _sum_up(self, table: sa.Table) -> Checksum:
        statement = f"SELECT {', '.join(_columns(table))} FROM {table.name}"  # noqa: S608
        summing = Summing()
        async with self._connection.transaction():
            async for record in self._connection.cursor(statement, prefetch=BATCH_ROWS):
                summing.add(tuple(record))
        return summing.checksum()

    async def _finish(self, note: MoveNote) -> None:
        """Let new rows follow the moved ones, and let services start."""
        async with self._connection.transaction():
            for table in (executions, service_events):
                await self._connection.execute(_SET_SEQUENCE.format(table.name))
            await self._connection.execute(replace(note, state=MoveState.FINISHED).statement())
        # The planner knows nothing of rows that came by COPY.
        await self._connection.execute("ANALYZE")


@contextlib.asynccontextmanager
async def _open_target(options: DatabaseOptions, leader_lock: int) -> AsyncIterator[Any]:
    """Migrate and lock the target; gives asyncpg's own connection, which can COPY."""
    engine = open_postgres_direct(options.url)
    try:
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.execute("SET application_name TO 'myscheduler move'")
            await _lock(raw, leader_lock, "A MyScheduler service leads on the database of --to")
            await migrate_target(options)
            await _lock(raw, MIGRATION_LOCK, "Another process migrates the database of --to")
            await _refuse_others(raw)
            yield raw
    finally:
        await engine.dispose()


async def _lock(raw: Any, key: int, holder: str) -> None:
    """Take a lock of the session's; it is gone with the connection, however that ends."""
    for _ in range(_LOCK_TRIES):
        if await raw.fetchval("SELECT pg_try_advisory_lock($1)", key):
            return
        await asyncio.sleep(_LOCK_REST_SECONDS)
    raise StorageInUseError(f"{holder}, and nothing was changed; stop it first")


async def _refuse_others(raw: Any) -> None:
    """Refuse a target that anybody else is connected to: not every replica can lead."""
    for _ in range(_LOCK_TRIES):
        others = await raw.fetchval(_OTHERS)
        if others is None:
            return
        await asyncio.sleep(_LOCK_REST_SECONDS)
    raise StorageInUseError(
        f"The database of --to is in use: others are connected to it (as {others}), and nothing "
        "was changed. Stop every service on it, and close other programs"
    )


async def _refuse_other_schema(source: MoveSource, connection: Any) -> None:
    ours = await connection.fetchval("SELECT version_num FROM alembic_version")
    theirs = source.revision()
    if theirs != ours:
        raise StorageUnavailableError(
            f"The source has the schema {theirs}, this program's is {ours}; run myscheduler "
            "migrate on the source first (DATABASE_URL says which)"
        )


def _other_source(note: MoveNote) -> StorageInUseError:
    if note.state is MoveState.FINISHED:
        return StorageInUseError(
            f"{note.source} was moved into the database of --to already; the source is another "
            f"one, or has changed since. Nothing was changed. {_MADE_ANEW}"
        )
    return StorageInUseError(
        f"The database of --to holds half a copy of {note.source} as it was; the source is another "
        f"one, or has changed since. Nothing was changed. {_MADE_ANEW}"
    )


def _columns(table: sa.Table) -> list[str]:
    return [column.name for column in table.columns]
