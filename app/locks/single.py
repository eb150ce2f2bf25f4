"""``single_instance``: as a context manager, plain or asynchronous, and as a decorator."""

import asyncio
import functools
import inspect
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from app.backends.named_lock import FileLock
from app.backends.postgres.named_lock import PostgresNamedLock
from app.core.config import load_settings
from app.db.session import DatabaseOptions
from app.domain.clock import Clock, SystemClock
from app.domain.errors import LockLostError
from app.locks.keeper import Keeper, KeeperOptions, NamedLock

_Parameters = ParamSpec("_Parameters")
_Returned = TypeVar("_Returned")
# As long as the clock can count: for ever.
_WAIT_MAX = timedelta(days=36_500)
_NAME_MAX = 200


def single_instance(
    name: str, *, wait: timedelta | None = None, database_url: str | None = None
) -> "SingleInstance":
    """Let one holder at a time into a block, or a function, over all processes on the database.

    The database is the service's own: ``MYSCHEDULER_DATABASE_DIRECT_URL``, else ``DATABASE_URL``,
    read as the service reads them, when the lock is taken; or ``database_url``. With an SQLite
    file the lock is a file beside it, and holds on this machine.

    ``wait``: how long to wait for a lock that is taken elsewhere, and for a database that is away;
    None does not wait, ``timedelta.max`` waits for ever. Whoever waits longest is not first.

    Guarantees. No two holders at once, while each one's process runs: threads and nested blocks of
    one process count as others. The lock of a process that ends, however, is free at once; that of
    a machine that vanishes after some ten seconds. A process that is stopped (SIGSTOP) keeps it.
    A block that ends without ``LockLostError`` had the lock until its end.

    A lock can be lost while it is held: PostgreSQL restarts, its connection is cut, the network is
    gone. It is noticed within a second or six. An ``async with`` block and a coroutine are then
    cancelled; a thread cannot be, so its ``with`` block runs on: let it call ``held.check()``
    before what must not be done twice. Both end with ``LockLostError``.

    Raises at the start ``LockTakenError``, ``StorageUnavailableError``, and ``ConfigError`` for
    settings that cannot be read. A process forked while the lock is held shares its connection and
    keeps it: start processes by "spawn" instead.
    """
    if not 0 < len(name) <= _NAME_MAX or not name.isprintable():
        raise ValueError(f"a lock's name has 1 to {_NAME_MAX} printable characters")
    waits = timedelta(0) if wait is None else min(wait, _WAIT_MAX)
    if waits < timedelta(0):
        raise ValueError("a wait is not negative")
    return SingleInstance(name, wait=waits, database_url=database_url)


class SingleInstance:
    """What ``single_instance`` gives: a ``with`` block, an ``async with`` block, or a decorator.

    One block at a time; a decorated function may be called at any time, each call takes the lock.
    """

    def __init__(self, name: str, *, wait: timedelta, database_url: str | None) -> None:
        self._name = name
        self._wait = wait
        self._database_url = database_url
        self._keeper: Keeper | None = None
        self._block: _CancelledBlock | None = None

    def __call__(
        self, function: Callable[_Parameters, _Returned]
    ) -> Callable[_Parameters, _Returned]:
        """Let each call of a function, or of a coroutine function, hold the lock."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator would run after its lock was given back")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_coroutine(*args: Any, **keywords: Any) -> Any:
                async with self._again():
                    return await function(*args, **keywords)

            return cast("Callable[_Parameters, _Returned]", call_coroutine)

        @functools.wraps(function)
        def call(*args: _Parameters.args, **keywords: _Parameters.kwargs) -> _Returned:
            with self._again():
                return function(*args, **keywords)

        return call

    def __enter__(self) -> "Held":
        keeper = self._open()
        try:
            keeper.acquired.result()
        except BaseException:
            self._close(keeper)
            raise
        return Held(keeper)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        keeper = self._kept()
        self._close(keeper)
        keeper.ended.result()
        self._tell_loss(keeper, error)

    async def __aenter__(self) -> "HeldAsync":
        block = _CancelledBlock()
        keeper = self._open(on_lost=block.lose)
        try:
            await asyncio.wrap_future(keeper.acquired)
        except BaseException:
            self._close(keeper)
            raise
        self._block = block
        block.begin()
        return HeldAsync(keeper)

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        keeper, block = self._kept(), self._block
        assert block is not None
        was_cancelled_here = block.end(error)
        self._close(keeper)
        await asyncio.wrap_future(keeper.ended)
        if was_cancelled_here:
            raise LockLostError(self._name) from error
        self._tell_loss(keeper, error)

    def _open(self, on_lost: Callable[[], None] = lambda: None) -> Keeper:
        if self._keeper is not None:
            raise RuntimeError("this lock's block has been entered: make a lock for each block")
        clock = SystemClock()
        self._keeper = Keeper(
            _open_lock(self._name, self._database_url, clock),
            name=self._name,
            wait=self._wait,
            clock=clock,
            options=KeeperOptions(),
            on_lost=on_lost,
        )
        self._keeper.start()
        return self._keeper

    def _close(self, keeper: Keeper) -> None:
        self._keeper = None
        keeper.stop()

    def _kept(self) -> Keeper:
        assert self._keeper is not None
        return self._keeper

    def _tell_loss(self, keeper: Keeper, error: BaseException | None) -> None:
        if keeper.is_lost and error is None:
            raise LockLostError(self._name)
        if keeper.is_lost and error is not None:
            error.add_note(str(LockLostError(self._name)))

    def _again(self) -> Self:
        return type(self)(self._name, wait=self._wait, database_url=self._database_url)


class Held:
    """A lock that was taken."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def is_held(self) -> bool:
        """Tell whether the lock was proven within the last seconds; returns at once."""
        return self._keeper.is_held

    def check(self) -> None:
        """Go on, or raise ``LockLostError``. Waits, a few seconds at most, if the proof is old."""
        self._keeper.prove().result()


class HeldAsync(Held):
    """The same in an ``async with`` block."""

    async def check(self) -> None:  # type: ignore[override]  # waits as its block does
        """Go on, or raise ``LockLostError``. Waits, a few seconds at most, if the proof is old."""
        await asyncio.wrap_future(self._keeper.prove())


class _CancelledBlock:
    """The task of an ``async with`` block, cancelled once when the lock is lost.

    As ``asyncio.timeout`` does it, so that the two may stand around each other.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._is_open = False
        self._is_lost = False
        self._is_cancelled = False

    def lose(self) -> None:
        """Cancel it; called in the keeper's thread."""
        self._loop.call_soon_threadsafe(self._lose)

    def begin(self) -> None:
        """Note that the block runs; it ends at once if the lock was lost before."""
        self._is_open = True
        if self._is_lost:
            self._lose()

    def end(self, error: BaseException | None) -> bool:
        """Note that it is over; tell whether the cancellation from here, and no other, ended it."""
        self._is_open = False
        if not self._is_cancelled:
            return False
        is_ours = self._task.uncancel() <= self._before
        return is_ours and isinstance(error, asyncio.CancelledError)

    def _lose(self) -> None:
        self._is_lost = True
        if self._is_open and not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()


def _open_lock(name: str, database_url: str | None, clock: Clock) -> NamedLock:
    """Choose the lock by the address of the database."""
    if database_url is None:
        database_url = load_settings(os.environ, env_file=Path(".env")).session_url
    options = DatabaseOptions(url=database_url)
    if options.is_sqlite:
        return FileLock(options.sqlite_path, name=name, clock=clock)
    return PostgresNamedLock(database_url, name=name)
