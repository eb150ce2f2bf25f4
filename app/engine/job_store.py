"""APScheduler's job store over the window: opens a tick, collects it, closes it. No I/O.

APScheduler 3.11 calls, in one pass: ``get_due_jobs`` once, then for each job the executor's
``submit_job`` and ``update_job`` or ``remove_job``, and ``get_next_run_time`` last
(``BaseScheduler._process_jobs``; a test pins the order). Any exception outside ``get_due_jobs``
would end its timer for good, so nothing here raises there, and a schedule that fails is caught at
its trigger.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import structlog
from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.triggers.base import BaseTrigger

from app.domain.ids import JobId
from app.engine.left_out import LeftOut
from app.engine.tick import DueInstants
from app.engine.window import WaitingJob, Window

log = structlog.get_logger(__name__)

# Jobs taken in one pass: about 5 ms of the loop's time; the next pass follows at once.
PASS_MAX = 200


class OpenTick:
    """What one pass has collected so far."""

    def __init__(self) -> None:
        self.taken: dict[str, WaitingJob] = {}
        self.fire_times: dict[str, tuple[datetime, ...]] = {}
        self.next_run_times: dict[str, datetime | None] = {}
        self.problems: dict[str, str] = {}


class WindowJobStore(BaseJobStore):
    """Gives APScheduler the due jobs of the window and turns its answers into a tick."""

    def __init__(self, *, window: Window, submit: Callable[[Sequence[DueInstants]], None]) -> None:
        super().__init__()
        self._window = window
        self._submit = submit
        self._tick = OpenTick()
        self._failure: Exception | None = None

    def add_fire_times(self, job_id: str, fire_times: Sequence[datetime]) -> None:
        """Note the instants the executor was given for a job of the open tick."""
        self._tick.fire_times[job_id] = tuple(fire_times)

    def abandon(self) -> None:
        """Undo a pass that failed: its jobs are due again in the next one."""
        taken, self._tick = self._tick.taken, OpenTick()
        self._window.put_back(taken.values())

    def get_due_jobs(self, now: datetime) -> list[SchedulerJob]:
        """Open a tick with what is due; what fails here is raised again by ``raise_failure``."""
        self.abandon()
        try:
            taken = self._window.take_due(now, limit=PASS_MAX)
            self._tick.taken = {waiting.job.id: waiting for waiting in taken}
            return [self._scheduler_job(waiting) for waiting in taken]
        except Exception as error:
            self._failure = error
            raise

    def raise_failure(self) -> None:
        """Raise what made the latest pass find nothing: APScheduler itself only warns of it."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def update_job(self, job: SchedulerJob) -> None:
        """Note a job's next run time."""
        self._tick.next_run_times[job.id] = job.next_run_time

    def remove_job(self, job_id: str) -> None:
        """Note that a job's schedule has no further instant (or failed)."""
        self._tick.next_run_times[job_id] = None

    def get_next_run_time(self) -> datetime | None:
        """Close the tick, hand it to the ledger, and tell when the next one is due."""
        tick, self._tick = self._tick, OpenTick()
        found = [_found(tick, job_id, waiting) for job_id, waiting in tick.taken.items()]
        if found:
            self._submit(found)
        return self._window.next_time()

    def lookup_job(self, job_id: str) -> None:
        """Find nothing: jobs are looked up in the database."""

    def get_all_jobs(self) -> list[SchedulerJob]:
        """List nothing: jobs are listed from the database."""
        return []

    def add_job(self, job: SchedulerJob) -> None:  # noqa: ARG002 - APScheduler's signature
        """Refuse: jobs enter through the database."""
        raise TypeError("jobs are added to the database, not to the scheduler")

    def remove_all_jobs(self) -> None:
        """Refuse: jobs leave through the database."""
        raise TypeError("jobs are removed from the database, not from the scheduler")

    def _scheduler_job(self, waiting: WaitingJob) -> SchedulerJob:
        """Make APScheduler's view of a job, without its constructor's validation."""
        job = SchedulerJob.__new__(SchedulerJob)
        job._scheduler = self._scheduler  # noqa: SLF001 - what its constructor sets
        job._jobstore_alias = self._alias  # noqa: SLF001 - what its constructor sets
        job.id = waiting.job.id
        job.name = waiting.job.id
        job.trigger = _TickTrigger(waiting, self._tick)
        job.executor = "default"
        job.coalesce = False
        job.misfire_grace_time = None
        job.max_instances = 1
        job.next_run_time = waiting.job.next_run_time
        return job


class _TickTrigger(BaseTrigger):
    """A job's trigger during one pass: a schedule that fails ends here, as a problem of its job."""

    __slots__ = ("_tick", "_waiting")

    def __init__(self, waiting: WaitingJob, tick: OpenTick) -> None:
        self._waiting = waiting
        self._tick = tick

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> Any:
        try:
            return self._waiting.trigger.get_next_fire_time(previous_fire_time, now)
        except Exception as error:
            log.exception("schedule.failed", job_id=self._waiting.job.id)
            self._tick.problems[self._waiting.job.id] = (
                f"its schedule fails with {type(error).__name__}"
            )
            return None


def _found(tick: OpenTick, job_id: str, waiting: WaitingJob) -> DueInstants:
    fire_times = tick.fire_times.get(job_id, (waiting.job.next_run_time,))
    left_out = _left_out(tick, waiting, fire_times[-1])
    return DueInstants(
        job=waiting.job,
        fire_times=fire_times,
        next_run_time=tick.next_run_times.get(job_id),
        left_out=left_out,
        problem=tick.problems.get(JobId(job_id)),
    )


def _left_out(tick: OpenTick, waiting: WaitingJob, last: datetime) -> tuple[LeftOut, ...]:
    """Find what the zone's clock made void up to ``last``; a failure is a problem of the job."""
    try:
        return waiting.trigger.left_out(waiting.job.cursor, last)
    except Exception as error:
        log.exception("schedule.failed", job_id=waiting.job.id)
        tick.problems[waiting.job.id] = f"its schedule fails with {type(error).__name__}"
        return ()
