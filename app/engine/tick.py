"""Decides what each due instant of a tick becomes. Pure: data in, ledger rows out.

An instant found later than its job's grace is a misfire and follows the catch-up policy; the others
start, or follow the overlap policy while earlier executions of the job are not over. Instants that
do not run get rows too, with the reason; more than ``ROWS_MAX`` in a row for one reason share one
stretch row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.clock import to_us
from app.domain.execution import Cause, ExecutionStatus, NewExecution, Reason
from app.domain.ids import ExecutionId, execution_id_for
from app.domain.job import DueJob
from app.domain.policies import CatchUp, OverlapPolicy
from app.domain.record import record
from app.engine.left_out import LeftOut, LeftOutKind
from app.engine.triggers import jitter_delay

# Not-run instants written as rows of their own; longer runs become one stretch.
ROWS_MAX = 10
# Executions of one job that may wait at once, for their first attempt or for the next, whatever
# made them and whatever the overlap policy says (GUARANTEES I16).
QUEUE_MAX = 1000

_VOID_REASONS = {LeftOutKind.GAP: Reason.DST_GAP, LeftOutKind.FOLD: Reason.DST_FOLD}


@record
class Stretch:
    """Consecutive due instants, by their first, last and number."""

    first: datetime
    last: datetime
    count: int


@record
class DueInstants:
    """All due instants of one job that one pass found, and where its schedule goes on.

    ``elided`` are instants older than ``fire_times`` when there were too many to list;
    ``left_out`` are local times up to the last instant that the zone's clock made void.
    ``problem`` is set when the schedule could not be followed; then the job is broken.
    """

    job: DueJob
    fire_times: tuple[datetime, ...]
    next_run_time: datetime | None
    elided: Stretch | None = None
    left_out: tuple[LeftOut, ...] = ()
    problem: str | None = None

    @property
    def last(self) -> datetime:
        """Tell the latest instant this accounts for."""
        return self.fire_times[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a tick is planned, and since when this scheduler has been up."""

    now: datetime
    up_since: datetime


@dataclass(slots=True, kw_only=True)
class JobPlan:
    """The rows one job's due instants become; ``cancel_running`` asks to end what runs.

    ``room`` is how many more of the job's executions may wait.
    """

    rows: list[NewExecution] = field(default_factory=list)
    cancel_running: bool = False
    room: int = QUEUE_MAX

    def queue(self, job: DueJob, instant: datetime, cause: Cause) -> None:
        """Let an instant run."""
        self.rows.append(_queued(job, instant, cause))
        self.room -= 1


def room_to_wait(open_runs: Counter[ExecutionStatus]) -> int:
    """Tell how many more executions of a job may wait beside those in ``open_runs``.

    Those to be retried wait too: a target that is down for hours must not gather more and more.
    """
    waiting = open_runs[ExecutionStatus.QUEUED] + open_runs[ExecutionStatus.RETRYING]
    return max(QUEUE_MAX - waiting, 0)


def plan_job(found: DueInstants, open_runs: Counter[ExecutionStatus], moment: Moment) -> JobPlan:
    """Decide every instant of ``found``; ``open_runs`` counts the job's executions not yet over."""
    plan = JobPlan(room=room_to_wait(open_runs))
    late, on_time = _split(found, moment)
    if late or found.elided is not None:
        _plan_misfires(plan, found, late, moment=moment, superseded=bool(on_time))
    _plan_starts(plan, found.job, on_time, open_runs)
    if found.left_out:
        plan.rows += plan_left_out(found.job, found.left_out)
    return plan


def plan_left_out(job: DueJob, left_out: Sequence[LeftOut]) -> list[NewExecution]:
    """Make the rows of local times that a jump of the zone's clock made void."""
    plan = JobPlan()
    for kind, reason in _VOID_REASONS.items():
        instants = [void.at for void in left_out if void.kind is kind]
        _add_not_run(plan, job, instants, ExecutionStatus.SKIPPED, reason)
    return plan.rows


def _split(found: DueInstants, moment: Moment) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    grace = found.job.policy.misfire_grace
    if grace is None:
        return (), found.fire_times
    cut = moment.now - grace
    late = tuple(instant for instant in found.fire_times if instant < cut)
    return late, found.fire_times[len(late) :]


def _plan_misfires(
    plan: JobPlan,
    found: DueInstants,
    late: tuple[datetime, ...],
    *,
    moment: Moment,
    superseded: bool,
) -> None:
    """Plan what was found too late. ``superseded``: a later instant of the same pass still runs."""
    job, policy = found.job, found.job.policy
    window = policy.catch_up_window
    oldest = None if window is None else moment.now - window
    eligible = [instant for instant in late if oldest is None or instant >= oldest]
    match policy.catch_up:
        case CatchUp.NONE:
            runs: list[datetime] = []
        case CatchUp.LATEST:
            runs = [] if superseded else eligible[-1:]
        case CatchUp.ALL:
            runs = eligible[-policy.catch_up_max_runs :] if policy.catch_up_max_runs else []
    dropped = late[: len(late) - len(runs)]
    _add_elided(plan, found, moment)
    if policy.catch_up is CatchUp.LATEST and (runs or superseded):
        _add_not_run(plan, job, dropped, ExecutionStatus.SKIPPED, Reason.COALESCED)
    elif policy.catch_up is CatchUp.ALL:
        _add_not_run(plan, job, dropped, ExecutionStatus.MISSED, Reason.LIMIT)
    else:
        _add_missed(plan, job, dropped, moment)
    _queue_catch_ups(plan, job, runs)


def _queue_catch_ups(plan: JobPlan, job: DueJob, instants: Sequence[datetime]) -> None:
    """Queue what is made up for, as far as there is room: the newest instants get it."""
    over = max(len(instants) - plan.room, 0)
    _add_not_run(plan, job, instants[:over], ExecutionStatus.SKIPPED, Reason.QUEUE_FULL)
    for instant in instants[over:]:
        plan.queue(job, instant, Cause.CATCH_UP)


def _add_elided(plan: JobPlan, found: DueInstants, moment: Moment) -> None:
    """Account for the instants that were too many to list; they are older than all others."""
    elided, policy = found.elided, found.job.policy
    if elided is None:
        return
    if policy.catch_up is CatchUp.LATEST:
        status, reason = ExecutionStatus.SKIPPED, Reason.COALESCED
    elif policy.catch_up is CatchUp.ALL:
        status, reason = ExecutionStatus.MISSED, Reason.LIMIT
    else:
        status, reason = ExecutionStatus.MISSED, _absence(elided.first, moment)
    plan.rows.append(_stretch(found.job, elided, status, reason))


def _add_missed(plan: JobPlan, job: DueJob, instants: Sequence[datetime], moment: Moment) -> None:
    """Add instants that nothing makes up for, told apart by whether the scheduler was up."""
    down = [i for i in instants if _absence(i, moment) is Reason.SCHEDULER_DOWN]
    _add_not_run(plan, job, down, ExecutionStatus.MISSED, Reason.SCHEDULER_DOWN)
    _add_not_run(plan, job, instants[len(down) :], ExecutionStatus.MISSED, Reason.TOO_LATE)


def _absence(instant: datetime, moment: Moment) -> Reason:
    return Reason.SCHEDULER_DOWN if instant < moment.up_since else Reason.TOO_LATE


def _plan_starts(
    plan: JobPlan,
    job: DueJob,
    instants: Sequence[datetime],
    open_runs: Counter[ExecutionStatus],
) -> None:
    """Queue what is on time, as far as the overlap policy lets it."""
    waiting = open_runs[ExecutionStatus.QUEUED]
    active = open_runs.total()
    refused: list[datetime] = []
    reason = Reason.OVERLAP
    for instant in instants:
        if active >= job.policy.max_instances:
            verdict = _overlap_verdict(job.policy.overlap, waiting=waiting, room=plan.room)
            if verdict is not None:
                reason = verdict
                refused.append(instant)
                continue
            plan.cancel_running |= job.policy.overlap is OverlapPolicy.CANCEL_RUNNING
        plan.queue(job, instant, Cause.SCHEDULE)
        waiting += 1
        active += 1
    if refused:
        _add_not_run(plan, job, refused, ExecutionStatus.SKIPPED, reason)


def _overlap_verdict(policy: OverlapPolicy, *, waiting: int, room: int) -> Reason | None:
    """Say why an instant is not queued while its job's slots are taken; None: it is queued.

    ``allow`` lets runs go beside each other, not pile up without end behind a host that hangs.
    """
    match policy:
        case OverlapPolicy.SKIP:
            return Reason.OVERLAP
        case OverlapPolicy.QUEUE_ONE | OverlapPolicy.CANCEL_RUNNING:
            return Reason.OVERLAP if waiting >= 1 else None
        case OverlapPolicy.QUEUE_ALL | OverlapPolicy.ALLOW:
            return None if room > 0 else Reason.QUEUE_FULL


def _queued(job: DueJob, instant: datetime, cause: Cause) -> NewExecution:
    start = instant
    if job.schedule.jitter:
        start += jitter_delay(job.schedule, job.id, instant)
    return NewExecution(
        id=_id(job, instant),
        job_id=job.id,
        job_revision=job.revision,
        clock_epoch=job.clock_epoch,
        cause=cause,
        scheduled_for=instant,
        status=ExecutionStatus.QUEUED,
        next_attempt_at=start,
        exclusive=job.policy.max_instances == 1 and job.policy.overlap is not OverlapPolicy.ALLOW,
    )


def _add_not_run(
    plan: JobPlan,
    job: DueJob,
    instants: Sequence[datetime],
    status: ExecutionStatus,
    reason: Reason,
) -> None:
    if len(instants) > ROWS_MAX:
        stretch = Stretch(first=instants[0], last=instants[-1], count=len(instants))
        plan.rows.append(_stretch(job, stretch, status, reason))
        return
    plan.rows += [
        _stretch(job, Stretch(first=instant, last=instant, count=1), status, reason)
        for instant in instants
    ]


def _stretch(
    job: DueJob, stretch: Stretch, status: ExecutionStatus, reason: Reason
) -> NewExecution:
    return NewExecution(
        id=_id(job, stretch.first),
        job_id=job.id,
        job_revision=job.revision,
        clock_epoch=job.clock_epoch,
        cause=Cause.SCHEDULE,
        scheduled_for=stretch.first,
        status=status,
        reason=reason,
        until=stretch.last if stretch.count > 1 else None,
        instant_count=stretch.count,
    )


def _id(job: DueJob, instant: datetime) -> ExecutionId:
    return execution_id_for(job.id, clock_epoch=job.clock_epoch, scheduled_for_us=to_us(instant))
