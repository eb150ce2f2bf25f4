"""The pipeline under a clock that the test moves: started, stopped and killed at one home.

The stations are the real ones with their real loops. Two of the loops only wait for the machine's
time to pass, so their rounds are made here: the clock watch's, and the window's regular reading.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from app.domain.clock import to_us
from app.domain.errors import UnavailableError
from tests.support.homes import Home
from tests.support.pipeline import Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from tests.support.plain_sql import PlainSql

_OVERDUE = "SELECT id FROM jobs WHERE state = 'active' AND next_run_us <= ?"
# One statement, and so one moment: what is claimed meanwhile would be in neither of two.
_OPEN = """
    SELECT job_id, id, attempts, exclusive, status FROM executions
    WHERE status = 'running' OR (status IN ('queued', 'retrying') AND next_attempt_us <= ?)
"""
# A host takes this many attempts at once, and every job of these tests has its own.
_HOST_SLOTS = 10


class ClockedPipeline:
    """One service at a home, over any number of starts."""

    def __init__(
        self, home: Home, clock: VirtualClock, runner: ScriptedRunner, **settings: Any
    ) -> None:
        self.home = home
        self.clock = clock
        self.runner = runner
        self._settings = settings
        self._running = contextlib.AsyncExitStack()
        self._pipeline: Pipeline | None = None
        self._sql: PlainSql | None = None

    @property
    def up(self) -> bool:
        """Tell whether the service runs."""
        return self._pipeline is not None

    @property
    def current(self) -> Pipeline:
        """The service that runs."""
        assert self._pipeline is not None, "the service is down"
        return self._pipeline

    async def start(self) -> None:
        """Start the service as a process does, and wait until it is quiet."""
        pipeline = await self._running.enter_async_context(
            open_pipeline(self.home, runner=self.runner, clock=self.clock, **self._settings)
        )
        await pipeline.tasks.end_loop("clock_watch")
        self._pipeline = pipeline

    async def stop(self) -> None:
        """Stop in good order; attempts under way are given up at once."""
        await self.current.lifecycle.stop(grace=timedelta(0))
        await self._leave()

    async def crash(self) -> None:
        """End without a word."""
        await self.current.crash()
        await self._leave()

    async def close(self) -> None:
        """Let go of everything."""
        if self.up:
            await self.stop()
        if self._sql is not None:
            self._sql.close()

    async def compare_clocks(self) -> bool:
        """Make the clock watch's round; False if the database did not take what it found."""
        watch = self.current.stations.clock_watch
        try:
            await watch.compare()
        except UnavailableError:
            return False
        # What was seen is seen, whether or not the database takes a sign of life.
        if self.clock.monotonic() - watch._beat_at >= 10:
            with contextlib.suppress(UnavailableError):
                await watch._beat()
        return True

    async def poke(self) -> None:
        """Let the stations see that time has passed."""
        pipeline = self.current
        await pipeline.tasks.end_loop("window")
        pipeline.tasks.loop("window", pipeline.stations.window.run)
        pipeline.stations.dispatcher.add([])

    async def quiet(self) -> None:
        """Wait until nothing is left to do at this moment, but for what the runner's gate holds."""
        try:
            await eventually(self._is_quiet, every=0.01)
        except AssertionError as error:
            now_us = to_us(self.clock.now())
            overdue, left = self.rows(_OVERDUE, now_us), self.rows(_OPEN, now_us)
            error.add_note(f"news: {self._has_news()}, overdue: {overdue}, open: {left}")
            raise
        stations = self.current.stations
        async with asyncio.timeout(1000):
            await stations.ledger.drained()
            await stations.recorder.drained()

    def rows(self, statement: str, *parameters: object) -> list[Any]:
        """Read by plain SQL."""
        if self._sql is None:
            self._sql = self.home.open_sql()
        return self._sql.rows(statement, *parameters)

    def _is_quiet(self) -> bool:
        now_us = to_us(self.clock.now())
        if self._has_news() or self.rows(_OVERDUE, now_us):
            return False
        found = self.rows(_OPEN, now_us)
        running = [tuple(row[:3]) for row in found if row[4] == "running"]
        if self._is_left(running):
            return False
        busy = Counter(job_id for job_id, *_ in running)
        return not any(
            self._may_start(busy[job_id], exclusive)
            for job_id, _, _, exclusive, status in found
            if status != "running"
        )

    def _has_news(self) -> bool:
        """Tell whether a station has yet to look, or is looking, at what is to do.

        It would take the time at which it is done for the time at which it looked.
        """
        dispatcher = self.current.stations.dispatcher
        reading = self.current.unit_of_work._readers._inside
        return dispatcher._news.is_set() or dispatcher.intake.seconds_left() <= 0 or bool(reading)

    def _is_left(self, running: Sequence[tuple[str, str, int]]) -> bool:
        """Tell whether something runs that the gate does not hold."""
        if self.runner.gate.is_set():
            return bool(running)
        sent = {(attempt.execution_id, attempt.number) for attempt in self.runner.attempts}
        return any((execution, number) not in sent for _, execution, number in running)

    def _may_start(self, running_of_job: int, exclusive: int) -> bool:
        if self.runner.gate.is_set():
            return True
        return running_of_job < (1 if exclusive else 2)

    async def _leave(self) -> None:
        """Close what is left of a start; the runner's gate stays as it was."""
        held = not self.runner.gate.is_set()
        self._pipeline = None
        await self._running.aclose()
        self._running = contextlib.AsyncExitStack()
        if held:
            self.runner.gate.clear()
