"""Plain SQL for judges: synchronous, on either database, past all of our own code.

``?`` stands for a parameter, as in SQLite. A statement is its own transaction.
"""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import asyncpg
from sqlalchemy.engine import make_url

T = TypeVar("T")

_BUSY_SECONDS = 10.0


class PlainSql(Protocol):
    """An open connection, to be closed; a context manager too."""

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement and give what it returns."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_sql(url: str) -> PlainSql:
    """Connect to the database that a DATABASE_URL names."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        assert address.database
        return SqliteSql(Path(address.database))
    return PostgresSql(url)


class SqliteSql:
    """A connection to a file that is there."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY_SECONDS
        )
        self._connection.execute("PRAGMA foreign_keys = ON")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement and give what it returns."""
        return self._connection.execute(statement, parameters).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresSql:
    """A connection on a loop in a thread of its own: the caller's loop may be waiting here."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._connection: Any = self._wait(asyncpg.connect(url))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement and give what it returns."""
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
        return [tuple(row) for row in self._wait(self._connection.fetch(numbered, *parameters))]

    def close(self) -> None:
        """Close the connection."""
        try:
            self._wait(self._connection.close())
        finally:
            self._end()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
