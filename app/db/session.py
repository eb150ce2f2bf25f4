"""Engines and connections for both databases, and the pragmas SQLite needs.

Errors never carry parameters, which hold users' headers and bodies.

SQLite: WAL, ``synchronous=FULL`` (an answered change survives power loss), foreign keys on, five
seconds of patience with another writer. Reads go through aiosqlite with ``query_only``; the one
writer has a thread of its own (``db/unit_of_work.py``). PostgreSQL: asyncpg for both.
"""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

_BUSY_TIMEOUT_MS = 5000
_BUSY_RETRY_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the data is and how many connections may read it at once."""

    # sqlite:///relative/or//absolute path, or postgresql://…
    url: str
    # Reading connections. Four are enough for two cores: pages take about a millisecond.
    readers: int = 4
    # Writing connections, PostgreSQL only; SQLite has one writer.
    writers: int = 4

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.readers < 1 or self.writers < 1:
            raise ValueError("readers and writers must be at least 1")

    @property
    def is_sqlite(self) -> bool:
        """Tell which of the two databases this is."""
        return make_url(self.url).get_backend_name() == "sqlite"

    @property
    def sqlite_path(self) -> Path:
        """Tell the database file, absolute."""
        database = make_url(self.url).database
        assert database, "the configuration refuses databases in memory"
        return Path(database).resolve()


def open_sqlite_writer(path: Path) -> Engine:
    """Open the engine of the one writing connection; every transaction begins IMMEDIATE.

    Raises ``OSError`` if the file can only be read: SQLite would tell at the first write.
    """
    if path.exists() and not os.access(path, os.W_OK):
        raise OSError("it is read-only")
    engine = sa.create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def open_sqlite_reader(path: Path, *, readers: int) -> AsyncEngine:
    """Open the engine that reads; its connections cannot write."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        pool_size=readers,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite_reader)
    event.listen(engine.sync_engine, "begin", _begin_deferred)
    return engine


def open_postgres(url: str, *, connections: int) -> AsyncEngine:
    """Open an engine on asyncpg that writes; idle connections are checked before use."""
    return _open_asyncpg(url, connections=connections)


def open_postgres_reader(url: str, *, connections: int) -> AsyncEngine:
    """Open an engine on asyncpg that reads; its transactions are one snapshot and cannot write."""
    return _open_asyncpg(
        url,
        connections=connections,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )


def open_postgres_direct(url: str) -> AsyncEngine:
    """Open an engine whose every connection is its own and commits each statement.

    For what belongs to a session, such as an advisory lock. A dead peer is noticed within some
    ten seconds.
    """
    address = make_url(url).set(drivername="postgresql+asyncpg")
    return create_async_engine(
        address,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={
            "timeout": 5,
            "server_settings": {
                "application_name": "myscheduler leader",
                "tcp_keepalives_idle": "3",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "lock_timeout": "5s",
            },
        },
    )


def _open_asyncpg(url: str, *, connections: int, **options: Any) -> AsyncEngine:
    address = make_url(url).set(drivername="postgresql+asyncpg")
    return create_async_engine(
        address,
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        # A process that is stopped inside a transaction must not hold its locks: a new leader
        # waits for the term's row.
        connect_args={
            "timeout": 5,
            "server_settings": {"idle_in_transaction_session_timeout": "5s"},
        },
        **options,
    )


def _prepare_sqlite_writer(connection: Any, _record: Any) -> None:
    _switch_to_wal(connection)
    _run_pragmas(
        connection,
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
        f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
        "PRAGMA temp_store=MEMORY",
    )


def _switch_to_wal(connection: Any) -> None:
    """Choose the journal, with the patience that SQLite itself has for other statements only.

    Of processes that open a new file at the same moment, all but one find it locked here.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            _run_pragmas(connection, "PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_RETRY_SECONDS)
        else:
            return


def _prepare_sqlite_reader(connection: Any, _record: Any) -> None:
    _run_pragmas(connection, "PRAGMA query_only=ON", f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")


def _run_pragmas(connection: Any, *statements: str) -> None:
    # Python's own transaction handling is switched off: BEGIN is said below, once and explicitly.
    connection.isolation_level = None
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
