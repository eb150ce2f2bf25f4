"""Is a database another program's? Asked before this one changes anything in it.

Ours is one without tables, or one whose ``alembic_version`` names a revision beside our tables.
Tables that an extension of PostgreSQL brought are nobody's.
"""

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection
from sqlalchemy.pool import StaticPool

from app.db.damage import read_unchanged
from app.domain.errors import StorageUnavailableError
from app.models.tables import executions, jobs

_MARK = "alembic_version"
# What every revision of ours has.
_OURS = {jobs.name, executions.name}
# Of many tables so many are named.
_NAMED_MAX = 5

_SQLITE_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)
_POSTGRES_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    " AND relkind IN ('r', 'p', 'f') AND NOT EXISTS (SELECT FROM pg_depend"
    " WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')"
)


def foreign_tables(connection: Connection) -> list[str]:
    """List the tables of a database that is not ours; none if it is, or holds nothing yet."""
    is_sqlite = connection.dialect.name == "sqlite"
    statement = _SQLITE_TABLES if is_sqlite else _POSTGRES_TABLES
    tables = set(connection.exec_driver_sql(statement).scalars())
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) == 1 and tables >= _OURS:
        return []
    return sorted(tables if heads else tables - {_MARK})


def name_tables(tables: list[str]) -> str:
    """Name some tables, the first few only."""
    more = len(tables) - _NAMED_MAX
    return ", ".join(tables[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def refuse_foreign(connection: Connection) -> None:
    """Raise ``StorageUnavailableError`` if a database is another program's."""
    tables = foreign_tables(connection)
    if tables:
        raise StorageUnavailableError(
            f"The database holds tables of another program ({name_tables(tables)}) and was not "
            "changed; give MyScheduler a database of its own by DATABASE_URL"
        )


def refuse_foreign_file(path: Path) -> None:
    """Raise ``StorageUnavailableError`` if an SQLite file is another program's.

    A connection that writes would choose the file's journal anew; this one changes nothing, and
    where no log lies beside the file it leaves none there. Raises what SQLite raises.
    """
    if not path.exists():
        return
    tables = read_unchanged(path, _read_tables)
    if tables:
        raise StorageUnavailableError(
            f"The database file {path} belongs to another program (its tables: "
            f"{name_tables(tables)}) and was not changed; give MyScheduler a file of its own by "
            "DATABASE_URL"
        )


def _read_tables(connection: sqlite3.Connection) -> list[str]:
    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    try:
        with engine.connect() as reading:
            return foreign_tables(reading)
    finally:
        engine.dispose()
