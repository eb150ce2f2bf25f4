"""Callers of one function that share a transaction, where each would have one of its own.

A transaction on PostgreSQL costs a millisecond and a half of CPU whatever is in it, and a herd of
callers wants the same of it. The first runs alone; those who come meanwhile wait, and one of them
runs the next for all of them. So a lone caller never waits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from app.domain.errors import StorageUnansweredError, UnavailableError

Item = TypeVar("Item")
T = TypeVar("T")

# One transaction takes at most so many callers: the first of them waits for the last.
_CALLERS_MAX = 256


class _Caller(Generic[Item, T]):
    """What a caller wants, and what became of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        # Set when it is over, or when it is this caller's turn to lead.
        self.woken = asyncio.Event()
        self.is_over = False
        self._result: Any = None
        self._error: Exception | None = None

    def end(self, *, result: T | None = None, error: Exception | None = None) -> None:
        self._result, self._error, self.is_over = result, error, True
        self.woken.set()

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        found: T = self._result
        return found


class Gathering(Generic[Item, T]):
    """Calls ``function`` for many at once; ``transact`` runs something in a transaction.

    ``function`` gets a connection and the items, and gives a result for each. If it refuses some,
    each is called for by itself, so that one caller's fault is not another's. Where the database
    cannot be had, all of a transaction hear the same.
    """

    def __init__(
        self,
        transact: Callable[[Callable[[Any], Sequence[T]]], Awaitable[Sequence[T]]],
        function: Callable[[Any, Sequence[Item]], Sequence[T]],
    ) -> None:
        self._transact = transact
        self._function = function
        self._waiting: deque[_Caller[Item, T]] = deque()
        # Somebody runs a transaction, or was woken to.
        self._is_led = False

    async def write(self, item: Item) -> T:
        """Do it for an item, and give its result when that is durable.

        Whoever is cancelled while others share the transaction leaves them in doubt about it.
        """
        caller = _Caller[Item, T](item)
        self._waiting.append(caller)
        if self._is_led:
            await self._wait(caller)
        if not caller.is_over:
            await self._lead()
        return caller.outcome()

    async def _wait(self, caller: _Caller[Item, T]) -> None:
        try:
            await caller.woken.wait()
        except asyncio.CancelledError:
            if caller in self._waiting:
                self._waiting.remove(caller)
                if caller.woken.is_set():
                    self._pass_on()
            raise

    async def _lead(self) -> None:
        """Run a transaction for all who wait, then wake one of those who came meanwhile."""
        self._is_led = True
        count = min(len(self._waiting), _CALLERS_MAX)
        batch = [self._waiting.popleft() for _ in range(count)]
        try:
            await self._run(batch)
        finally:
            # Not begun: whoever leads next takes them along.
            self._waiting.extendleft(caller for caller in batch[::-1] if not caller.is_over)
            self._pass_on()

    def _pass_on(self) -> None:
        self._is_led = bool(self._waiting)
        if self._is_led:
            self._waiting[0].woken.set()

    async def _run(self, batch: Sequence[_Caller[Item, T]]) -> None:
        items = [caller.item for caller in batch]
        try:
            results = await self._transact(lambda connection: self._function(connection, items))
        except asyncio.CancelledError:
            _fail(batch, StorageUnansweredError())
            raise
        except UnavailableError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - every waiting caller gets its answer
            if len(batch) == 1:
                _fail(batch, error)
                return
            for caller in batch:
                await self._run([caller])
        else:
            for caller, result in zip(batch, results, strict=True):
                caller.end(result=result)


def _fail(batch: Sequence[_Caller[Any, Any]], error: Exception) -> None:
    for caller in batch:
        caller.end(error=error)
