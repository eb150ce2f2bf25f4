"""The only place that starts tasks: loops that are kept running, and pieces of work that end.

Loops are supervised: one that raises is logged and started again after a wait, so that none dies
quietly, and ``failing`` tells which of them do and for how long.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from app.domain.errors import UnavailableError
from app.engine.course import Course

log = structlog.get_logger(__name__)

_RESTART_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingLoop:
    """A loop that fails: for how long, why the last time, and whether the service needs it."""

    name: str
    seconds: float
    why: str
    required: bool


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop that is kept running."""

    task: asyncio.Task[None]
    course: Course
    required: bool


class Tasks:
    """Owns the event loop's tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: dict[str, _Loop] = {}

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

    def loop(
        self,
        name: str,
        run: Callable[[], Awaitable[None]],
        *,
        course: Course | None = None,
        required: bool = True,
    ) -> None:
        """Keep ``run`` running: whatever it raises is logged, and it is started again.

        ``course`` is where it notes its own rounds and failures; one without counts as well again
        when it has run for a while. One that is not ``required`` may fail in a service that is fit.
        """
        noted = Course() if course is None else course
        noted.begin()
        kept = run if course is not None else partial(_run_noted, run, noted)
        task = self.spawn(_supervise(name, kept, noted), name=name)
        self._loops[name] = _Loop(task, noted, required)

    def failing(self) -> list[FailingLoop]:
        """Tell the loops that fail, without a good stretch since; the longest first."""
        found: list[FailingLoop] = []
        for name, loop in self._loops.items():
            failing = loop.course.failing()
            if failing is not None:
                found.append(
                    FailingLoop(
                        name=name,
                        seconds=failing.seconds,
                        why=failing.why,
                        required=loop.required,
                    )
                )
        return sorted(found, key=lambda loop: -loop.seconds)

    async def end_loop(self, name: str) -> None:
        """Cancel a loop and wait until it is over."""
        loop = self._loops.pop(name, None)
        if loop is not None:
            loop.task.cancel()
            await asyncio.wait([loop.task])

    async def end_all(self) -> None:
        """Cancel whatever still runs."""
        for name in list(self._loops):
            await self.end_loop(name)
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(list(self._tasks))


async def _supervise(name: str, run: Callable[[], Awaitable[None]], course: Course) -> None:
    while True:
        try:
            await run()
            course.fail("it ended")
        except UnavailableError as error:
            course.fail(str(error))
            log.warning("loop.postponed", loop=name, why=str(error))
        except Exception as error:
            # Its text may hold what is nobody's business; the log has it.
            course.fail(type(error).__name__)
            log.exception("loop.failed", loop=name)
        await asyncio.sleep(_RESTART_AFTER.total_seconds())


async def _run_noted(run: Callable[[], Awaitable[None]], course: Course) -> None:
    """Run a loop that notes no rounds: it goes on as long as it does not fail."""
    course.go_on()
    await run()
