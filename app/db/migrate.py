"""Brings a database to this program's schema, from any earlier version, one process at a time.

The whole migration is one transaction under a lock (SQLite: BEGIN IMMEDIATE; PostgreSQL: an
advisory lock): a second process that starts meanwhile waits, then finds nothing to do; a failure
leaves the old schema. A database that a newer program migrated is refused unless that one left word
that this one may use it (``db/compatibility.py``); so is another program's, and one that a move
(``db/move.py``) has not filled yet.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError

from app.db.compatibility import is_usable, note_schema
from app.db.damage import (
    REMEDY,
    Damage,
    is_damage,
    refuse_damaged_file,
    refuse_lost_file,
)
from app.db.foreign import refuse_foreign, refuse_foreign_file
from app.db.move_marker import refuse_half_a_copy
from app.db.session import DatabaseOptions, open_postgres_migrator, open_sqlite_writer
from app.domain.errors import StorageDamagedError, StorageUnavailableError
from app.models.tables import metadata

# "MyS", in ASCII: the key under which replicas take turns to migrate, and wait for a move to end.
MIGRATION_LOCK = 0x4D7953


async def migrate(options: DatabaseOptions) -> list[str]:
    """Apply what is missing; return the revisions applied, oldest first.

    Raises ``StorageUnavailableError`` with a sentence if the database cannot be opened, is none,
    or belongs to a newer version or to another program, and ``StorageDamagedError`` if a short look
    at an SQLite file finds damage; it is as it was then.
    """
    if options.is_sqlite:
        return _migrate_sqlite(options.sqlite_path)
    return await _migrate_postgres(options, _upgrade_whole)


async def migrate_target(options: DatabaseOptions) -> list[str]:
    """Migrate the PostgreSQL database that a move begins or goes on to fill."""
    return await _migrate_postgres(options, upgrade)


def _upgrade_whole(connection: Connection) -> list[str]:
    refuse_half_a_copy(connection)
    return upgrade(connection)


async def _migrate_postgres(
    options: DatabaseOptions, apply: Callable[[Connection], list[str]]
) -> list[str]:
    engine = open_postgres_migrator(options.url)
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            return await connection.run_sync(apply)
    except OSError as error:
        raise StorageUnavailableError(
            f"PostgreSQL cannot be reached at {options.postgres_place} "
            f"({str(error) or 'it did not answer in time'}); check DATABASE_URL, and that the "
            "server runs and takes connections from here"
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise StorageUnavailableError(
            "The PostgreSQL database could not be opened or migrated; check DATABASE_URL, "
            "the server's log, and that the user may create tables; if DATABASE_URL names a proxy "
            "that pools transactions, MYSCHEDULER_DATABASE_DIRECT_URL must name the server itself"
        ) from error
    finally:
        await engine.dispose()


def upgrade(connection: Connection) -> list[str]:
    """Run the missing migrations on an open transaction; return their revisions.

    Raises ``StorageUnavailableError`` as ``migrate`` does.
    """
    refuse_foreign(connection)
    config = alembic_config(connection)
    script = ScriptDirectory.from_config(config)
    before = MigrationContext.configure(connection).get_current_revision()
    try:
        missing = [step.revision for step in script.iterate_revisions("head", before or "base")]
    except (CommandError, RevisionError) as error:
        if is_usable(connection, script, schema=before):
            return []
        raise StorageUnavailableError(
            f"The database was migrated by a newer version (its schema is {before}); "
            "start that version, or restore a backup made with this one"
        ) from error
    if missing:
        command.upgrade(config, "head")
        note_schema(connection, script)
    return missing[::-1]


def differences(connection: Connection) -> list[object]:
    """List how a migrated database differs from the tables in ``models`` (should be nothing)."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


def _migrate_sqlite(path: Path) -> list[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_lost_file(path)
        refuse_foreign_file(path)
        refuse_damaged_file(path)
        return _upgrade_file(path)
    except (DatabaseError, sqlite3.Error, OSError) as error:
        reason = getattr(error, "orig", None) or error
        if is_damage(error):
            raise StorageDamagedError(
                f"The database file {path} cannot be used: {reason}; it was not changed. "
                f"If DATABASE_URL names the right file, {REMEDY}"
            ) from error
        raise StorageUnavailableError(
            f"The database file {path} cannot be used: {reason}. "
            "Check that the directory exists and is writable, and that the file is a database "
            "of this program; it was not changed"
        ) from error


def _upgrade_file(path: Path) -> list[str]:
    damage = Damage(path)
    engine = open_sqlite_writer(path)
    try:
        with engine.begin() as connection:
            return upgrade(connection)
    except DatabaseError as error:
        damage.note(error)
        raise
    finally:
        with damage.left_alone():
            engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Point Alembic at the packaged migrations and at an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
