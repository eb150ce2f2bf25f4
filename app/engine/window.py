"""The jobs due in the next few seconds, read ahead from the index that is the timer heap.

The scheduler never holds all jobs. A loop reads the rows due within the horizon about twice per
horizon, and the rows of changed jobs at once. States of a job seen from here::

    not here ──read──► waiting ──due──► in a tick ──committed──► waiting | not here
                          └─changed─► read again      └─changed meanwhile─► read again

A job in a tick is kept out until the ledger has settled it, so nothing fires twice while a commit
is slow or repeated. A row read while it was already overdue goes to the ledger directly
(``catch_up``). What the window holds may be stale; every tick's advance is conditional on what it
read, and a refused advance makes the job be read again.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import InvalidScheduleError
from app.domain.ids import JobId
from app.domain.job import DueJob
from app.engine.catch_up import find_due_instants
from app.engine.course import Course
from app.engine.presence import Presence
from app.engine.tick import DueInstants
from app.engine.triggers import ScheduleTrigger, TriggerCache, TriggerCacheOptions
from app.repositories import job_repository
from app.repositories.job_repository import BrokenJob

log = structlog.get_logger(__name__)

# Overdue jobs whose instants are found in one go, and for how long at most: one job far behind may
# take some milliseconds.
_CATCH_UP_CHUNK = 200
_CATCH_UP_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """How far ahead to read."""

    # Rows due within this time are held in memory; they are read again every half of it.
    horizon: timedelta = timedelta(seconds=5)
    # Most rows held; with more due, the window ends where the last one lies.
    rows_max: int = 20_000
    # A row read this much after its time is caught up off the scheduler.
    overdue_after: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.horizon <= timedelta(0) or self.rows_max < 1:
            raise ValueError("the window needs a positive horizon and room for one row")


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job in the window, with its trigger."""

    job: DueJob
    trigger: ScheduleTrigger


class Window:
    """Holds what is due soon; ``run`` keeps it filled.

    ``submit`` takes overdue jobs' instants to the ledger, ``submit_broken`` jobs that cannot be
    read; ``wake`` tells the scheduler that the earliest time may have changed.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        options: WindowOptions,
        presence: Presence,
        submit: Callable[[Sequence[DueInstants]], None],
        submit_broken: Callable[[BrokenJob], None],
        wake: Callable[[], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options
        self._presence = presence
        self._submit = submit
        self._submit_broken = submit_broken
        self._wake = wake
        # How its two loops fare.
        self.course, self.catch_up_course = Course(), Course()
        self._triggers = TriggerCache(TriggerCacheOptions())
        self._waiting: dict[JobId, WaitingJob] = {}
        self._heap: list[tuple[datetime, JobId, int]] = []
        self._in_tick: set[JobId] = set()
        self._changed: set[JobId] = set()
        self._overdue: list[WaitingJob] = []
        self._overdue_news = asyncio.Event()
        self._news = asyncio.Event()
        self._cut_short = False
        self._read_at = clock.monotonic()

    def __len__(self) -> int:
        """Count the jobs held, those in a tick included."""
        return len(self._waiting) + len(self._in_tick)

    def clear(self) -> None:
        """Hold nothing any more: this process does not tick, or begins to."""
        self._waiting.clear()
        self._heap.clear()
        self._in_tick.clear()
        self._changed.clear()
        self._overdue.clear()
        self._overdue_news.clear()
        self._news.clear()
        self._cut_short = False
        self._read_at = self._clock.monotonic()

    def forget(self, job_id: JobId) -> None:
        """Drop what is held of a changed job, and read it again soon."""
        self._waiting.pop(job_id, None)
        self._changed.add(job_id)
        self._news.set()

    def read_soon(self) -> None:
        """Read everything due again soon: news of changes may have been lost."""
        self._cut_short = True
        self._news.set()

    def next_time(self) -> datetime | None:
        """Tell the earliest due time held."""
        while self._heap:
            due, job_id, revision = self._heap[0]
            waiting = self._waiting.get(job_id)
            if waiting is not None and _matches(waiting.job, due, revision):
                return due
            heapq.heappop(self._heap)
        return None

    def lag(self) -> timedelta:
        """Tell how late the earliest job held here may be; zero if none is due.

        Beyond its horizon the window knows nothing: if it was not read again since, that counts.
        """
        due = self.next_time()
        late = timedelta(0) if due is None else self._clock.now() - due
        return max(late, self._unread(), timedelta(0))

    def _unread(self) -> timedelta:
        """Tell for how long nothing is known of what is due; negative while all is."""
        age = timedelta(seconds=self._clock.monotonic() - self._read_at)
        return age - self._options.horizon

    def take_due(self, now: datetime, *, limit: int) -> list[WaitingJob]:
        """Move the jobs due by ``now`` into a tick, soonest first; those overdue are caught up."""
        taken: list[WaitingJob] = []
        if self._unread() <= timedelta(0):
            self._presence.note()
        cut = self._clock.now() - self._options.overdue_after
        while len(taken) < limit:
            due = self.next_time()
            if due is None or due > now:
                break
            _, job_id, _ = heapq.heappop(self._heap)
            waiting = self._waiting.pop(job_id)
            if due < cut:
                self._fall_behind(waiting)
                continue
            taken.append(waiting)
            self._in_tick.add(job_id)
        return taken

    def put_back(self, jobs: Iterable[WaitingJob]) -> None:
        """Undo ``take_due`` for a tick that was never submitted."""
        for waiting in jobs:
            self._in_tick.discard(waiting.job.id)
            self._hold(waiting)

    def settle(self, *, advanced: Sequence[DueJob], finished: Iterable[JobId]) -> None:
        """Take jobs out of their tick: ``advanced`` wait for their next time, ``finished`` left."""
        for job_id in finished:
            self._in_tick.discard(job_id)
        horizon = self._clock.now() + self._options.horizon
        for job in advanced:
            self._in_tick.discard(job.id)
            if job.id in self._changed or job.next_run_time > horizon:
                continue
            waiting = self._with_trigger(job)
            if waiting is not None:
                self._hold(waiting)
        if self._changed or self._ends_early():
            self._news.set()
        self._wake()

    def refuse(self, job_ids: Iterable[JobId]) -> None:
        """Take jobs out of a tick whose advance was refused, and read them again."""
        for job_id in job_ids:
            self._in_tick.discard(job_id)
            self._changed.add(job_id)
        self._news.set()

    async def run(self) -> None:
        """Read ahead until cancelled; raises what the database raises."""
        pause = self._options.horizon.total_seconds() / 2
        while True:
            await self.read()
            self.course.go_on()
            try:
                async with asyncio.timeout(pause):
                    while True:
                        await self._news.wait()
                        await self.read_changed()
                        if self._ends_early():
                            break
            except TimeoutError:
                continue

    def _ends_early(self) -> bool:
        """Tell whether more is due within the horizon than is held, and there is room again."""
        return self._cut_short and len(self) < self._options.rows_max // 2

    async def read(self) -> None:
        """Read the rows due within the horizon."""
        until = self._clock.now() + self._options.horizon
        limit = self._options.rows_max
        due, broken = await self._unit_of_work.read(
            lambda connection: job_repository.due_jobs(connection, until=until, limit=limit)
        )
        self._cut_short = len(due) + len(broken) >= limit
        self._take_in_all(due, broken)
        self._read_at = self._clock.monotonic()
        self._presence.note()

    async def read_changed(self) -> None:
        """Read the jobs that changed; those in a tick come when it is settled."""
        self._news.clear()
        job_ids = [job_id for job_id in self._changed if job_id not in self._in_tick]
        self._changed.difference_update(job_ids)
        if not job_ids:
            return
        try:
            due, broken = await self._unit_of_work.read(
                lambda connection: job_repository.due_jobs_by_id(connection, job_ids)
            )
        except BaseException:
            self._changed.update(job_ids)
            self._news.set()
            raise
        horizon = self._clock.now() + self._options.horizon
        self._take_in_all([job for job in due if job.next_run_time <= horizon], broken)

    def _take_in_all(self, due: Sequence[DueJob], broken: Sequence[BrokenJob]) -> None:
        """Hold what was read. Nothing is awaited, so no job is left between two places."""
        cut = self._clock.now() - self._options.overdue_after
        for job in due:
            if job.id in self._in_tick or job.id in self._changed:
                continue
            waiting = self._with_trigger(job)
            if waiting is None:
                continue
            if job.next_run_time < cut:
                self._fall_behind(waiting)
            else:
                self._hold(waiting)
        for problem in broken:
            self._submit_broken(problem)
        self._wake()

    def _fall_behind(self, waiting: WaitingJob) -> None:
        """Take a job that is overdue into a tick of its own, away from the scheduler."""
        self._waiting.pop(waiting.job.id, None)
        self._in_tick.add(waiting.job.id)
        self._overdue.append(waiting)
        self._overdue_news.set()

    async def catch_up(self) -> None:
        """Find the instants of overdue jobs, some jobs at a time, until cancelled."""
        while True:
            await self._overdue_news.wait()
            chunk = self._overdue[:_CATCH_UP_CHUNK]
            found = await asyncio.to_thread(_find_some, chunk, self._clock)
            del self._overdue[: len(found)]
            self._submit(found)
            self.catch_up_course.go_on()
            if not self._overdue:
                self._overdue_news.clear()

    def _with_trigger(self, job: DueJob) -> WaitingJob | None:
        """Pair a job with its trigger; one whose schedule is refused is sent to be broken."""
        try:
            trigger = self._triggers.get(job.schedule, anchor=job.anchor)
        except InvalidScheduleError as error:
            self._give_up(job, f"its schedule fails: {error}")
            return None
        except Exception as error:
            log.exception("schedule.failed", job_id=job.id)
            self._give_up(job, f"its schedule fails with {type(error).__name__}")
            return None
        return WaitingJob(job, trigger)

    def _give_up(self, job: DueJob, problem: str) -> None:
        self._waiting.pop(job.id, None)
        self._in_tick.add(job.id)
        self._submit([DueInstants(job=job, fire_times=(), next_run_time=None, problem=problem)])

    def _hold(self, waiting: WaitingJob) -> None:
        job = waiting.job
        held = self._waiting.get(job.id)
        self._waiting[job.id] = waiting
        if held is None or not _matches(held.job, job.next_run_time, job.revision):
            heapq.heappush(self._heap, (job.next_run_time, job.id, job.revision))


def _matches(job: DueJob, due: datetime, revision: int) -> bool:
    return job.next_run_time == due and job.revision == revision


def _find_some(overdue: Sequence[WaitingJob], clock: Clock) -> list[DueInstants]:
    """Find the instants of the first, at least one, and of more as long as there is time."""
    now, until = clock.now(), clock.monotonic() + _CATCH_UP_SECONDS
    found: list[DueInstants] = []
    for waiting in overdue:
        found.append(find_due(waiting, now))
        if clock.monotonic() > until:
            break
    return found


def find_due(waiting: WaitingJob, now: datetime) -> DueInstants:
    """Find one overdue job's instants; a schedule that fails is reported, not raised."""
    try:
        return find_due_instants(waiting.job, waiting.trigger, now=now)
    except Exception as error:
        log.exception("schedule.failed", job_id=waiting.job.id)
        problem = f"its schedule fails with {type(error).__name__}"
        return DueInstants(job=waiting.job, fire_times=(), next_run_time=None, problem=problem)
