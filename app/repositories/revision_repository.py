"""SQL on a job's past: which revision answered for an instant, and what the ledger says of it.

Read-only. Each statement goes down one index and reads a bounded number of rows, but for the
revisions of one job, which are read newest first until one fits.
"""

import contextlib
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import Cause, ExecutionStatus
from app.domain.ids import ExecutionId, JobId
from app.domain.job import Change, JobState
from app.domain.revision import LedgerEntry, Revision, Standing
from app.models.tables import executions, job_revisions, jobs
from app.repositories.definition_codec import (
    UnreadableDefinitionError,
    load_policy,
    load_schedule,
)
from app.repositories.execution_repository import find_execution
from app.repositories.ledger_conditions import DUE, OPEN, RUNNING

# Rows of a job looked back through for what was in the way of one.
_LOOK_BACK = 2000
# Rows looked forward through for what made up for one.
_LOOK_AHEAD = 50
# Rows of all jobs looked at for what else ran about a time.
_ABOUT = 5000
# Attempts counted for the limits on what runs at once; no limit is higher than it makes sense.
_RUNNING_MAX = 5000
_NOT_RUN = (ExecutionStatus.SKIPPED, ExecutionStatus.MISSED)

_next = job_revisions.alias("next_one")
_REVISION = sa.select(
    job_revisions.c.revision,
    job_revisions.c.change,
    job_revisions.c.changed_us,
    job_revisions.c.actor,
    job_revisions.c.state,
    job_revisions.c.schedule,
    job_revisions.c.policy,
    job_revisions.c.anchor_us,
    job_revisions.c.clock_epoch,
    job_revisions.c.since_us,
    _next.c.before_us.label("until_us"),
).outerjoin_from(
    job_revisions,
    _next,
    sa.and_(
        _next.c.job_id == job_revisions.c.job_id,
        _next.c.revision == job_revisions.c.revision + 1,
    ),
)


def find_standing(connection: ReadConnection, job_id: JobId) -> Standing | None:
    """Read where a job stands, be it deleted or not; None if there never was one."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().first()
    if row is None:
        return None
    return Standing(
        id=JobId(row["id"]),
        revision=row["revision"],
        state=JobState(row["state"]),
        state_reason=row["state_reason"],
        cursor=from_us(row["cursor_us"]),
        pruned_until=None if row["pruned_us"] is None else from_us(row["pruned_us"]),
    )


def find_revision(connection: ReadConnection, job_id: JobId, number: int) -> Revision | None:
    """Read one revision of a job."""
    return _first(connection, job_id, job_revisions.c.revision == number, newest=True)


def revisions_before(
    connection: ReadConnection, job_id: JobId, instant: datetime, *, limit: int
) -> list[Revision]:
    """Read the newest revisions whose time had begun before an instant, newest first."""
    statement = (
        _REVISION.where(job_revisions.c.job_id == job_id)
        .where(job_revisions.c.since_us < to_us(instant))
        .order_by(job_revisions.c.revision.desc())
        .limit(limit)
    )
    return [_revision(row) for row in connection.execute(statement)]


def last_change(
    connection: ReadConnection, job_id: JobId, *, upto: int, changes: Collection[Change]
) -> Revision | None:
    """Read the newest revision up to a number that came of one of some changes."""
    condition = job_revisions.c.revision <= upto
    return _first(
        connection, job_id, condition, job_revisions.c.change.in_(list(changes)), newest=True
    )


def first_of_state(
    connection: ReadConnection, job_id: JobId, *, after: int, state: JobState
) -> Revision | None:
    """Read the first revision after a number in which a job was in a state."""
    condition = job_revisions.c.revision > after
    return _first(connection, job_id, condition, job_revisions.c.state == state, newest=False)


def first_of_other_state(
    connection: ReadConnection, job_id: JobId, *, after: int, state: JobState
) -> Revision | None:
    """Read the first revision after a number in which a job was in another state."""
    condition = job_revisions.c.revision > after
    return _first(connection, job_id, condition, job_revisions.c.state != state, newest=False)


def first_of_other_schedule(
    connection: ReadConnection, job_id: JobId, *, after: int
) -> Revision | None:
    """Read the first revision after a number whose schedule is another than that number's."""
    stored = (
        sa.select(job_revisions.c.schedule)
        .where(job_revisions.c.job_id == job_id, job_revisions.c.revision == after)
        .scalar_subquery()
    )
    condition = job_revisions.c.revision > after
    return _first(connection, job_id, condition, job_revisions.c.schedule != stored, newest=False)


def first_revision(connection: ReadConnection, job_id: JobId) -> Revision | None:
    """Read a job's first revision."""
    return _first(connection, job_id, job_revisions.c.revision >= 1, newest=False)


def due_entries(
    connection: ReadConnection,
    job_id: JobId,
    epochs: Collection[int],
    *,
    begin: datetime,
    end: datetime,
) -> list[LedgerEntry]:
    """Read a job's first due row from one instant to before another; of two, the newer one.

    The span is short: a job has at most one row a second in it, in each epoch.
    """
    statement = (
        _entries()
        .where(executions.c.job_id == job_id, executions.c.clock_epoch.in_(sorted(epochs)), DUE)
        .where(executions.c.scheduled_us >= to_us(begin), executions.c.scheduled_us < to_us(end))
    )
    rows = connection.execute(statement).all()
    first = sorted(rows, key=lambda row: (row.scheduled_us, -row.seq))[:1]
    return [_entry(connection, row) for row in first]


def stretches_over(
    connection: ReadConnection,
    job_id: JobId,
    epochs: Collection[int],
    *,
    begin: datetime,
    end: datetime,
) -> list[LedgerEntry]:
    """Read the rows of many instants that reach over a span, those beginning last first."""
    statement = (
        _entries()
        .where(executions.c.job_id == job_id, executions.c.clock_epoch.in_(sorted(epochs)))
        .where(executions.c.instant_count > sa.literal_column("1"))
        .where(executions.c.scheduled_us < to_us(end), executions.c.until_us >= to_us(begin))
        .order_by(executions.c.scheduled_us.desc(), executions.c.seq.desc())
        .limit(4)
    )
    return [_entry(connection, row) for row in connection.execute(statement).all()]


def find_in_the_way(connection: ReadConnection, entry: LedgerEntry) -> ExecutionId | None:
    """Find the newest execution that was not over when a row of its job was written.

    None if there is none among the job's rows just before it.
    """
    before = (
        _of_its_epoch(entry)
        .where(executions.c.seq < entry.execution.sequence)
        .order_by(executions.c.seq.desc())
        .limit(_LOOK_BACK)
        .subquery("near_rows")
    )
    open_then = sa.or_(before.c.finished_us.is_(None), before.c.finished_us >= to_us(entry.born_at))
    statement = sa.select(before.c.id).where(before.c.status.not_in(_NOT_RUN), open_then)
    return _first_id(connection, statement.order_by(before.c.seq.desc()))


def find_successor(connection: ReadConnection, entry: LedgerEntry) -> ExecutionId | None:
    """Find the execution that was queued next after a row of its job was, if any was."""
    after = (
        _of_its_epoch(entry)
        .where(executions.c.seq > entry.execution.sequence)
        .order_by(executions.c.seq)
        .limit(_LOOK_BACK)
        .subquery("near_rows")
    )
    statement = sa.select(after.c.id).where(after.c.status.not_in(_NOT_RUN))
    return _first_id(connection, statement.order_by(after.c.seq))


def find_merged_into(connection: ReadConnection, entry: LedgerEntry) -> ExecutionId | None:
    """Find the execution of the next due instant that was queued: it stands for those before it."""
    execution = entry.execution
    last = execution.scheduled_until or execution.scheduled_for
    after = (
        _of_its_epoch(entry)
        .where(DUE, executions.c.scheduled_us > to_us(last))
        .order_by(executions.c.scheduled_us)
        .limit(_LOOK_AHEAD)
        .subquery("near_rows")
    )
    statement = sa.select(after.c.id).where(after.c.status.not_in(_NOT_RUN))
    return _first_id(connection, statement.order_by(after.c.scheduled_us))


def running_of_job(connection: ReadConnection, job_id: JobId) -> list[ExecutionId]:
    """Tell which executions of a job run, oldest first."""
    statement = (
        sa.select(executions.c.id)
        .where(executions.c.job_id == job_id, RUNNING, OPEN)
        .order_by(executions.c.seq)
        .limit(_LOOK_AHEAD)
    )
    return [ExecutionId(row.id) for row in connection.execute(statement)]


def running_by_host(connection: ReadConnection) -> Counter[str]:
    """Count the executions that run, of all jobs, by host and port."""
    running = (
        sa.select(executions.c.job_id, executions.c.job_revision)
        .where(RUNNING)
        .limit(_RUNNING_MAX)
        .subquery("near_rows")
    )
    statement = sa.select(job_revisions.c.host, sa.func.count()).join_from(
        running,
        job_revisions,
        sa.and_(
            job_revisions.c.job_id == running.c.job_id,
            job_revisions.c.revision == running.c.job_revision,
        ),
    )
    found = connection.execute(statement.group_by(job_revisions.c.host))
    return Counter({host: count for host, count in found})  # noqa: C416 - rows are no pairs to mypy


def host_of_revision(connection: ReadConnection, job_id: JobId, number: int) -> str | None:
    """Tell the host and port that a revision of a job calls."""
    return connection.execute(
        sa.select(job_revisions.c.host).where(
            job_revisions.c.job_id == job_id, job_revisions.c.revision == number
        )
    ).scalar()


def others_about(
    connection: ReadConnection, job_id: JobId, *, begin: datetime, end: datetime, limit: int
) -> list[ExecutionId]:
    """Tell which executions of a job that no schedule asked for were wanted in a span.

    Looks at a bounded number of rows of all jobs; in a crowd some may stay unseen.
    """
    about = (
        sa.select(
            executions.c.id, executions.c.job_id, executions.c.cause, executions.c.scheduled_us
        )
        .where(executions.c.scheduled_us >= to_us(begin), executions.c.scheduled_us < to_us(end))
        .order_by(executions.c.scheduled_us, executions.c.seq)
        .limit(_ABOUT)
        .subquery("near_rows")
    )
    statement = (
        sa.select(about.c.id)
        .where(about.c.job_id == job_id)
        .where(about.c.cause.not_in([Cause.SCHEDULE, Cause.CATCH_UP]))
        .order_by(about.c.scheduled_us)
        .limit(limit)
    )
    return [ExecutionId(row.id) for row in connection.execute(statement)]


def _of_its_epoch(entry: LedgerEntry) -> sa.Select[Any]:
    """Select the rows of a row's job that belong to the same clock epoch."""
    return sa.select(
        executions.c.id,
        executions.c.seq,
        executions.c.status,
        executions.c.scheduled_us,
        executions.c.finished_us,
    ).where(
        executions.c.job_id == entry.execution.job_id,
        executions.c.clock_epoch == entry.clock_epoch,
    )


def _first_id(connection: ReadConnection, statement: sa.Select[Any]) -> ExecutionId | None:
    found = connection.execute(statement.limit(1)).scalar()
    return None if found is None else ExecutionId(found)


def _entries() -> sa.Select[Any]:
    return sa.select(
        executions.c.id,
        executions.c.seq,
        executions.c.clock_epoch,
        executions.c.scheduled_us,
        executions.c.queued_us,
        executions.c.retries,
    )


def _entry(connection: ReadConnection, row: Any) -> LedgerEntry:
    execution = find_execution(connection, ExecutionId(row.id))
    assert execution is not None, "the row was read in this snapshot"
    return LedgerEntry(
        execution=execution,
        clock_epoch=row.clock_epoch,
        born_at=from_us(row.queued_us),
        retries=row.retries,
    )


def _first(
    connection: ReadConnection, job_id: JobId, *conditions: sa.ColumnElement[bool], newest: bool
) -> Revision | None:
    order = job_revisions.c.revision.desc() if newest else job_revisions.c.revision
    statement = _REVISION.where(job_revisions.c.job_id == job_id, *conditions)
    row = connection.execute(statement.order_by(order).limit(1)).first()
    return None if row is None else _revision(row)


def _revision(row: Any) -> Revision:
    schedule = policy = None
    with contextlib.suppress(UnreadableDefinitionError):
        schedule = load_schedule(row.schedule)
    with contextlib.suppress(UnreadableDefinitionError):
        policy = load_policy(row.policy)
    return Revision(
        number=row.revision,
        change=Change(row.change),
        changed_at=from_us(row.changed_us),
        actor=row.actor,
        state=JobState(row.state),
        schedule=schedule,
        policy=policy,
        anchor=from_us(row.anchor_us),
        clock_epoch=row.clock_epoch,
        since=from_us(row.since_us),
        until=None if row.until_us is None else from_us(row.until_us),
    )
