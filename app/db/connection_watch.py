"""No connection to PostgreSQL is waited on for long, and none in doubt is used again.

A connection whose peer fell silent is no error by itself: nothing arrives, and nothing ends. So
each statement has a deadline at both ends (``ConnectionLimits``), a connection that is out of its
pool for too long is ended whatever it waits for, and what failed by a deadline takes the idle
connections of its pool along: they lead to the same peer. Connections are ended at once: SQLAlchemy
says goodbye for two seconds otherwise, to a peer that may not listen.

A ping before use would hang where the statement hangs, so there is none. That a server closed an
idle connection is known here already; such a one is replaced.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger(__name__)

_TIMER = "myscheduler.deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How long the database may take; seconds."""

    # From waiting for a connection to having one, if all are in use.
    pool: float
    # Until a new connection is made: name, TCP, TLS and password together.
    connect: float
    # The server gives a statement up by itself, and its connection stays good.
    server: float
    # A statement without an answer for so long: the peer is gone, or cannot be reached.
    client: float
    # From taking a connection to giving it back, statements of a transaction together.
    transaction: float

    def __post_init__(self) -> None:
        """Check that a server that lives is the first to give up."""
        if not self.server < self.client < self.transaction:
            raise ValueError("server, client and transaction must be in this order")


def watch_connections(engine: AsyncEngine, limits: ConnectionLimits) -> None:
    """Keep an engine's pooled connections from being waited on for long."""

    def on_checkout(connection: Any, record: Any, _proxy: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        record.info[_TIMER] = asyncio.get_running_loop().call_later(
            limits.transaction, _end_overdue, connection
        )

    def on_checkin(_connection: Any, record: Any) -> None:
        timer = record.info.pop(_TIMER, None)
        if timer is not None:
            timer.cancel()

    event.listen(engine.sync_engine, "checkout", on_checkout)
    event.listen(engine.sync_engine, "checkin", on_checkin)
    event.listen(engine.sync_engine, "close", _end)
    event.listen(engine.sync_engine, "handle_error", _distrust_silence)


def end_invalid_connections(engine: AsyncEngine) -> None:
    """Let a connection that is in doubt be ended without a goodbye, any other with one."""
    event.listen(engine.sync_engine, "invalidate", _end)


def _end_overdue(connection: Any) -> None:
    log.warning("database.connection_overdue")
    _end(connection)


def _end(connection: Any, *_: object) -> None:
    """Close the socket; who waits for an answer gets an error."""
    connection.driver_connection.terminate()


def _distrust_silence(context: ExceptionContext) -> None:
    """Give up the idle connections of a pool with one that fell silent.

    SQLAlchemy gives up that one only: it takes a deadline for the caller's own.
    """
    if isinstance(context.original_exception, TimeoutError):
        context.invalidate_pool_on_disconnect = True
