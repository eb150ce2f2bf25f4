"""Use cases on schedules: what they will do, without doing anything.

Nothing is stored and nothing runs. What may take milliseconds is computed off the event loop.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import InvalidScheduleError, JobBrokenError, JobNotFoundError
from app.domain.ids import JobId
from app.domain.job import Job
from app.domain.schedule import Schedule
from app.engine.occurrences import Preview, check_calendar, preview_schedule, preview_trigger
from app.engine.simulation import SimulatedTransition, simulate_schedule, simulate_year
from app.engine.triggers import build_trigger
from app.repositories import job_list_repository, job_repository

_SPAN_MAX = timedelta(days=3660)  # ten years, whichever leap days they hold
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPreview:
    """A stored job, and what its schedule does from now on, were it active."""

    job: Job
    preview: Preview


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTransitions:
    """What a stored job does at its zone's transitions; ``problem`` says why that is unknown."""

    job: Job
    transitions: tuple[SimulatedTransition, ...]
    problem: str | None


class ScheduleService:
    """Foretells schedules, of jobs that exist and of jobs that do not."""

    def __init__(self, *, unit_of_work: UnitOfWork, clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def preview(self, schedule: Schedule, *, begin: datetime | None, count: int) -> Preview:
        """Preview a schedule from an aware instant (None: now).

        Raises ``InvalidScheduleError`` where creating a job would.
        """
        begin = self._clock.now() if begin is None else begin
        return await asyncio.to_thread(preview_schedule, schedule, begin=begin, count=count)

    async def next_of_job(self, job_id: JobId, *, count: int) -> JobPreview:
        """Preview a stored job from now on, whatever its state.

        Raises ``JobNotFoundError``, ``JobBrokenError``.
        """
        job = await self._unit_of_work.read(
            lambda connection: job_repository.find_job(connection, job_id)
        )
        if job is None:
            raise JobNotFoundError(job_id)
        definition = job.definition
        if definition is None:
            raise JobBrokenError(job_id)
        begin = self._clock.now() + _INSTANT
        preview = await asyncio.to_thread(
            _preview_stored, definition.schedule, anchor=job.anchor, begin=begin, count=count
        )
        return JobPreview(job=job, preview=preview)

    async def simulate(
        self, schedule: Schedule, *, begin: datetime, end: datetime
    ) -> list[SimulatedTransition]:
        """Tell what a schedule does at the transitions between two aware instants.

        Raises ``InvalidScheduleError`` for a malformed rule, a span that is empty or longer than
        ten years, or one beyond the years that are known.
        """
        check_calendar(begin)
        check_calendar(end)
        if end < begin:
            raise InvalidScheduleError("until lies before from; swap them or move one")
        if end - begin > _SPAN_MAX:
            raise InvalidScheduleError("until lies more than ten years after from; ask for less")
        return await asyncio.to_thread(simulate_schedule, schedule, begin=begin, end=end)

    async def report(self, year: int | None = None) -> list[JobTransitions]:
        """Tell what every stored job does at its zone's transitions in a year (None: this one)."""
        year = self._clock.now().year if year is None else year
        jobs = await self._unit_of_work.read(job_list_repository.read_all_jobs)
        return await asyncio.to_thread(_report, jobs, year)


def _preview_stored(
    schedule: Schedule, *, anchor: datetime, begin: datetime, count: int
) -> Preview:
    trigger = build_trigger(schedule, anchor=anchor)
    return preview_trigger(trigger, begin=begin, count=count)


def _report(jobs: Sequence[Job], year: int) -> list[JobTransitions]:
    return [_report_job(job, year) for job in sorted(jobs, key=lambda job: job.id)]


def _report_job(job: Job, year: int) -> JobTransitions:
    if job.definition is None:
        return JobTransitions(job=job, transitions=(), problem=job.state_reason)
    try:
        transitions = simulate_year(job.definition.schedule, year)
    except InvalidScheduleError as error:
        return JobTransitions(job=job, transitions=(), problem=str(error))
    return JobTransitions(job=job, transitions=tuple(transitions), problem=None)
