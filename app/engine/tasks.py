"""The only place that starts tasks: loops that are kept running, and pieces of work that end.

Loops are supervised: one that raises is logged and started again after a wait, so that none dies
quietly.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from app.domain.errors import UnavailableError

log = structlog.get_logger(__name__)

_RESTART_AFTER = timedelta(seconds=1)


class Tasks:
    """Owns the event loop's tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: dict[str, asyncio.Task[None]] = {}

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        *,
        name: str,
        then: Callable[[asyncio.Task[None]], None] | None = None,
    ) -> asyncio.Task[None]:
        """Start a task and keep it alive until it ends; ``then`` is called with it at its end."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard if then is None else partial(self._end, then))
        return task

    def _end(self, then: Callable[[asyncio.Task[None]], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        then(task)

    def loop(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep ``run`` running: whatever it raises is logged, and it is started again."""
        self._loops[name] = self.spawn(_supervise(name, run), name=name)

    async def end_loop(self, name: str) -> None:
        """Cancel a loop and wait until it is over."""
        task = self._loops.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def end_all(self) -> None:
        """Cancel whatever still runs."""
        for name in list(self._loops):
            await self.end_loop(name)
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(list(self._tasks))


async def _supervise(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except UnavailableError as error:
            log.warning("loop.postponed", loop=name, why=str(error))
        except Exception:
            log.exception("loop.failed", loop=name)
        await asyncio.sleep(_RESTART_AFTER.total_seconds())
