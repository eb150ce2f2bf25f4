"""Reads of an SQLite file: a few threads, each with a connection of its own.

A read runs whole in one of them, so that it crosses threads once each way. (Through aiosqlite every
statement did, and so did the transaction's beginning and end: docs/adr/0018.) Threads and
connections are made when they are first needed.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db.unit_of_work import ReadConnection

T = TypeVar("T")

# At the end a thread is interrupted so often until it leaves a read that nobody waits for.
_LEAVE_SECONDS = 0.05


class SqliteReader:
    """Runs functions in threads, each in one snapshot, at most ``readers`` at once.

    All calls come from one event loop. A function whose caller was cancelled is left out if it has
    not begun, else it ends unheard.
    """

    def __init__(self, engine: Engine, *, readers: int) -> None:
        self._engine = engine
        self._readers_max = readers
        self._waiting: queue.SimpleQueue[_Reading | None] = queue.SimpleQueue()
        self._threads: list[_ReaderThread] = []
        self._unfinished = 0

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        """Run ``unit`` on a reading connection and return its result."""
        reading = _Reading(unit, asyncio.get_running_loop(), self._on_finished)
        self._unfinished += 1
        if self._unfinished > len(self._threads) < self._readers_max:
            name = f"sqlite-reader-{len(self._threads)}"
            self._threads.append(_ReaderThread(name, self._engine, self._waiting))
        self._waiting.put(reading)
        result: T = await reading.future
        return result

    async def close(self) -> None:
        """End threads and connections, once nobody waits for a read; safe to call twice."""
        for _ in self._threads:
            self._waiting.put(None)
        await asyncio.to_thread(self._end_threads)
        self._engine.dispose()

    def _end_threads(self) -> None:
        while self._threads:
            self._threads.pop().end()

    def _on_finished(self) -> None:
        self._unfinished -= 1


class _Reading:
    """A function to run, and the future its caller waits on."""

    __slots__ = ("_loop", "_on_finished", "error", "future", "result", "unit")

    def __init__(
        self,
        unit: Callable[[ReadConnection], Any],
        loop: asyncio.AbstractEventLoop,
        on_finished: Callable[[], None],
    ) -> None:
        self.unit = unit
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self._loop = loop
        self._on_finished = on_finished

    def answer(self) -> None:
        """Tell the caller, from another thread; one whose loop is closed is gone."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        self._on_finished()
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, StopIteration):
            # A future cannot carry it.
            failure = RuntimeError("a function of a reader raised StopIteration")
            failure.__cause__ = self.error
            self.future.set_exception(failure)
        else:
            self.future.set_exception(self.error)


class _ReaderThread:
    """One thread and its connection, which is opened anew after it failed."""

    def __init__(
        self, name: str, engine: Engine, waiting: "queue.SimpleQueue[_Reading | None]"
    ) -> None:
        self._engine = engine
        self._waiting = waiting
        self._connection: Connection | None = None
        self._interruptible: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the thread, which was told to end; a statement that still runs is broken off."""
        self._thread.join(_LEAVE_SECONDS)
        while self._thread.is_alive():
            if self._interruptible is not None:
                with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed just now
                    self._interruptible.interrupt()
            self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        while (reading := self._waiting.get()) is not None:
            if not reading.future.cancelled():
                self._serve(reading)
            reading.answer()
            del reading  # lest its result live until the next one comes
        self._drop()

    def _serve(self, reading: _Reading) -> None:
        try:
            connection = self._open() if self._connection is None else self._connection
            try:
                reading.result = reading.unit(ReadConnection(connection))
            finally:
                connection.rollback()
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            reading.error = error
            if isinstance(error, SQLAlchemyError):
                self._drop()

    def _open(self) -> Connection:
        self._connection = self._engine.connect()
        raw: Any = self._connection.connection.dbapi_connection
        self._interruptible = raw
        return self._connection

    def _drop(self) -> None:
        self._interruptible = None
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
        self._connection = None
