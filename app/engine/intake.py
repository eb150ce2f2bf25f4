"""Brings waiting runs into memory: those that are handed over, and those found in the database.

The database is looked at after a start, when something did not fit, when another process says that
runs wait, and every sweep interval. A look reads what may start soonest, however much waits behind
it. Where a backlog fills the answer, what it may hide is sought beside the claims (``survey``):
that takes time in proportion to all that waits, and so it rests ten times as long. What it read may
have been claimed meanwhile, or wait for a retry: a claim takes nothing that was put off.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock, to_us
from app.domain.errors import UnavailableError
from app.domain.execution import WaitingRun
from app.domain.ids import ExecutionId
from app.engine.course import Course
from app.engine.ready_queue import CROWD_PART, ReadyQueue
from app.repositories import unreadable_repository, waiting_repository
from app.repositories.job_repository import BrokenJob
from app.repositories.unreadable_repository import UnreadableRun
from app.repositories.waiting_repository import Waiting, WaitingLimits

log = structlog.get_logger(__name__)

# With so many runs in memory there is no hurry to look for more: a few batches of claims. Nor is
# there after a look that read so many.
_PLENTY = 1000
# Backlogs of few hosts may fill what one look behind others gives; then further ones are sought.
_LOOKS_MAX = 3
# Looking behind backlogs rests so many times as long as it takes, and so long at least and at most.
_REST_FOLD = 10
_REST_MIN = timedelta(milliseconds=10)
_REST_MAX = timedelta(seconds=100)
# The least rest after a search that the database did not let end.
_RETRY_WAIT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """How many waiting runs are held in memory, and how often the database is looked at."""

    # Waiting runs held in memory (about 0.5 KiB each); the rest stays in the database.
    ready_max: int = 20_000
    # Of which so many of one job at most, so that one backlog cannot keep all others out.
    ready_max_per_job: int = 500
    # How often the database is looked at again for what did not fit.
    refill_every: timedelta = timedelta(milliseconds=500)
    # How often, at most, it is looked at because another process says that runs wait.
    look_every: timedelta = timedelta(milliseconds=100)
    # How often, and some time later, while few runs are in memory: word of what another process
    # left to do may have been lost. ``timedelta.max``: no other process does.
    poll_every: timedelta = timedelta.max
    # How far ahead retries are held in memory, and how often the database is swept for more.
    horizon: timedelta = timedelta(seconds=60)
    sweep_every: timedelta = timedelta(seconds=20)

    def __post_init__(self) -> None:
        """Check the limits."""
        if self.ready_max < 1 or self.ready_max_per_job < 1:
            raise ValueError("ready_max and ready_max_per_job must be at least 1")
        if self.sweep_every >= self.horizon:
            raise ValueError("sweeps must come more often than the horizon is long")


class Intake:
    """Fills a ready queue for one dispatcher.

    ``ours`` tells which runs are claimed here, or about to be, and are not recorded yet;
    ``on_found`` hears when ``survey`` brought some in.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        options: IntakeOptions,
        ready: ReadyQueue,
        ours: Callable[[], AbstractSet[ExecutionId]],
        on_found: Callable[[], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options
        self._ready = ready
        self._ours = ours
        self._on_found = on_found
        # How the survey fares.
        self.course = Course()
        # Something waits, or may wait, that is not in memory.
        self._overflowed = False
        self._asked = self._misled = False
        # How many rows the last look read.
        self._rows = 0
        # Times in the database have changed: once for each time that what was read before is void.
        self._epoch = 0
        # When the next look is due, whatever happens, and when the last one was begun.
        self._due_at = self._looked_at = clock.monotonic()
        # Hosts whose backlogs filled a look, while what they hide is to be sought.
        self._crowds: set[str] = set()
        self._hides = asyncio.Event()
        self._chance = random.Random()  # noqa: S311 - spreads claims, guards nothing

    def add(self, runs: Iterable[WaitingRun]) -> None:
        """Take in waiting runs; those too far ahead or too many are found later."""
        horizon = self._clock.now() + self._options.horizon
        fitted = self._ready.add([run for run in runs if run.next_attempt_at <= horizon])
        self._overflowed |= not fitted

    def leave_out(self) -> None:
        """Note that something waits, or may wait, that is not in memory."""
        self._overflowed = True

    def ask(self) -> None:
        """Look soon: another process says that runs wait."""
        self._asked = True

    def mislead(self) -> None:
        """Look soon: most of what was claimed did not wait any more."""
        self._misled = True

    def read_again(self) -> None:
        """Look now: times in the database have changed, and what is being read is void."""
        self._epoch += 1
        self.look_now()

    def look_now(self) -> None:
        """Let a look be due."""
        self._due_at = self._clock.monotonic()

    def is_due(self) -> bool:
        """Tell whether the database is to be looked at now; not all the time."""
        if self._clock.monotonic() >= self._due_at:
            return True
        plenty = max(len(self._ready), self._rows) > _PLENTY
        pause = self._options.refill_every if plenty else self._options.look_every
        if self._asked and self._rested(pause):
            return True
        if self._misled and self._rested(self._options.look_every):
            return True
        if not plenty and self._rested(self._options.poll_every):
            return True
        room = len(self._ready) < self._options.ready_max // 2
        return self._overflowed and room and self._rested(self._options.refill_every)

    def seconds_left(self) -> float:
        """Tell for how long no look is due, if nothing happens; 0 or less: one is."""
        seconds = self._due_at - self._clock.monotonic()
        soon = self._asked or self._misled
        return min(seconds, self._options.look_every.total_seconds()) if soon else seconds

    async def look(self) -> None:
        """Take in what may start soonest, and let go of what does not wait any more.

        No claim may be under way. Runs whose job cannot be read are ended. Raises what the database
        raises; then the next look is due at once.
        """
        self._asked = self._misled = self._overflowed = False
        self._looked_at = self._due_at = self._clock.monotonic()
        limits, epoch = self._limits(), self._epoch
        found = await self._unit_of_work.read(
            partial(waiting_repository.soonest_runs, limits=limits, held=self._ready.held)
        )
        if epoch != self._epoch:
            return
        self._due_at = self._looked_at + self._options.sweep_every.total_seconds()
        self._ready.forget(found.gone)
        self._rows, full = found.rows, found.rows >= limits.rows
        most = found.most_of_a_job
        self._overflowed |= full or most >= limits.per_job
        await self._take(found)
        self._crowds = found.crowds(limits)
        if full and most > limits.per_job:
            # Without what one job has beyond its part, its host may be none.
            self._crowds = set()
            self._hides.set()
        elif full and self._crowds:
            self._hides.set()

    async def survey(self) -> None:
        """Seek, where a look found backlogs, what waits behind them, until cancelled.

        What fails is told by ``course`` or raised, and done again.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._hides.wait()
            self._hides.clear()
            began, done = loop.time(), False
            try:
                await self._look_behind(set(self._crowds))
                done = True
                self.course.go_on()
            except UnavailableError as error:
                self.course.fail(str(error))
                log.warning("survey.postponed", why=str(error))
            finally:
                if not done:
                    self._hides.set()
            least = _REST_MIN if done else _RETRY_WAIT
            rest = max((loop.time() - began) * _REST_FOLD, least.total_seconds())
            await asyncio.sleep(min(rest, _REST_MAX.total_seconds()))

    async def _look_behind(self, beside: set[str]) -> None:
        """Take in of each job what waits for others than these hosts, and than those it finds."""
        for _ in range(_LOOKS_MAX):
            limits, epoch = self._limits(), self._epoch
            found = await self._unit_of_work.read(
                partial(waiting_repository.runs_of_each_job, limits=limits, beside=beside)
            )
            if epoch != self._epoch:
                self._hides.set()
                return
            await self._take(found)
            self._on_found()
            crowds = found.crowds(limits)
            if found.rows < limits.rows or not crowds:
                return
            beside |= crowds

    def _limits(self) -> WaitingLimits:
        return WaitingLimits(
            until=self._clock.now() + self._options.horizon,
            rows=self._options.ready_max,
            per_job=self._options.ready_max_per_job,
            crowd=self._options.ready_max // CROWD_PART,
        )

    async def _take(self, found: Waiting) -> None:
        """Hold what was found and is not ours already, and end what cannot be read."""
        ours = self._ours()
        fresh = [run for run in found.runs if run.id not in ours]
        # Of those ready since the same instant each replica begins elsewhere: in one order they
        # would all claim the same ones, and all but one in vain.
        self._chance.shuffle(fresh)
        self.add(fresh)
        if found.unreadable:
            tell_broken(await self._end(found.unreadable))

    async def _end(self, unreadable: list[UnreadableRun]) -> list[BrokenJob]:
        now_us = to_us(self._clock.now())
        return await self._unit_of_work.write(
            lambda connection: unreadable_repository.end_unreadable(connection, unreadable, now_us)
        )

    def _rested(self, pause: timedelta) -> bool:
        return self._clock.monotonic() - self._looked_at >= pause.total_seconds()


def tell_broken(jobs: Iterable[BrokenJob]) -> None:
    """Log jobs whose definitions were found unreadable."""
    for job in jobs:
        log.error("job.broken", job_id=job.id, problem=job.problem)
