"""Claims waiting runs within the limits and starts their attempts.

Fed by the ledger, by manual triggers and by retries (all through ``add``), and by looks at the
database for whatever is not in memory (``intake.py``).
A claim commits the intent of a batch of attempts before any of them is sent. While one claim is
being committed the next batch gathers, so a lone run goes at once and a herd goes in batches.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import Clock
from app.domain.errors import StorageUnansweredError, UnavailableError
from app.domain.execution import ClaimedRun, ExecutionStatus, Reason, WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.engine.attempts import Attempts, Stop
from app.engine.claiming import Claimed, claim_batch
from app.engine.course import Course
from app.engine.intake import Intake, IntakeOptions, tell_broken
from app.engine.leases import LeaseOptions, Leases
from app.engine.ports import Leader
from app.engine.ready_queue import ReadyQueue
from app.engine.recorder import Recorder
from app.engine.tasks import Tasks
from app.repositories import doubt_repository
from app.repositories.host_repository import HostLimits
from app.repositories.run_repository import Claim, Ending

log = structlog.get_logger(__name__)

_WAIT_MAX = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherOptions:
    """How many attempts run at once, and how waiting runs are claimed."""

    # Attempts at once over all jobs; more wait their turn, and their waiting shows as lateness.
    concurrency: int = 200
    # Attempts at once to one host and port, so that one slow target cannot take all slots. This
    # and the next hold over all processes on the database.
    host_concurrency: int = 10
    # Least time between two starts to one host and port; none: as fast as they come.
    host_gap: timedelta = timedelta(0)
    # Runs claimed at once, at most. With all slots in one claim all attempts are one crowd: claimed
    # while none is sent, sent while none is claimed. None: as many as there are slots.
    claim_max: int | None = None
    intake: IntakeOptions = field(default_factory=IntakeOptions)
    leases: LeaseOptions = field(default_factory=LeaseOptions)
    # Wait after a claim that the database refused.
    retry_wait: timedelta = timedelta(milliseconds=500)

    @property
    def host_limits(self) -> HostLimits:
        """Tell what each host may get."""
        return HostLimits(slots=self.host_concurrency, gap=self.host_gap)

    def __post_init__(self) -> None:
        """Check the limits."""
        if self.concurrency < 1 or self.host_concurrency < 1:
            raise ValueError("concurrency and host_concurrency must be at least 1")
        if self.claim_max is not None and self.claim_max < 1:
            raise ValueError("claim_max must be at least 1")


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """An attempt that is being made, until when at most, and how it is told to end."""

    run: ClaimedRun
    task: asyncio.Task[None]
    stop: Stop
    # On the event loop's clock, which a suspended machine stops. A runner ends before it by itself;
    # this is for one that does not.
    deadline: float

    def end(self, reason: Reason) -> None:
        """End it for good, closing its connection."""
        self.stop.reason = reason
        self.task.cancel()

    def cut_off(self) -> None:
        """End it as timed out."""
        log.error("attempt.overran", job_id=self.run.attempt.job_id)
        self.stop.overran = True
        self.task.cancel()


class Dispatcher:
    """Gives runs to attempts; ``run`` does so until cancelled, ``course`` tells how it fares."""

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        leader: Leader,
        clock: Clock,
        options: DispatcherOptions,
        tasks: Tasks,
        attempts: Attempts,
        recorder: Recorder,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._leader = leader
        self._clock = clock
        self._options = options
        self._tasks = tasks
        self._attempts = attempts
        self._recorder = recorder
        self._ready = ReadyQueue(
            host_slots=options.host_concurrency,
            size_max=options.intake.ready_max,
            job_size_max=options.intake.ready_max_per_job,
            host_gap=options.host_gap,
        )
        self._running: dict[ExecutionId, _UnderWay] = {}
        self.leases = Leases(
            unit_of_work=unit_of_work, leader=leader, clock=clock, options=options.leases
        )
        self._sending: set[ExecutionId] = set()
        # Claimed, or not, in a commit that was not confirmed; nothing of them was sent.
        self._doubtful: set[ExecutionId] = set()
        self._went_on_at = clock.monotonic()
        self._claiming = True
        self.course = Course()
        self._claim_lock = asyncio.Lock()
        self._news = asyncio.Event()
        # What fills the memory; its ``survey`` is to run beside ``run``.
        self.intake = Intake(
            unit_of_work=unit_of_work,
            clock=clock,
            options=options.intake,
            ready=self._ready,
            ours=self._ours,
            on_found=self._news.set,
        )

    @property
    def running_count(self) -> int:
        """Count the attempts under way."""
        return len(self._sending)

    def held_up(self) -> timedelta:
        """Tell for how long runs that may start wait for a claim to come to an end; zero: none do.

        By what is in memory: a claim is under way, or slots are free and none is begun.
        """
        has_slots = len(self._sending) < self._options.concurrency
        waits = has_slots and self._ready.may_start(self._clock.now())
        if not self._claiming or not (waits or self._claim_lock.locked()):
            return timedelta(0)
        return timedelta(seconds=self._clock.monotonic() - self._went_on_at)

    def add(self, runs: Iterable[WaitingRun]) -> None:
        """Take in waiting runs; those too far ahead or too many are found later."""
        self.intake.add(runs)
        self._news.set()

    def settled(self, run: ClaimedRun, ending: Ending | None) -> None:
        """Give back a run's job slot once its ending is recorded; a retry waits again."""
        self.leases.let_go(run.attempt.execution_id)
        self._ready.release_job(run.attempt.job_id)
        if (
            ending is not None
            and ending.status is ExecutionStatus.RETRYING
            and ending.next_attempt_at is not None
        ):
            self.add([_again(run, ending)])
        self._news.set()

    def cancel(self, job_ids: Collection[JobId]) -> None:
        """End the attempts of jobs that must make way, closing their connections.

        Their rows say already why no attempt follows (``stop_reason``).
        """
        for under_way in list(self._running.values()):
            if under_way.run.attempt.job_id in job_ids:
                under_way.end(Reason.OVERLAP)

    def cancel_run(self, execution_id: ExecutionId, reason: Reason) -> None:
        """End the attempt of one execution, if this process makes it; its row says why already."""
        under_way = self._running.get(execution_id)
        if under_way is not None:
            under_way.end(reason)

    def look(self) -> None:
        """Look soon for what waits in the database: another process says that something does."""
        self.intake.ask()
        self._news.set()

    def read_again(self) -> None:
        """Read from the database what is not ready yet: its times have changed there."""
        self._ready.drop_later()
        self.intake.read_again()
        self._news.set()

    async def run(self) -> None:
        """Claim and start runs, until cancelled; raises what the database raises on a look."""
        self.intake.look_now()
        while True:
            self._news.clear()
            if self.intake.is_due():
                await self._settle_doubts()
                await self.intake.look()
            async with self._claim_lock:
                took_some = self._claiming and await self._claim_once()
            if took_some:
                continue
            await self._wait()

    async def keep_deadlines(self) -> None:
        """Cut off attempts that have outstayed their deadline, until cancelled.

        One look a second over all of them costs less than a timer for each.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_WAIT_MAX.total_seconds())
            now = loop.time()
            for under_way in list(self._running.values()):
                if under_way.deadline < now and not under_way.stop.overran:
                    under_way.cut_off()

    def hold(self) -> None:
        """Claim no more."""
        self._claiming = False

    async def stop(self, *, grace: timedelta) -> None:
        """Claim no more, let attempts end within ``grace``, then give the rest back."""
        self._claiming = False
        async with self._claim_lock:
            # A claim under way is committed or refused by now; what it took is given back unsent.
            pass
        running = [under_way.task for under_way in self._running.values()]
        if running:
            _, late = await asyncio.wait(running, timeout=grace.total_seconds())
            for task in late:
                task.cancel()
            if late:
                log.warning("attempts.interrupted", count=len(late))
                await asyncio.wait(late)

    async def _wait(self) -> None:
        """Wait for news, for the next retry to come due, or for the next look.

        Never for long: the wall clock, by which retries come due, may step.
        """
        seconds = min(self.intake.seconds_left(), _WAIT_MAX.total_seconds())
        due = self._ready.next_time()
        if due is not None and self._claiming:
            seconds = min(seconds, (due - self._clock.now()).total_seconds())
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _settle_doubts(self) -> None:
        """Let runs claimed in a commit in doubt wait: they must not look claimed."""
        if self._doubtful:
            await self._unit_of_work.write(self._withdraw_doubtful)
            self._doubtful.clear()

    def _ours(self) -> AbstractSet[ExecutionId]:
        """Tell which runs this process claims, makes the attempts of or records."""
        return self._sending | self.leases.held

    async def _claim_once(self) -> bool:
        """Claim what fits into the free slots; tell whether anything was taken."""
        batch = self._ready.take(self._room(), self._clock.now())
        if not batch:
            self._go_on()
            return False
        self._sending.update(run.id for run in batch)
        under_way, asked = self._ready.under_way(batch), self._clock.monotonic()
        try:
            claimed = await self._unit_of_work.write(
                lambda connection: self._claim(connection, batch, under_way)
            )
        except UnavailableError as error:
            self._unclaim(batch)
            self.intake.add(batch)
            if isinstance(error, StorageUnansweredError):
                self._doubtful.update(run.id for run in batch)
            self.course.fail(str(error))
            log.warning("claim.postponed", runs=len(batch), why=str(error))
            await asyncio.sleep(self._options.retry_wait.total_seconds())
            return True
        except BaseException:
            self._unclaim(batch)
            self.intake.leave_out()
            raise
        self._go_on()
        if self._doubtful:
            self.intake.leave_out()
        self._doubtful.clear()
        tell_broken(claimed.broken)
        self._sort_out(batch, claimed)
        for run in claimed.runs:
            self._start(run, since=asked)
        return True

    def _room(self) -> int:
        """Tell how many runs to claim now."""
        free = self._options.concurrency - len(self._sending)
        return free if self._options.claim_max is None else min(free, self._options.claim_max)

    def _go_on(self) -> None:
        self.course.go_on()
        self._went_on_at = self._clock.monotonic()

    def _sort_out(self, batch: list[WaitingRun], claimed: Claimed) -> None:
        """Put back what must wait for its host, and let go of what is not to be had."""
        refusals, now = claimed.admission.refused, self._clock.now()
        refused = {run.id for refusal in refusals for run in refusal.runs}
        self._sending -= refused
        for host in {run.host for run in batch if run.id not in refused}:
            self._ready.granted(host)
        for refusal in refusals:
            self._ready.put_back(refusal, now)
        self._ready.meet(claimed.admission.rivals, me=self._leader.owner, now=now)
        known = refused.union(run.attempt.execution_id for run in claimed.runs)
        gone = [run for run in batch if run.id not in known]
        if gone:
            # It was claimed elsewhere, or waits for a slot of its job that is taken there.
            self.intake.leave_out()
        if 2 * len(gone) > len(batch):
            self.intake.mislead()
        self._unclaim(gone)

    def _claim(
        self, connection: WriteConnection, batch: list[WaitingRun], under_way: Mapping[str, int]
    ) -> Claimed:
        """Commit the intent of a batch of attempts (runs in the writer's thread)."""
        claim = Claim(
            owner=self._leader.owner,
            fence=self._leader.fence,
            now=self._clock.now(),
            lease_margin=self._options.leases.margin,
            lease_span=self._options.leases.span,
        )
        self._withdraw_doubtful(connection)
        return claim_batch(
            connection, batch, claim, under_way=under_way, limits=self._options.host_limits
        )

    def _withdraw_doubtful(self, connection: WriteConnection) -> None:
        if self._doubtful:
            doubt_repository.withdraw_claims(
                connection, self._doubtful, owner=self._leader.owner, fence=self._leader.fence
            )

    def _unclaim(self, runs: Iterable[WaitingRun]) -> None:
        for run in runs:
            self._sending.discard(run.id)
            self._ready.give_back(run)

    def _start(self, run: ClaimedRun, *, since: float) -> None:
        execution_id = run.attempt.execution_id
        self.leases.hold(execution_id, since=since)
        if not self._claiming:
            self._give_back(run, None)
            return
        stop = Stop()
        task = self._tasks.spawn(
            self._make(run, stop),
            name=execution_id,
            then=lambda done: self._check_ended(run, stop, done),
        )
        allowed = run.attempt.timeout + self._options.leases.margin / 2
        deadline = asyncio.get_running_loop().time() + allowed.total_seconds()
        self._running[execution_id] = _UnderWay(run, task, stop, deadline)

    def _check_ended(self, run: ClaimedRun, stop: Stop, done: asyncio.Task[None]) -> None:
        """Return a claimed run whose task ended without an ending: before its first step, say."""
        if done.cancelled() or done.exception() is not None:
            self._give_back(run, stop.reason)

    def _give_back(self, run: ClaimedRun, reason: Reason | None) -> None:
        """Return a claimed run of which nothing was sent."""
        self._released(run)
        self._recorder.put(run, self._attempts.unsent(run, reason))

    async def _make(self, run: ClaimedRun, stop: Stop) -> None:
        ending = await self._attempts.make(run, stop, lambda: self._released(run))
        self._recorder.put(run, ending)

    def _released(self, run: ClaimedRun) -> None:
        self._running.pop(run.attempt.execution_id, None)
        if run.attempt.execution_id not in self._sending:
            return
        self._sending.discard(run.attempt.execution_id)
        self._ready.release_host(run.waiting.host)
        self._news.set()


def _again(run: ClaimedRun, ending: Ending) -> WaitingRun:
    assert ending.next_attempt_at is not None
    return WaitingRun(
        id=run.waiting.id,
        job_id=run.waiting.job_id,
        host=run.waiting.host,
        next_attempt_at=ending.next_attempt_at,
        job_slots=run.waiting.job_slots,
    )
