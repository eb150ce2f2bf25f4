"""Takes one lock, keeps it and proves again and again that it is kept, in a thread of its own.

Of its own, because whoever holds the lock may block its thread or its loop for hours. Knows no
database; started by ``single.py``.

::

    trying ──free──► held ──asked to stop──► given back
      │               └──no proof──► lost
      └─► taken elsewhere, unavailable, given up
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from app.domain.clock import Clock
from app.domain.errors import LockLostError, LockTakenError, StorageUnavailableError
from app.engine.tasks import Tasks

# The standard library's: this runs in programs that are not ours, whose output is theirs.
log = logging.getLogger(__name__)


class NamedLock(Protocol):
    """A lock that somebody else may have."""

    async def take(self) -> bool:
        """Try once."""
        ...

    async def holder(self) -> str:
        """Describe who has it."""
        ...

    async def is_held(self) -> bool:
        """Tell whether it is still held."""
        ...

    async def give_back(self) -> bool:
        """Let the next one have it; tell whether it was held until now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperOptions:
    """How a lock is taken and watched."""

    # A lock that is taken elsewhere is tried again this often.
    try_every: timedelta = timedelta(milliseconds=250)
    # A held one is proven this often.
    prove_every: timedelta = timedelta(seconds=1)
    # A proof may take so many waits of so long. They are counted, so that this process's being
    # stopped for an hour is one of them and not the database's silence.
    waits: int = 20
    wait: timedelta = timedelta(milliseconds=250)
    # What a proof is worth, from the moment it was asked for. PostgreSQL gives the lock of a
    # machine that has vanished to another after nine seconds (backends/postgres/named_lock.py).
    trust: timedelta = timedelta(seconds=8)

    def __post_init__(self) -> None:
        """Check that the loss is told before the lock can be another's."""
        if self.prove_every + self.waits * self.wait > self.trust:
            raise ValueError("a proof must fail before the one before it is worth nothing")


class Keeper:
    """One taking of one lock, begun by ``start``.

    ``acquired`` is done when it is held, or raises ``LockTakenError`` or
    ``StorageUnavailableError``. ``ended`` is done when it is given back or lost, and another can
    be had. ``on_lost`` is called in the keeper's thread.
    """

    def __init__(
        self,
        lock: NamedLock,
        *,
        name: str,
        wait: timedelta,
        clock: Clock,
        options: KeeperOptions,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = lock
        self._name = name
        self._wait = wait
        self._clock = clock
        self._options = options
        self._on_lost = on_lost
        self.acquired: Future[None] = Future()
        self.ended: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._tasks = Tasks()
        self._woken = asyncio.Event()
        self._guard = threading.Lock()
        # Under the guard, for both threads.
        self._proofs: list[Future[None]] = []
        self._trusted_until = 0.0
        self._is_over = False
        self._is_lost = False
        self._is_stopped = False

    @property
    def is_lost(self) -> bool:
        """Tell whether the lock was lost while it was held."""
        return self._is_lost

    @property
    def is_held(self) -> bool:
        """Tell whether a proof that still counts says so."""
        return not self._is_over and self._clock.monotonic() < self._trusted_until

    def start(self) -> None:
        """Begin to take it."""
        for future in (self.acquired, self.ended):
            future.set_running_or_notify_cancel()  # whoever waits may not cancel them
        threading.Thread(target=self._run, name=f"lock {self._name}", daemon=True).start()

    def stop(self) -> None:
        """Give it back, or stop trying; ``ended`` tells when that is done."""
        with self._guard:
            self._is_stopped = True
            if not self._is_over:
                self._loop.call_soon_threadsafe(self._woken.set)

    def prove(self) -> "Future[None]":
        """Give a future that is done when a proof that counts is there.

        It raises ``LockLostError`` if there will be none.
        """
        proof: Future[None] = Future()
        with self._guard:
            if self._is_over:
                proof.set_exception(LockLostError(self._name))
            elif self.is_held:
                proof.set_result(None)
            else:
                self._proofs.append(proof)
                self._loop.call_soon_threadsafe(self._woken.set)
        return proof

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._keep())

    async def _keep(self) -> None:
        """Take it, keep it, give it back, and tell how each of them went."""
        error: BaseException | None = None
        try:
            await self._take()
        except BaseException as found:  # noqa: BLE001 - raised where the lock was wanted
            error = found
        if error is None:
            self.acquired.set_result(None)
            if not await self._watch():
                self._lose()
        had = False
        try:
            had = await self._lock.give_back()
        finally:
            with self._guard:
                self._is_over = True
                self._is_lost = self._is_lost or (error is None and not had)
            self._answer(LockLostError(self._name))
            if error is not None:
                self.acquired.set_exception(error)
            self.ended.set_result(None)

    async def _take(self) -> None:
        """Try until it is held, or until the wait is over."""
        deadline = self._clock.monotonic() + self._wait.total_seconds()
        while True:
            asked = self._clock.monotonic()
            is_last = asked >= deadline or self._is_stopped
            if await self._try(is_last=is_last):
                self._trust(asked)
                return
            if is_last:
                raise LockTakenError(self._name, await self._lock.holder())
            left = deadline - self._clock.monotonic()
            await self._rest(min(self._options.try_every.total_seconds(), max(left, 0)))

    async def _try(self, *, is_last: bool) -> bool:
        """Try once; a database that is away is waited for as a lock that is taken."""
        try:
            return await self._lock.take()
        except StorageUnavailableError:
            if is_last:
                raise
            return False

    async def _watch(self) -> bool:
        """Prove it until asked to stop (True), or until a proof fails (False)."""
        while True:
            await self._rest(self._options.prove_every.total_seconds())
            asked = self._clock.monotonic()
            if self._is_stopped:
                return True
            if not await self._proves():
                return self._is_stopped
            self._trust(asked)

    async def _proves(self) -> bool:
        """Ask once, and wait as long as the options say."""
        proven: list[bool] = []

        async def ask() -> None:
            proven.append(await self._lock.is_held())

        asking = self._tasks.spawn(ask(), name="proof")
        for _ in range(self._options.waits):
            await asyncio.wait([asking], timeout=self._options.wait.total_seconds())
            if asking.done():
                return proven == [True]
            if self._is_stopped:
                break
        asking.cancel()
        return False

    def _trust(self, asked: float) -> None:
        with self._guard:
            self._trusted_until = asked + self._options.trust.total_seconds()
        self._answer(None)

    def _lose(self) -> None:
        """Tell at once, before anything is tidied up."""
        with self._guard:
            self._is_over = self._is_lost = True
        log.error("lock.lost lock=%s", self._name)
        self._answer(LockLostError(self._name))
        self._on_lost()

    def _answer(self, error: LockLostError | None) -> None:
        """Answer whoever waits for a proof."""
        with self._guard:
            proofs, self._proofs = self._proofs, []
        for proof in proofs:
            if not proof.set_running_or_notify_cancel():
                continue
            if error is None:
                proof.set_result(None)
            else:
                proof.set_exception(error)

    async def _rest(self, seconds: float) -> None:
        """Wait a while, or until somebody asks for a stop or a proof."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
