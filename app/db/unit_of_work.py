"""The two doors to the database: ``read(fn)`` and ``write(fn)``. Nothing else commits.

Repository functions are synchronous and take a connection. A read runs them on a reading
connection, in one snapshot. A write runs them in a transaction and returns after the commit has
reached the disk.

On SQLite one thread writes. It takes everything that waits, runs each function in a savepoint of
one transaction and commits once: a lone write is flushed at once, and many share one fsync. A
function that raises undoes only its own changes. (Through aiosqlite each statement crosses threads
and costs 0.25 ms; a function run whole in the writer's thread costs a tenth, see docs/adr/0003.)
"""

import asyncio
import copy
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NewType, Protocol, TypeVar

import sqlalchemy as sa
import structlog
from asyncpg import InternalClientError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.damage import Damage, is_damage
from app.db.gate import Gate, stopping
from app.db.gathering import Gathering
from app.domain.errors import (
    SchedulerError,
    StorageDamagedError,
    StorageUnansweredError,
    StorageUnavailableError,
    UnavailableError,
)

T = TypeVar("T")
Item = TypeVar("Item")

# A writing connection may read; a reading one may not write, and the type checker knows.
ReadConnection = NewType("ReadConnection", Connection)
WriteConnection = NewType("WriteConnection", ReadConnection)

# One transaction takes at most so many functions: the first of them waits for the last.
_UNITS_MAX = 256
# How long another process may keep a write from its lock before its caller is told.
_PATIENCE = timedelta(seconds=5)

log = structlog.get_logger(__name__)

# What using a database may raise. The last is asyncpg's where a connection ends in the middle of an
# answer; SQLAlchemy does not know it.
FAULTS = (SQLAlchemyError, OSError, InternalClientError)


@dataclass(frozen=True, slots=True, eq=False)
class Together(Generic[Item, T]):
    """One caller's part of a function that does for many at once what it does for one.

    ``function`` takes items and returns a result for each. For those that wait for SQLite's writer,
    or for a transaction of PostgreSQL's, it is called once; if that raises, once for each, so that
    one caller's fault is not another's.
    """

    function: Callable[[WriteConnection, Sequence[Item]], Sequence[T]]
    item: Item

    def __call__(self, connection: WriteConnection) -> T:
        """Do it for this caller alone."""
        (result,) = self.function(connection, [self.item])
        return result


class Reader(Protocol):
    """Runs functions that read, each in one snapshot, some at once."""

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        """Run ``unit`` on a connection that cannot write, and return its result."""
        ...

    async def close(self) -> None:
        """Close connections, once nobody waits for a read."""
        ...


class Writer(Protocol):
    """Runs functions in committed transactions."""

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        """Run ``unit`` and return its result once it is durable."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, refuse the rest, close connections."""
        ...


class UnitOfWork:
    """Both doors, over whichever database.

    Errors: what a function raises of ours (``SchedulerError``) or as an ``IntegrityError`` passes
    through after its changes are undone; a commit that PostgreSQL did not confirm is a
    ``StorageUnansweredError``; damage of an SQLite file is a ``StorageDamagedError``; every other
    fault of the database is a ``StorageUnavailableError``. With both nothing of it was stored.

    ``hurry``: who reads ``for_callers`` waits so long at most. ``damage``: shared with the writer;
    once it is known nothing is read or written.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        writer: Writer,
        hurry: timedelta | None = None,
        damage: Damage | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._hurry = hurry
        self._damage = damage
        # A read that takes longer is given up; None: never.
        self.read_within: timedelta | None = None
        self._readers = Gate()

    def for_callers(self) -> "UnitOfWork":
        """Give the same doors to those who answer somebody that waits; not to be closed."""
        doors = copy.copy(self)
        doors.read_within = self._hurry
        return doors

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        """Run ``unit`` on a reading connection, in one snapshot."""
        seconds = None if self.read_within is None else self.read_within.total_seconds()
        with self._readers.enter():
            _refuse(self._damage)
            try:
                async with asyncio.timeout(seconds):
                    return await self._reader.read(unit)
            except FAULTS as error:
                _note(self._damage, error)
                raise _unreadable(error) from error

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        """Run ``unit`` in a transaction; when this returns, its changes are durable."""
        return await self._writer.write(unit)

    async def close(self) -> None:
        """Close both doors; what was accepted is finished first. Safe to call twice."""
        await self._writer.close()
        await self._readers.close()
        await self._reader.close()


class _Unit:
    """A function that waits for the writer, and the future its caller waits on."""

    __slots__ = ("error", "function", "future", "loop", "result", "since")

    def __init__(
        self, function: Callable[[WriteConnection], Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.since = time.monotonic()
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


class SqliteWriter:
    """The one writer of an SQLite file, in a thread of its own, with group commit.

    ``patience`` is how long a caller waits for another process's lock, behind others or not. Once
    ``damage`` is known nothing is written; of the batch that meets it, nothing is.
    """

    def __init__(
        self, engine: Engine, *, patience: timedelta = _PATIENCE, damage: Damage | None = None
    ) -> None:
        self._engine = engine
        self._damage = damage
        self._patience = patience.total_seconds()
        self._busy_ms: int | None = None
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        """Queue ``unit`` and wait for its commit. A cancelled caller's unit may still commit."""
        if self._closed:
            raise stopping()
        waiting = _Unit(unit, asyncio.get_running_loop())
        self._queue.put(waiting)
        result: T = await waiting.future
        return result

    async def close(self) -> None:
        """Let the thread finish its queue and end; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._engine.dispose()

    def _run(self) -> None:
        ending = False
        while not ending:
            units, ending = self._take()
            if units:
                self._write_batch(units)
                _answer(units)

    def _take(self) -> tuple[list[_Unit], bool]:
        """Wait for one unit and take along whatever else already waits."""
        units: list[_Unit] = []
        item = self._queue.get()
        while item is not None:
            units.append(item)
            if len(units) >= _UNITS_MAX:
                return units, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return units, False
        return units, True

    def _write_batch(self, units: list[_Unit]) -> None:
        try:
            _refuse(self._damage)
            with self._engine.connect() as connection:
                self._be_patient(connection, units[0])
                with connection.begin():
                    _run_all(connection, units)
        except BaseException as error:  # noqa: BLE001 - every waiting caller gets its answer
            _note(self._damage, error)
            failure = _unwritable(error)
            for unit in units:
                # A unit that failed by itself keeps its own error; nothing of any unit was stored.
                unit.error = unit.error or failure

    def _be_patient(self, connection: Connection, oldest: _Unit) -> None:
        """Wait for another process no longer than is left to the oldest of a batch."""
        waited = time.monotonic() - oldest.since
        left = self._patience - (0 if waited < self._patience / 10 else waited)
        busy_ms = max(int(left * 1000), 0)
        if busy_ms != self._busy_ms:
            raw: Any = connection.connection.dbapi_connection
            raw.execute(f"PRAGMA busy_timeout={busy_ms}").close()
            self._busy_ms = busy_ms


class PostgresReader:
    """Reads through a pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        """Run ``unit`` in a transaction that the engine makes one snapshot."""
        async with self._engine.connect() as connection, connection.begin():
            return await connection.run_sync(lambda sync: unit(ReadConnection(sync)))

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()


class PostgresWriter:
    """Writes through a pool; PostgreSQL groups commits of concurrent transactions by itself.

    What callers do ``Together`` shares transactions, one at a time for each function.
    ``on_unanswered`` hears of a commit that was not confirmed, or that nobody waits for any more,
    before its caller does: what the change would have announced may be stored.
    """

    def __init__(
        self, engine: AsyncEngine, *, on_unanswered: Callable[[], None] = lambda: None
    ) -> None:
        self._engine = engine
        self._on_unanswered = on_unanswered
        self._writers = Gate()
        self._gatherings: dict[object, Gathering[Any, Any]] = {}

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        """Run ``unit`` in a transaction of its own, or of those that do the same."""
        with self._writers.enter():
            if not isinstance(unit, Together):
                return await self._transact(unit)
            gathering = self._gatherings.get(unit.function)
            if gathering is None:
                gathering = Gathering(self._transact, unit.function)
                self._gatherings[unit.function] = gathering
            result: T = await gathering.write(unit.item)
            return result

    async def _transact(self, unit: Callable[[WriteConnection], T]) -> T:
        transaction = _Transaction(unit)
        try:
            async with self._engine.begin() as connection:
                return await connection.run_sync(transaction.run)
        except asyncio.CancelledError:
            if transaction.commits:
                self._on_unanswered()
            raise
        except FAULTS as error:
            if transaction.commits and not _was_answered(error):
                log.warning("storage.commit_unanswered", error=_text_of(error))
                self._on_unanswered()
                raise StorageUnansweredError from error
            failure = _unwritable(error) if transaction.begun else _not_stored(error)
            if failure is error:
                raise
            raise failure from error

    async def close(self) -> None:
        """Finish what was accepted, refuse the rest and close the pool; safe to call twice."""
        await self._writers.close()
        await self._engine.dispose()


class _Transaction(Generic[T]):
    """Runs a function on a connection, and knows how far that went."""

    def __init__(self, unit: Callable[[WriteConnection], T]) -> None:
        self._unit = unit
        # There is a connection, and the function has it.
        self.begun = False
        # All that is left to do is the commit.
        self.commits = False

    def run(self, connection: Connection) -> T:
        """Run the function; refuse to go on if its connection is known to be lost."""
        self.begun = True
        result = self._unit(_writing(connection))
        if connection.invalidated or _driver_of(connection).is_closed():
            raise ConnectionResetError("the connection ended within the transaction")
        self.commits = True
        return result


def _driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _writing(connection: Connection) -> WriteConnection:
    return WriteConnection(ReadConnection(connection))


def _run_all(connection: Connection, units: list[_Unit]) -> None:
    if len(units) == 1:
        units[0].result = units[0].function(_writing(connection))
        return
    alike: dict[object, list[_Unit]] = {}
    for unit in units:
        shared = unit.function.function if isinstance(unit.function, Together) else unit
        alike.setdefault(shared, []).append(unit)
    for group in alike.values():
        if len(group) == 1 or not _run_together(connection, group):
            for unit in group:
                _run_in_savepoint(connection, unit)


def _run_together(connection: Connection, units: list[_Unit]) -> bool:
    """Run one function for many callers; False: it failed, and is undone."""
    parts: list[Any] = [unit.function for unit in units]
    connection.exec_driver_sql("SAVEPOINT together")
    try:
        results = parts[0].function(_writing(connection), [part.item for part in parts])
    except Exception:
        if not _in_transaction(connection):
            raise
        connection.exec_driver_sql("ROLLBACK TO together")
        return False
    finally:
        if _in_transaction(connection):
            connection.exec_driver_sql("RELEASE together")
    for unit, result in zip(units, results, strict=True):
        unit.result = result
    return True


def _run_in_savepoint(connection: Connection, unit: _Unit) -> None:
    """Run one function of a batch; its failure undoes itself alone.

    A fault that ended the whole transaction (a full disk does) is raised on, and damage is.
    """
    connection.exec_driver_sql("SAVEPOINT unit")
    try:
        unit.result = unit.function(_writing(connection))
    except Exception as error:
        if is_damage(error) or not _in_transaction(connection):
            raise
        unit.error = _unwritable(error)
        connection.exec_driver_sql("ROLLBACK TO unit")
    connection.exec_driver_sql("RELEASE unit")


def _in_transaction(connection: Connection) -> bool:
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.in_transaction)


def _answer(units: list[_Unit]) -> None:
    """Resolve every caller's future, one hop per event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Unit]] = {}
    for unit in units:
        loops.setdefault(unit.loop, []).append(unit)
    for loop, answered in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, answered)
        except RuntimeError:
            # The loop is closed, its callers are gone; what they asked for is committed or undone.
            log.warning("writer.caller_gone", units=len(answered))


def _resolve(units: list[_Unit]) -> None:
    for unit in units:
        if unit.future.cancelled():
            continue
        if unit.error is None:
            unit.future.set_result(unit.result)
        elif isinstance(unit.error, StopIteration):
            # A future cannot carry it, and the callers behind this one must have their answers.
            failure = RuntimeError("a function of the writer raised StopIteration")
            failure.__cause__ = unit.error
            unit.future.set_exception(failure)
        else:
            unit.future.set_exception(unit.error)


def _refuse(damage: Damage | None) -> None:
    if damage is not None:
        damage.refuse()


def _note(damage: Damage | None, error: BaseException) -> None:
    if damage is not None:
        damage.note(error)


def _was_answered(error: Exception) -> bool:
    """Tell whether the server refused by itself, on a connection that is good for more."""
    return isinstance(error, DBAPIError) and not error.connection_invalidated


def _text_of(error: BaseException) -> str:
    """Say what failed: a deadline has no text of its own, and a driver's error is wrapped."""
    return str(getattr(error, "orig", error)) or type(error).__name__


def _unwritable(error: BaseException) -> BaseException:
    """Turn a database's fault into ours; leave refusals and programming errors as they are."""
    if isinstance(error, (SchedulerError, IntegrityError)):
        return error
    if isinstance(error, (DBAPIError, sa.exc.TimeoutError, OSError, InternalClientError)):
        return _not_stored(error)
    return error


def _not_stored(error: BaseException) -> UnavailableError:
    log.warning("storage.write_failed", error=_text_of(error))
    failure: UnavailableError = StorageUnavailableError(
        "The database did not take the change and nothing was stored; "
        "send the same request again in a moment"
    )
    if is_damage(error):
        failure = StorageDamagedError()
    failure.__cause__ = error
    return failure


def _unreadable(error: Exception) -> UnavailableError:
    log.warning("storage.read_failed", error=_text_of(error))
    if is_damage(error):
        return StorageDamagedError()
    return StorageUnavailableError("The database cannot be read right now; try again in a moment")
