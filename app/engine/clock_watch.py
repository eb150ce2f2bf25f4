"""Watches the wall clock, and sets right what a step back would silence.

Every second the wall clock is compared with the monotonic one, which counts suspended time too. A
step forward needs nothing: what became due is found late and follows the catch-up policies. After a
step back by more than the tolerance the cursors lie in the future, and nothing would run until the
clock has come there again. So each such job begins a new clock epoch at the present:

- an interval goes on with the rest of its period, on the new clock;
- a cron rule goes on with the first instant that has no row yet: what ran is not run again;
- a one-off stays, its instant is still to come or has its row.

What waits for a worker or for its next attempt moves back by the same step. The last sign of life
in the database tells of a step made while no process ran.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import Clock
from app.domain.errors import InvalidScheduleError
from app.domain.events import JobChanged
from app.domain.ids import JobId
from app.domain.job import Change, Job, JobState
from app.domain.schedule import DateRule, IntervalRule
from app.engine.course import Course
from app.engine.ports import Leader
from app.engine.publisher import Publisher
from app.engine.triggers import build_trigger
from app.repositories import (
    execution_repository,
    job_repository,
    leadership_repository,
    service_event_repository,
)
from app.repositories.service_event_repository import ServiceEvent, ServiceEventKind

log = structlog.get_logger(__name__)


# After these the last sign of life is on the clock as it is.
_CLOCK_KNOWN = frozenset({ServiceEventKind.STARTED, ServiceEventKind.CLOCK_SET_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWatchOptions:
    """How closely the clocks are compared."""

    every: timedelta = timedelta(seconds=1)
    # Smaller steps are waited out: at most so long is a job late, and none is doubled.
    tolerance: timedelta = timedelta(seconds=5)
    # How often a sign of life is written: a crash is dated this precisely.
    beat_every: timedelta = timedelta(seconds=10)
    # Jobs set right in one transaction.
    jobs_max: int = 200


class ClockWatch:
    """Compares the clocks.

    At a step back ``move_pending`` is told how far what is not written yet must move, and
    ``on_set_back`` that all is mended. ``course`` tells how its loop fares.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        leader: Leader,
        clock: Clock,
        publisher: Publisher,
        options: ClockWatchOptions,
        move_pending: Callable[[timedelta], None],
        on_set_back: Callable[[], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._leader = leader
        self._clock = clock
        self._publisher = publisher
        self._options = options
        self._move_pending = move_pending
        self._on_set_back = on_set_back
        self.course = Course()
        self._beat_at = clock.monotonic()
        self._wall, self._monotonic = clock.now(), clock.monotonic()

    async def begin(self, last_beat: datetime | None) -> None:
        """Note the start, and mend a step back made since ``last_beat``, while nothing ran."""
        self._wall, self._monotonic = self._clock.now(), self._clock.monotonic()
        now = self._wall
        if last_beat is not None and last_beat - now > self._options.tolerance:
            await self._mend(now, last_beat)
        await self._note(ServiceEventKind.STARTED, at=now, since=last_beat)

    async def end(self) -> None:
        """Note that this process stops in good order."""
        await self._note(ServiceEventKind.STOPPED, at=self._clock.now(), since=None)

    async def run(self) -> None:
        """Compare and give signs of life, until cancelled; raises what the database raises."""
        while True:
            await asyncio.sleep(self._options.every.total_seconds())
            await self.compare()
            if self._clock.monotonic() - self._beat_at >= self._options.beat_every.total_seconds():
                await self._beat()
            self.course.go_on()

    async def compare(self) -> None:
        """Look for a step since the last comparison and mend it; one that fails is tried again."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        expected = self._wall + timedelta(seconds=monotonic - self._monotonic)
        if expected - now > self._options.tolerance:
            log.warning("clock.set_back", seconds=(expected - now).total_seconds())
            await self._mend(now, expected)
        elif now - expected > self._options.tolerance:
            log.warning("clock.set_forward", seconds=(now - expected).total_seconds())
            await self._note(ServiceEventKind.CLOCK_SET_FORWARD, at=now, since=expected)
        self._wall, self._monotonic = now, monotonic

    async def _mend(self, now: datetime, expected: datetime) -> None:
        """Begin a new epoch for jobs that stand in the future; ``expected`` was the old clock."""
        count, after = 0, JobId("")
        while True:
            page = await self._unit_of_work.write(
                lambda connection, after=after: self._realign(  # type: ignore[misc]  # a default in a lambda
                    connection, after, now=now, step=expected - now
                )
            )
            for job_id in page.changed:
                self._publisher.publish(JobChanged(job_id=job_id))
            count += len(page.changed)
            if page.last is None:
                break
            after = page.last
        await self._move_back(now, expected)
        log.warning("clock.mended", jobs=count, seconds=(expected - now).total_seconds())
        self._on_set_back()

    async def _move_back(self, now: datetime, expected: datetime) -> None:
        """Let what waits come as soon as it would have; all of it, and once, or nothing."""
        step = expected - now
        note = self._noting(ServiceEventKind.CLOCK_SET_BACK, at=now, since=expected)

        def move(connection: WriteConnection) -> None:
            execution_repository.move_back_waiting(connection, now=now, step=step)
            note(connection)

        # Nothing between these two: what was written before is moved there, the rest here.
        self._move_pending(step)
        try:
            await self._unit_of_work.write(move)
        except BaseException:
            self._move_pending(-step)
            raise

    def _realign(
        self, connection: WriteConnection, after: JobId, *, now: datetime, step: timedelta
    ) -> "_Page":
        self._leader.guard(connection)
        limit = self._options.jobs_max
        found = job_repository.jobs_ahead(connection, now=now, after=after, limit=limit)
        changed: list[JobId] = []
        for job in found:
            last = execution_repository.last_accounted(connection, job.id)
            mended = _realigned(job, now=now, step=step, last=last)
            if mended is not None:
                job_repository.save_state(
                    connection, mended, Change.CLOCK_SET_BACK, accounted=job.cursor, actor=None
                )
                changed.append(job.id)
        return _Page(changed=changed, last=found[-1].id if len(found) == limit else None)

    async def _beat(self) -> None:
        now = self._clock.now()
        await self._unit_of_work.write(
            lambda connection: leadership_repository.beat(connection, now=now)
        )
        self._beat_at = self._clock.monotonic()

    async def _note(self, kind: ServiceEventKind, *, at: datetime, since: datetime | None) -> None:
        await self._unit_of_work.write(self._noting(kind, at=at, since=since))

    def _noting(
        self, kind: ServiceEventKind, *, at: datetime, since: datetime | None
    ) -> Callable[[WriteConnection], None]:
        """Make the change that writes an event."""
        event = ServiceEvent(at=at, kind=kind, since=since, process=self._leader.owner)

        def note(connection: WriteConnection) -> None:
            if kind in _CLOCK_KNOWN:
                leadership_repository.begin_beats(connection, now=at)
            else:
                leadership_repository.beat(connection, now=at)
            service_event_repository.add_event(connection, event)

        return note


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """The jobs one transaction set right; ``last`` is set when there may be more behind it."""

    changed: list[JobId]
    last: JobId | None


def _realigned(job: Job, *, now: datetime, step: timedelta, last: datetime | None) -> Job | None:
    """Begin a job's new epoch; None if it goes on as it is. ``last``: its latest instant's row."""
    definition = job.definition
    if definition is None or isinstance(definition.schedule.rule, DateRule):
        return None
    anchor, cursor = job.anchor, now
    if isinstance(definition.schedule.rule, IntervalRule):
        anchor = job.anchor - step
    elif last is not None:
        cursor = max(now, last)
    if cursor >= job.cursor:
        return None
    try:
        trigger = build_trigger(definition.schedule, anchor=anchor)
    except InvalidScheduleError as error:
        log.warning("clock.job_kept", job_id=job.id, why=str(error))
        return None
    following = trigger.next_after(cursor) if job.state is JobState.ACTIVE else None
    done = job.state is JobState.ACTIVE and following is None
    return replace(
        job,
        revision=job.revision + 1,
        state=JobState.FINISHED if done else job.state,
        clock_epoch=job.clock_epoch + 1,
        anchor=anchor,
        cursor=cursor,
        next_run_time=following,
        updated_at=now,
    )
