"""Is a database sound, and is it the one this program's migrations make? Reads only.

What no table definition of ``models`` says (triggers, and the conditions of indexes) is compared
with a database migrated in memory, on SQLite; on PostgreSQL, which writes texts its own way, by
name: triggers that are missing or off. PostgreSQL guards its pages and references itself.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from app.db.foreign import foreign_tables
from app.db.migrate import alembic_config, differences, upgrade

# Of many problems so many are named.
_NAMED_MAX = 5
_POSTGRES_TRIGGERS = """
    SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal AND tgenabled <> 'D'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """The schema's revision as it is stored (None: not migrated), and this program's."""

    stored: str | None
    ours: str | None
    # Whether this program's migrations know the stored one; those of a newer program are not.
    known: bool
    # The tables of a database that is not this program's.
    foreign: list[str]


def find_damage(connection: Connection) -> list[str]:
    """List what is wrong with pages, rows and indexes, the first problems only."""
    if connection.dialect.name != "sqlite":
        return []
    told = connection.exec_driver_sql(f"PRAGMA integrity_check({_NAMED_MAX})").scalars()
    return [str(line) for line in told if line != "ok"]


def find_dangling(connection: Connection) -> list[str]:
    """List the tables that hold references to rows which are not there."""
    if connection.dialect.name != "sqlite":
        return []
    found = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return sorted({f"{row[0]} to {row[2]}" for row in found})


def read_revisions(connection: Connection) -> Revisions:
    """Tell the stored revision and this program's."""
    script = ScriptDirectory.from_config(alembic_config(connection))
    foreign = foreign_tables(connection)
    stored = None if foreign else MigrationContext.configure(connection).get_current_revision()
    known = {step.revision for step in script.walk_revisions()}
    return Revisions(
        stored=stored, ours=script.get_current_head(), known=stored in known, foreign=foreign
    )


def find_deviations(connection: Connection) -> list[str]:
    """List how tables, columns, indexes and triggers differ from what the migrations make."""
    found = [_describe(difference) for difference in differences(connection)]
    if connection.dialect.name == "sqlite":
        stored, made = _guards(connection), _guards_made()
        names = sorted(stored.items() ^ made.items())
        found += [f"{kind} {name} differs" for kind, name in dict.fromkeys(key for key, _ in names)]
    else:
        stands = set(connection.exec_driver_sql(_POSTGRES_TRIGGERS).scalars())
        missing = {name for kind, name in _guards_made() if kind == "trigger"} - stands
        found += [f"trigger {name} is missing" for name in sorted(missing)]
    return found[:_NAMED_MAX]


def _guards(connection: Connection) -> dict[tuple[str, str], str]:
    """Read triggers and indexes with their text; white space does not count."""
    rows = connection.exec_driver_sql(
        "SELECT type, name, sql FROM sqlite_master"
        " WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
    )
    return {(kind, name): " ".join(text.split()) for kind, name, text in rows}


def _guards_made() -> dict[tuple[str, str], str]:
    engine = sa.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            upgrade(connection)
            return _guards(connection)
    finally:
        engine.dispose()


def _describe(difference: object) -> str:
    """Name an entry of Alembic's comparison: a tuple, or a list of tuples for one column."""
    parts = difference[0] if isinstance(difference, list) else difference
    assert isinstance(parts, tuple)
    verb = str(parts[0]).replace("_", " ")
    names = [getattr(part, "name", part) for part in parts[1:]]
    return " ".join([verb, *(name for name in names if isinstance(name, str))])
