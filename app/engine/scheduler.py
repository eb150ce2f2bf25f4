"""AsyncIOScheduler with a loop that cannot die quietly.

APScheduler 3.11 re-arms its timer only after a pass that raised nothing, while ``running`` stays
true. Here every pass is guarded: one that raises is logged, counted, undone and repeated; and a
watch calls for a pass every second whatever the timers say, so that a stepped clock neither
silences nor delays.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.domain.clock import Clock
from app.engine.job_store import WindowJobStore
from app.engine.submitter import Submitter

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """How the passes are watched."""

    # A pass is made at least this often, due jobs or not.
    watch_every: timedelta = timedelta(seconds=1)
    # Wait before a failed pass is repeated, doubling from the first to the second.
    retry_first: timedelta = timedelta(seconds=1)
    retry_max: timedelta = timedelta(seconds=10)


class GuardedScheduler(AsyncIOScheduler):
    """Fires due jobs of the window; see the module's text for what it adds to APScheduler."""

    def __init__(self, *, store: WindowJobStore, clock: Clock, options: SchedulerOptions) -> None:
        super().__init__(timezone=UTC)  # type: ignore[no-untyped-call]  # no annotations there
        self._store = store
        self._clock = clock
        self._options = options
        self._failures_in_a_row = 0
        self.failed_passes = 0
        self.last_good_pass: float | None = None
        self.add_jobstore(store, "default")  # type: ignore[no-untyped-call]  # as above
        self.add_executor(Submitter(store), "default")  # type: ignore[no-untyped-call]  # as above

    def wake(self) -> None:
        """Ask for a pass; nothing happens once the scheduler is stopped."""
        if self.running:
            self.wakeup()

    async def watch(self) -> None:
        """Make a pass at least every ``watch_every``, until cancelled."""
        while True:
            self.wake()
            await asyncio.sleep(self._options.watch_every.total_seconds())

    def seconds_since_good_pass(self) -> float | None:
        """Tell how old the last good pass is; None before the first."""
        if self.last_good_pass is None:
            return None
        return self._clock.monotonic() - self.last_good_pass

    def _process_jobs(self) -> Any:
        if not self.running:
            # A wake-up that was on its way when the scheduler was shut down: no timer, no pass.
            return None
        try:
            wait_seconds = super()._process_jobs()  # type: ignore[no-untyped-call]  # as above
            self._store.raise_failure()
        except Exception:
            self._store.abandon()
            self.failed_passes += 1
            self._failures_in_a_row += 1
            wait = self._options.retry_first * 2 ** min(self._failures_in_a_row - 1, 10)
            wait_seconds = min(wait, self._options.retry_max).total_seconds()
            log.exception("pass.failed", repeated_in_seconds=wait_seconds)
        else:
            self._failures_in_a_row = 0
            self.last_good_pass = self._clock.monotonic()
        return wait_seconds
