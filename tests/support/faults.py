"""A fault in one place of the pipeline: in its doors to the database, or in the clock it reads.

A place is a pattern over what is done and by whom: ``read Window.read.…`` and ``write Ledger.…``
name the function that a door is given, ``clock ClockWatch.compare`` the one that asks the clock.
"""

import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from app.db.unit_of_work import (
    ReadConnection,
    Reader,
    Together,
    UnitOfWork,
    WriteConnection,
    Writer,
)
from app.domain.clock import SystemClock

T = TypeVar("T")


class Fault:
    """Raises in its place: the first time, or with ``lasts`` until ``mend``; never before ``arm``.

    ``raised_at`` is the monotonic time of the first; ``passed`` counts the times it was left alone
    after that. ``error`` is what is raised.
    """

    def __init__(self, place: str, *, lasts: bool, error: Exception | None = None) -> None:
        self._place = re.compile(place)
        self._error = error or RuntimeError("boom")
        self._lasts = lasts
        self._armed = False
        self._lock = threading.Lock()
        self.raised_at: float | None = None
        self.passed = 0

    def arm(self) -> None:
        """Begin to raise."""
        self._armed = True

    def mend(self) -> None:
        """Raise no more."""
        self._lasts = False

    def meet(self, name: str) -> None:
        """Come by, and raise if this is the place."""
        with self._lock:
            if not self._armed or not self._place.search(name):
                return
            if self.raised_at is not None and not self._lasts:
                self.passed += 1
                return
            if self.raised_at is None:
                self.raised_at = time.monotonic()
        raise self._error

    def enter(self, unit_of_work: UnitOfWork) -> None:
        """Stand in both doors."""
        unit_of_work._reader = _FaultyReader(unit_of_work._reader, self)
        unit_of_work._writer = _FaultyWriter(unit_of_work._writer, self)


class FaultyClock(SystemClock):
    """The machine's clock, with a fault for some who ask it."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def now(self) -> datetime:
        """Tell the time, or raise."""
        self._fault.meet(f"clock {sys._getframe(1).f_code.co_qualname}")
        return super().now()


class _FaultyReader:
    def __init__(self, reader: Reader, fault: Fault) -> None:
        self._reader = reader
        self._fault = fault

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        self._fault.meet(f"read {name_of(unit)}")
        return await self._reader.read(unit)

    async def close(self) -> None:
        await self._reader.close()


class _FaultyWriter:
    """Raises when all of a transaction is done but its commit: it is undone."""

    def __init__(self, writer: Writer, fault: Fault) -> None:
        self._writer = writer
        self._fault = fault

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        def met(connection: WriteConnection) -> T:
            done = unit(connection)
            self._fault.meet(f"write {name_of(unit)}")
            return done

        return await self._writer.write(met)

    async def close(self) -> None:
        await self._writer.close()


def name_of(unit: Callable[..., Any]) -> str:
    """Name the function that a door was given."""
    while isinstance(unit, partial | Together):
        unit = unit.func if isinstance(unit, partial) else unit.function
    return str(getattr(unit, "__qualname__", ""))
