"""Accounting outside a tick: for instants that are due, or passed unused, when a job changes.

Called by the services inside the transaction of the change, so that an edit, a pause or a deletion
never swallows an instant of the rule that was in force.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import structlog

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.errors import InvalidScheduleError
from app.domain.execution import Cause, ExecutionStatus, NewExecution, Reason, WaitingRun
from app.domain.ids import JobId, execution_id_for
from app.domain.job import DueJob, Job, JobState
from app.domain.policies import job_slots
from app.domain.schedule import Schedule
from app.engine.catch_up import find_due_instants, find_stretch
from app.engine.tick import Moment, Stretch, plan_job, plan_left_out
from app.engine.triggers import ScheduleTrigger, build_trigger
from app.repositories import execution_repository
from app.repositories.definition_codec import host_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSpan:
    """The instants that passed while a job did not run (None: none), and the first one after."""

    passed: Stretch | None
    next_run_time: datetime | None


_NOTHING_PASSED = IdleSpan(passed=None, next_run_time=None)
_IDLE_REASONS = {JobState.PAUSED: Reason.PAUSED, JobState.BROKEN: Reason.BROKEN}


def account_due(connection: WriteConnection, job: Job, *, now: datetime) -> list[WaitingRun]:
    """Write the rows of an active job's instants up to ``now``; return what is queued."""
    definition = job.definition
    if definition is None or job.next_run_time is None:
        return []
    due = DueJob(
        id=job.id,
        revision=job.revision,
        clock_epoch=job.clock_epoch,
        schedule=definition.schedule,
        policy=definition.policy,
        anchor=job.anchor,
        host=host_of(definition.delivery.target.url),
        cursor=job.cursor,
        next_run_time=job.next_run_time,
    )
    trigger = _usable_trigger(job.id, definition.schedule, anchor=job.anchor)
    if trigger is None:
        return []
    if job.next_run_time > now:
        rows = plan_left_out(due, trigger.left_out(job.cursor, now))
        execution_repository.insert_executions(connection, rows, now_us=to_us(now))
        return []
    rows = _plan_due(connection, due, trigger, now=now)
    execution_repository.insert_executions(connection, rows, now_us=to_us(now))
    return [
        WaitingRun(
            id=row.id,
            job_id=job.id,
            host=due.host,
            next_attempt_at=row.next_attempt_at,
            job_slots=job_slots(due.policy),
        )
        for row in rows
        if row.next_attempt_at is not None
    ]


def _plan_due(
    connection: WriteConnection, due: DueJob, trigger: ScheduleTrigger, *, now: datetime
) -> list[NewExecution]:
    found = find_due_instants(due, trigger, now=now)
    open_runs = execution_repository.count_open(connection, [due.id])
    # The service is up: an instant found too late at a change is late, not a downtime's.
    moment = Moment(now=now, up_since=due.next_run_time)
    plan = plan_job(found, open_runs.get(due.id, Counter()), moment)
    # What a change accounts for ends at the change, not at the last instant before it.
    rest = plan_left_out(due, trigger.left_out(found.last, now))
    return [*plan.rows, *rest]


def find_idle(job: Job, *, now: datetime) -> IdleSpan:
    """Find what passed since a job was paused or broke; takes milliseconds of a thread."""
    definition = job.definition
    if definition is None or job.state not in _IDLE_REASONS:
        return _NOTHING_PASSED
    trigger = _usable_trigger(job.id, definition.schedule, anchor=job.anchor)
    if trigger is None:
        return _NOTHING_PASSED
    passed = find_stretch(trigger, after=job.cursor, until=now)
    return IdleSpan(passed=passed, next_run_time=trigger.next_after(now))


def account_idle(connection: WriteConnection, job: Job, span: IdleSpan, *, now: datetime) -> None:
    """Write the row that stands for the instants that passed while a job was paused or broken."""
    passed = span.passed
    if passed is None:
        return
    row = NewExecution(
        id=execution_id_for(
            job.id, clock_epoch=job.clock_epoch, scheduled_for_us=to_us(passed.first)
        ),
        job_id=job.id,
        job_revision=job.revision,
        clock_epoch=job.clock_epoch,
        cause=Cause.SCHEDULE,
        scheduled_for=passed.first,
        status=ExecutionStatus.SKIPPED,
        reason=_IDLE_REASONS[job.state],
        until=passed.last if passed.count > 1 else None,
        instant_count=passed.count,
    )
    execution_repository.insert_executions(connection, [row], now_us=to_us(now))


def _usable_trigger(
    job_id: JobId, schedule: Schedule, *, anchor: datetime
) -> ScheduleTrigger | None:
    """Build the trigger of the rule in force; one that fails now must not refuse a change."""
    try:
        return build_trigger(schedule, anchor=anchor)
    except InvalidScheduleError as error:
        log.warning("accounting.impossible", job_id=job_id, why=str(error))
        return None
