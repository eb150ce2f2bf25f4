"""Writes ticks: one transaction for everything that is due, then the news.

Producers hand over due instants and go on. One loop takes all that waits, and in one fenced
transaction drops what was planned on a stale reading, asks ``tick.plan_job`` about the rest,
inserts the execution rows and advances the schedules. A commit that fails is repeated until it
succeeds: the jobs concerned stay out of the window meanwhile, so nothing fires twice and nothing
is forgotten.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.exc import IntegrityError

from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import Clock, to_us
from app.domain.errors import StorageUnansweredError, UnavailableError
from app.domain.execution import ExecutionStatus, NewExecution, Reason, WaitingRun
from app.domain.ids import JobId
from app.domain.job import DueJob
from app.domain.policies import job_slots
from app.engine.backlog import Backlog
from app.engine.course import Course
from app.engine.pacer import Pacer
from app.engine.ports import Leader
from app.engine.presence import Presence
from app.engine.tick import DueInstants, JobPlan, Moment, plan_job
from app.repositories import execution_repository, job_repository
from app.repositories.job_repository import Advance, BrokenJob

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """How much one transaction takes, and how failed ones are repeated."""

    # Jobs advanced in one transaction: about 10 ms on SQLite. More would make claims wait longer
    # for the writer, and with them the first runs of a herd.
    jobs_max: int = 200
    # What is due so little ahead of the clock waits for it; more, and the clock was set back while
    # it waited to be written: it will be due again. As much as the clock's watch puts up with.
    ahead_max: timedelta = timedelta(seconds=5)
    # Wait before a failed commit is repeated, doubling from the first to the second.
    retry_first: timedelta = timedelta(milliseconds=100)
    retry_max: timedelta = timedelta(seconds=5)


@dataclass(slots=True, kw_only=True)
class Committed:
    """What one transaction did."""

    queued: list[WaitingRun] = field(default_factory=list)
    advanced: list[DueJob] = field(default_factory=list)
    finished: list[JobId] = field(default_factory=list)
    refused: list[JobId] = field(default_factory=list)
    broken: list[BrokenJob] = field(default_factory=list)
    to_cancel: list[JobId] = field(default_factory=list)
    not_run: int = 0
    # An earlier try was not confirmed: rows may be there that no transaction told of.
    in_doubt: bool = False


class Ledger:
    """Takes due instants with ``submit``; ``run`` writes them.

    ``on_commit`` hears of each transaction after it is durable; ``course`` tells how it fares.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        leader: Leader,
        clock: Clock,
        options: LedgerOptions,
        pacer: Pacer,
        presence: Presence,
        on_commit: Callable[[Committed], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._leader = leader
        self._clock = clock
        self._options = options
        self._pacer = pacer
        self._presence = presence
        self._on_commit = on_commit
        self.course = Course()
        self._up_since = clock.now()
        self._pending = Backlog()
        self._writing: list[DueInstants] = []
        self._broken: dict[JobId, BrokenJob] = {}
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        """Begin anew, as the process that leads from now on; what was accepted before is void."""
        self._up_since = self._clock.now()
        self._presence.begin()
        self._pending.clear()
        self._writing = []
        self._broken.clear()
        self._news.clear()
        self._idle.set()

    def submit(self, found: Sequence[DueInstants]) -> None:
        """Accept due instants; bounded by what the window holds, since their jobs left it."""
        self._pending.add(found)
        self._idle.clear()
        self._news.set()

    def lag(self) -> timedelta:
        """Tell how late the oldest instants are that wait to be written; zero if none do."""
        oldest = self._pending.oldest()
        times = [found.job.next_run_time for found in self._writing]
        if oldest is not None:
            times.append(oldest)
        return max(self._clock.now() - min(times), timedelta(0)) if times else timedelta(0)

    def submit_broken(self, broken: BrokenJob) -> None:
        """Accept a job that cannot be read, to be taken out of the schedule with the reason."""
        self._broken[broken.id] = broken
        self._idle.clear()
        self._news.set()

    async def drained(self) -> None:
        """Wait until everything accepted is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write what is submitted, as it comes, until cancelled."""
        while True:
            await self._news.wait()
            batch, broken = self._pending.take(self._options.jobs_max), self._broken
            self._writing, self._broken = batch, {}
            try:
                await self._write(batch, list(broken.values()))
            except BaseException:
                self._pending.put_back(batch)
                self._broken = {**broken, **self._broken}
                raise
            finally:
                self._writing = []
            self.course.go_on()
            if not self._pending and not self._broken:
                self._news.clear()
                self._idle.set()

    async def _write(self, batch: Sequence[DueInstants], broken: Sequence[BrokenJob]) -> None:
        wait, free_at = self._options.retry_first, self._pacer.free_at
        in_doubt = False
        self._presence.note()
        while True:
            # What a refused commit gave places to starts where it would have.
            self._pacer.free_at = free_at
            moment = Moment(now=self._clock.now(), up_since=self._up_since)
            try:
                committed = await self._unit_of_work.write(
                    partial(self._commit, batch=batch, broken=broken, moment=moment)
                )
                break
            except UnavailableError as error:
                in_doubt |= isinstance(error, StorageUnansweredError)
                self._presence.fail()
                self.course.fail(str(error))
                log.warning("tick.postponed", jobs=len(batch), why=str(error))
            await asyncio.sleep(wait.total_seconds())
            wait = min(wait * 2, self._options.retry_max)
        self._presence.recover()
        log.debug(
            "tick.committed",
            queued=len(committed.queued),
            not_run=committed.not_run,
            refused=len(committed.refused),
        )
        for job in committed.broken:
            log.error("job.broken", job_id=job.id, problem=job.problem)
        committed.in_doubt = in_doubt
        self._on_commit(committed)

    def _commit(
        self,
        connection: WriteConnection,
        *,
        batch: Sequence[DueInstants],
        broken: Sequence[BrokenJob],
        moment: Moment,
    ) -> Committed:
        """Do one tick's transaction (runs in the writer's thread)."""
        self._leader.guard(connection)
        committed = Committed()
        until = moment.now + self._options.ahead_max
        current = _still_current(connection, batch, committed, until=until)
        usable = [found for found in current if found.problem is None]
        open_runs = execution_repository.count_open(connection, [found.job.id for found in usable])
        rows: list[NewExecution] = []
        advances: list[Advance] = []
        for found in usable:
            plan = _plan(found, open_runs.get(found.job.id, Counter()), moment)
            if plan is None:
                _break(connection, _unplannable(found), committed, now=moment.now)
                continue
            plan.rows = self._pacer.place(plan.rows, now=moment.now)
            rows += plan.rows
            advances.append(_advance(found))
            _note(committed, found, plan)
            if plan.cancel_running:
                _make_way(connection, found.job.id, committed, now_us=to_us(moment.now))
        _insert(connection, rows, now_us=to_us(moment.now))
        job_repository.advance_jobs(connection, advances)
        for found in current:
            if found.problem is not None:
                _break(connection, _broken_job(found), committed, now=moment.now)
        for job in broken:
            _break(connection, job, committed, now=moment.now)
        return committed


def _plan(
    found: DueInstants, open_runs: Counter[ExecutionStatus], moment: Moment
) -> JobPlan | None:
    """Plan one job; None if that fails, so that no job's tick hangs on another's definition."""
    try:
        return plan_job(found, open_runs, moment)
    except Exception:
        log.exception("plan.failed", job_id=found.job.id)
        return None


def _make_way(
    connection: WriteConnection, job_id: JobId, committed: Committed, *, now_us: int
) -> None:
    """End what a job has begun: attempts under way are its last, retries to come are cancelled."""
    execution_repository.stop_running(connection, job_id, reason=Reason.OVERLAP)
    execution_repository.cancel_retrying(connection, job_id, reason=Reason.OVERLAP, now_us=now_us)
    committed.to_cancel.append(job_id)


def _still_current(
    connection: WriteConnection,
    batch: Sequence[DueInstants],
    committed: Committed,
    *,
    until: datetime,
) -> list[DueInstants]:
    """Keep what was found on the present revision and next run time of its job, due ``until``."""
    stored = job_repository.current_ticks(connection, [found.job.id for found in batch])
    current: list[DueInstants] = []
    for found in batch:
        expected = (found.job.revision, to_us(found.job.next_run_time))
        is_due = found.problem is not None or found.last <= until
        if stored.get(found.job.id) == expected and is_due:
            current.append(found)
        else:
            committed.refused.append(found.job.id)
    return current


def _note(committed: Committed, found: DueInstants, plan: JobPlan) -> None:
    """Remember what the rest of the pipeline must hear of one job's plan."""
    job = found.job
    slots = job_slots(job.policy)
    for row in plan.rows:
        if row.status is not ExecutionStatus.QUEUED or row.next_attempt_at is None:
            committed.not_run += row.instant_count
            continue
        committed.queued.append(
            WaitingRun(
                id=row.id,
                job_id=job.id,
                host=job.host,
                next_attempt_at=row.next_attempt_at,
                job_slots=slots,
            )
        )
    if found.next_run_time is None:
        committed.finished.append(job.id)
    else:
        advanced = replace(job, cursor=found.last, next_run_time=found.next_run_time)
        committed.advanced.append(advanced)


def _advance(found: DueInstants) -> Advance:
    return Advance(
        job_id=found.job.id,
        revision=found.job.revision,
        was=found.job.next_run_time,
        accounted_until=found.last,
        next_run_time=found.next_run_time,
    )


def _insert(connection: WriteConnection, rows: Sequence[NewExecution], *, now_us: int) -> None:
    """Insert rows; after a step back of the clock some instants have theirs already."""
    try:
        with connection.begin_nested():
            execution_repository.insert_executions(connection, rows, now_us=now_us)
    except IntegrityError:
        known = execution_repository.known_ids(connection, [row.id for row in rows])
        log.warning("tick.instants_known", count=len(known))
        fresh = [row for row in rows if row.id not in known]
        execution_repository.insert_executions(connection, fresh, now_us=now_us)


def _broken_job(found: DueInstants) -> BrokenJob:
    return BrokenJob(id=found.job.id, revision=found.job.revision, problem=str(found.problem))


def _unplannable(found: DueInstants) -> BrokenJob:
    problem = "its due instants cannot be planned; the log has the details"
    return BrokenJob(id=found.job.id, revision=found.job.revision, problem=problem)


def _break(
    connection: WriteConnection, broken: BrokenJob, committed: Committed, *, now: datetime
) -> None:
    job_repository.mark_broken(connection, broken, now=now)
    committed.broken.append(broken)
    committed.finished.append(broken.id)
