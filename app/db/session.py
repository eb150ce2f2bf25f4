"""Engines and connections for both databases, and the pragmas SQLite needs.

Errors never carry parameters, which hold users' headers and bodies.

SQLite: WAL, ``synchronous=FULL`` (an answered change survives power loss), foreign keys on, five
seconds of patience with another writer. Reads have ``query_only`` and some threads
(``db/sqlite_reader.py``); the one writer has a thread of its own (``db/unit_of_work.py``).
PostgreSQL: asyncpg for both, with a deadline for everything (``db/connection_watch.py``).
"""

import os
import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from app.db.connection_watch import (
    ConnectionLimits,
    end_invalid_connections,
    watch_connections,
)
from app.db.damage import holds_log, refuse_lost_file
from app.db.sqlite_reader import SqliteReader
from app.db.unit_of_work import PostgresReader

_BUSY_TIMEOUT_MS = 5000

_CONNECT_SECONDS = 3.0
# Statements that write take milliseconds, a tick's largest some tens of them.
WRITING = ConnectionLimits(
    pool=3.0, connect=_CONNECT_SECONDS, server=4.0, client=5.0, transaction=10.0
)
# Looking through a million waiting runs takes three seconds; callers of the API wait for less.
READING = ConnectionLimits(
    pool=3.0, connect=_CONNECT_SECONDS, server=10.0, client=12.0, transaction=20.0
)
# The server's questions to a silent peer: whether it is there, before it holds a lock for hours.
_KEEPALIVE = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
# A process that is stopped inside a transaction must not hold its locks: a new leader waits for
# the term's row, and less long than the server lets a statement wait. The server's own limit
# begins where a message ends the exchange; asyncpg's preparing does not (leader.py sees to that).
SILENT_IN_TRANSACTION = timedelta(seconds=3)
# What the sessions of short transactions are called, in pg_stat_activity.
POOLED_NAME = "myscheduler"
# Each transaction may get another session: none has settings, and none keeps a statement by name.
_SESSIONLESS: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,
}


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

    @property
    def postgres_place(self) -> str:
        """Tell where the server is, as a person names it; without user and password."""
        url = make_url(self.url)
        host = url.host or url.query.get("host")
        named = ", ".join(host) if isinstance(host, tuple) else host or "the default socket"
        return named if url.port is None else f"{named} port {url.port}"


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


def open_sqlite_reader(path: Path, *, readers: int) -> SqliteReader:
    """Open what reads; its connections cannot write."""
    return _open_sqlite_reader(URL.create("sqlite", database=str(path)), readers=readers)


def open_sqlite_onlooker(path: Path) -> SqliteReader:
    """Open what reads a file, beside its service or without one, and leaves its log where it is.

    Raises ``StorageDamagedError`` if there is nothing but a log.
    """
    refuse_lost_file(path)
    # The last to leave moves the log into the file, unless it could not have written.
    query = {"uri": "true", "mode": "ro" if holds_log(path) else "rw"}
    return _open_sqlite_reader(URL.create("sqlite", database=path.as_uri(), query=query), readers=1)


def _open_sqlite_reader(url: URL, *, readers: int) -> SqliteReader:
    engine = sa.create_engine(
        url,
        poolclass=NullPool,  # each of its threads keeps its own
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite_reader)
    event.listen(engine, "begin", _begin_deferred)
    return SqliteReader(engine, readers=readers)


def open_postgres(
    url: str, *, connections: int, limits: ConnectionLimits = WRITING, proxied: bool = False
) -> AsyncEngine:
    """Open an engine on asyncpg that writes.

    ``proxied``: between it and the server a proxy pools transactions.
    """
    return _open_asyncpg(url, limits, connections=connections, proxied=proxied)


def open_postgres_reader(
    url: str, *, connections: int, limits: ConnectionLimits = READING, proxied: bool = False
) -> PostgresReader:
    """Open what reads through asyncpg; its transactions are one snapshot and cannot write."""
    return PostgresReader(
        _open_asyncpg(
            url,
            limits,
            connections=connections,
            proxied=proxied,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    )


def open_postgres_direct(url: str) -> AsyncEngine:
    """Open an engine whose every connection is its own and commits each statement.

    For what belongs to a session, such as an advisory lock. The server notices within some ten
    seconds that its peer is dead; who uses this has deadlines of its own.
    """
    settings = {
        "application_name": "myscheduler leader",
        **_KEEPALIVE,
        "lock_timeout": "5s",
    }
    return _open_alone(url, settings, isolation_level="AUTOCOMMIT")


def open_postgres_migrator(url: str) -> AsyncEngine:
    """Open an engine whose statements may take as long as they do, and wait for locks."""
    return _open_alone(url, _KEEPALIVE)


def _open_asyncpg(
    url: str, limits: ConnectionLimits, *, connections: int, proxied: bool, **options: Any
) -> AsyncEngine:
    engine = create_async_engine(
        _address(url),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=limits.pool,
        hide_parameters=True,
        connect_args={
            "timeout": limits.connect,
            "command_timeout": limits.client,
            **(_SESSIONLESS if proxied else {"server_settings": _server_limits(limits)}),
        },
        **options,
    )
    if proxied:
        event.listen(engine.sync_engine, "begin", partial(_limit_transaction, limits))
    watch_connections(engine, limits)
    return engine


def _server_limits(limits: ConnectionLimits) -> dict[str, str]:
    return {
        "application_name": POOLED_NAME,
        "idle_in_transaction_session_timeout": f"{SILENT_IN_TRANSACTION.total_seconds():g}s",
        "statement_timeout": f"{limits.server:g}s",
    }


def _limit_transaction(limits: ConnectionLimits, connection: Connection) -> None:
    """Give a transaction the server's limits, where sessions belong to nobody."""
    settings = [sa.func.set_config(*item, True) for item in _server_limits(limits).items()]
    connection.execute(sa.select(*settings))


def _open_alone(url: str, settings: dict[str, str], **options: Any) -> AsyncEngine:
    """Open an engine that pools nothing, and whose statements have no deadline."""
    engine = create_async_engine(
        _address(url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": _CONNECT_SECONDS, "server_settings": settings},
        **options,
    )
    end_invalid_connections(engine)
    return engine


def _address(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+asyncpg")


def _prepare_sqlite_writer(connection: Any, _record: Any) -> None:
    _switch_to_wal(connection)
    _run_pragmas(
        connection,
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
        f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
        "PRAGMA temp_store=MEMORY",
        # Ids are random, and so are the index pages that rows begin and end on: with SQLite's own
        # 2 MiB a row removed from ten million cost 72 µs, with 8 MiB 48 µs, with 32 MiB 44 µs.
        "PRAGMA cache_size=-8192",
    )


def _switch_to_wal(connection: Any) -> None:
    """Choose the journal, with as much patience as SQLite has for other statements.

    Of processes that open a new file at the same moment one makes the change; SQLite refuses the
    others at once, since each would wait while it reads. A transaction that has not read waits for
    the one, and then there is nothing left to change.
    """
    try:
        _run_pragmas(connection, "PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        _run_pragmas(connection, "BEGIN IMMEDIATE", "ROLLBACK", "PRAGMA journal_mode=WAL")


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
