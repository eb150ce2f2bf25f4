"""Lets rows of the ledger be written in the middle of their life, or after it.

The database refuses that (migration 0004): an execution is born queued, skipped or missed. A test
of rows, or a benchmark of a long history, takes that one trigger away for the length of a block.
"""

import contextlib
import sqlite3
from collections.abc import Iterator

from app.db.unit_of_work import WriteConnection

_TRIGGER = "executions_births"
_FOUND = f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = '{_TRIGGER}'"  # noqa: S608 - a constant
_DROP = f"DROP TRIGGER {_TRIGGER}"


@contextlib.contextmanager
def any_birth(connection: WriteConnection) -> Iterator[None]:
    """Allow any birth in the rest of a transaction's block; others are refused theirs as ever."""
    if connection.dialect.name == "sqlite":
        made = connection.exec_driver_sql(_FOUND).scalar_one()
        connection.exec_driver_sql(_DROP)
        yield
        connection.exec_driver_sql(made)
    else:
        alter = f"ALTER TABLE executions {{}} TRIGGER {_TRIGGER}"
        connection.exec_driver_sql(alter.format("DISABLE"))
        yield
        connection.exec_driver_sql(alter.format("ENABLE"))


@contextlib.contextmanager
def any_birth_in_file(connection: sqlite3.Connection) -> Iterator[None]:
    """Allow any birth on a file of one's own."""
    (made,) = connection.execute(_FOUND).fetchone()
    connection.execute(_DROP)
    yield
    connection.execute(made)
