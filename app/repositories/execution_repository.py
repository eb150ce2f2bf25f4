"""SQL on the ledger: inserting executions, changing many of them, and reading one.

Rows are ordered by birth (``seq``). A stretch is one row that stands for many instants.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import (
    FINAL_STATUSES,
    AttemptOutcome,
    AttemptRecord,
    Cause,
    Execution,
    ExecutionStatus,
    NewExecution,
    Reason,
)
from app.domain.ids import ExecutionId, JobId
from app.models.tables import attempts, executions
from app.repositories.batch import IDS, Batch, Gathered, id_parameters, parameters
from app.repositories.ledger_conditions import DUE, OPEN, RUNNING, WAITING

_NEW = Batch(
    text=("id", "job_id", "cause", "status", "reason"),
    integers=("job_revision", "clock_epoch", "scheduled_us", "until_us", "instant_count",
              "exclusive", "next_attempt_us", "finished_us"),
)  # fmt: skip
_INSERT = sa.insert(executions).from_select(
    [*_NEW.names, "attempts", "retries", "queued_us"],
    sa.select(
        *(_NEW[name] for name in _NEW.names),
        sa.literal_column("0"),
        sa.literal_column("0"),
        sa.bindparam("now_us", type_=sa.BigInteger),
    ).select_from(_NEW.table),
)
_KNOWN = sa.select(executions.c.id).where(IDS.holds(executions.c.id, "id"))
_COUNT_OPEN = Gathered(
    sa.select(executions.c.job_id, executions.c.status, sa.func.count())
    .where(IDS.holds(executions.c.job_id, "id"), OPEN)
    .where(executions.c.stop_reason.is_distinct_from(Reason.JOB_DELETED))
    .group_by(executions.c.job_id, executions.c.status)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledRun:
    """What became of an execution that was to be cancelled: it is, it will be, or it had ended."""

    job_id: JobId
    status: ExecutionStatus
    reason: Reason | None


def insert_executions(
    connection: WriteConnection, rows: Sequence[NewExecution], *, now_us: int
) -> None:
    """Write new ledger rows; a due instant that already has one violates ``executions_due``."""
    if rows:
        values = [_new_values(row, now_us) for row in rows]
        connection.execute(_INSERT, parameters(values, now_us=now_us))


def known_ids(connection: ReadConnection, ids: Sequence[ExecutionId]) -> set[ExecutionId]:
    """Tell which of ``ids`` have a row."""
    return set(connection.execute(_KNOWN, id_parameters(ids)).scalars())


def count_open(
    connection: ReadConnection, job_ids: Sequence[JobId]
) -> dict[JobId, Counter[ExecutionStatus]]:
    """Count the queued, running and retrying executions of jobs, by job.

    What still runs of a deleted job of the same id is left out, and so are jobs without any.
    """
    counts: dict[JobId, Counter[ExecutionStatus]] = {}
    found = _COUNT_OPEN.fetch(connection, id_parameters(job_ids))
    for job_id, status, count in found:
        counts.setdefault(job_id, Counter())[ExecutionStatus(status)] = count
    return counts


def cancel_retrying(
    connection: WriteConnection, job_id: JobId, *, reason: Reason, now_us: int
) -> None:
    """End the executions of a job that wait for their next attempt."""
    connection.execute(
        sa.update(executions)
        .where(executions.c.job_id == job_id, OPEN)
        .where(executions.c.status == ExecutionStatus.RETRYING)
        .values(
            status=ExecutionStatus.CANCELLED,
            reason=reason,
            finished_us=now_us,
            next_attempt_us=None,
        )
    )


def cancel_waiting(
    connection: WriteConnection, job_id: JobId, *, reason: Reason, now_us: int
) -> list[ExecutionId]:
    """End the executions of a job that wait for a worker; return their ids."""
    statement = (
        sa.update(executions)
        .where(executions.c.job_id == job_id, WAITING, OPEN)
        .values(
            status=ExecutionStatus.CANCELLED,
            reason=reason,
            finished_us=now_us,
            next_attempt_us=None,
        )
        .returning(executions.c.id)
    )
    return [ExecutionId(row.id) for row in connection.execute(statement)]


def last_accounted(connection: ReadConnection, job_id: JobId) -> datetime | None:
    """Tell the latest due instant of a job that has a row, in whichever epoch."""
    statement = sa.select(
        sa.func.max(executions.c.scheduled_us), sa.func.max(executions.c.until_us)
    )
    found = connection.execute(statement.where(executions.c.job_id == job_id, DUE)).one()
    known = [us for us in found if us is not None]
    return from_us(max(known)) if known else None


def move_back_waiting(connection: WriteConnection, *, now: datetime, step: timedelta) -> None:
    """Let what waits wait no longer than it would have, had the clock not been set back."""
    connection.execute(
        sa.update(executions)
        .where(WAITING, executions.c.next_attempt_us > to_us(now))
        .values(next_attempt_us=executions.c.next_attempt_us - step // timedelta(microseconds=1))
    )


def stop_running(connection: WriteConnection, job_id: JobId, *, reason: Reason) -> None:
    """Let the attempts of a job that are under way be their executions' last."""
    connection.execute(
        sa.update(executions)
        .where(executions.c.job_id == job_id, RUNNING, OPEN)
        .values(stop_reason=reason)
    )


def cancel_one(
    connection: WriteConnection, execution_id: ExecutionId, *, reason: Reason, now_us: int
) -> CancelledRun | None:
    """Cancel an execution that waits; let the attempt under way be the last of one that runs.

    One that ended stays as it is. Returns what it is then, or None if there is none of this id.
    """
    row = connection.execute(
        sa.select(executions.c.job_id, executions.c.status, executions.c.reason)
        .where(executions.c.id == execution_id)
        .with_for_update()
    ).first()
    if row is None:
        return None
    status, found = ExecutionStatus(row.status), _optional(Reason, row.reason)
    change = sa.update(executions).where(executions.c.id == execution_id)
    if status is ExecutionStatus.RUNNING:
        connection.execute(change.values(stop_reason=reason))
    elif status not in FINAL_STATUSES:
        status, found = ExecutionStatus.CANCELLED, reason
        connection.execute(
            change.values(status=status, reason=reason, finished_us=now_us, next_attempt_us=None)
        )
    return CancelledRun(job_id=JobId(row.job_id), status=status, reason=found)


def has_history(connection: ReadConnection, job_id: JobId) -> bool:
    """Tell whether any execution of this id is kept, be the job deleted or not."""
    statement = sa.select(executions.c.seq).where(executions.c.job_id == job_id).limit(1)
    return connection.execute(statement).first() is not None


def find_execution(connection: ReadConnection, execution_id: ExecutionId) -> Execution | None:
    """Read one execution."""
    statement = sa.select(executions).where(executions.c.id == execution_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else to_execution(row)


def list_attempts(connection: ReadConnection, execution_id: ExecutionId) -> list[AttemptRecord]:
    """Read an execution's attempts in order; the latest lives on the execution's own row."""
    statement = (
        sa.select(attempts)
        .where(attempts.c.execution_id == execution_id)
        .order_by(attempts.c.number)
    )
    found = [_attempt(row) for row in connection.execute(statement).mappings()]
    row = (
        connection.execute(sa.select(executions).where(executions.c.id == execution_id))
        .mappings()
        .first()
    )
    if row is not None and row["attempts"] > len(found):
        found.append(_latest_attempt(row))
    return found


def _new_values(row: NewExecution, now_us: int) -> tuple[object, ...]:
    """Make a row of ``_NEW``."""
    return (
        row.id,
        row.job_id,
        row.cause,
        row.status,
        row.reason,
        row.job_revision,
        row.clock_epoch,
        to_us(row.scheduled_for),
        None if row.until is None else to_us(row.until),
        row.instant_count,
        int(row.exclusive),
        None if row.next_attempt_at is None else to_us(row.next_attempt_at),
        None if row.status is ExecutionStatus.QUEUED else now_us,
    )


def to_execution(row: Any) -> Execution:
    """Read an execution from a row of its table."""
    return Execution(
        sequence=row["seq"],
        id=ExecutionId(row["id"]),
        job_id=JobId(row["job_id"]),
        job_revision=row["job_revision"],
        cause=Cause(row["cause"]),
        status=ExecutionStatus(row["status"]),
        reason=_optional(Reason, row["reason"]),
        scheduled_for=from_us(row["scheduled_us"]),
        scheduled_until=_optional(from_us, row["until_us"]),
        instant_count=row["instant_count"],
        queued_at=from_us(row["queued_us"]),
        started_at=_optional(from_us, row["started_us"]),
        finished_at=_optional(from_us, row["finished_us"]),
        next_attempt_at=_optional(from_us, row["next_attempt_us"]),
        attempts=row["attempts"],
        http_status=row["http_status"],
        response_bytes=row["response_bytes"],
        response_excerpt=row["response_excerpt"],
        error=row["error"],
        replica=_replica(row),
    )


def _attempt(row: Any) -> AttemptRecord:
    return AttemptRecord(
        number=row["number"],
        started_at=from_us(row["started_us"]),
        ended_at=from_us(row["ended_us"]),
        outcome=AttemptOutcome(row["outcome"]),
        reason=_optional(Reason, row["reason"]),
        http_status=row["http_status"],
        response_bytes=row["response_bytes"],
        error=row["error"],
        replica=row["owner"],
    )


def _latest_attempt(row: Any) -> AttemptRecord:
    ended = row["outcome"] is not None
    return AttemptRecord(
        number=row["attempts"],
        started_at=from_us(row["attempt_started_us"]),
        ended_at=_optional(from_us, row["finished_us"]) if ended else None,
        outcome=_optional(AttemptOutcome, row["outcome"]),
        reason=_optional(Reason, row["attempt_reason"]),
        http_status=row["http_status"],
        response_bytes=row["response_bytes"],
        error=row["error"],
        replica=_replica(row),
    )


def _replica(row: Any) -> str | None:
    """Name the process that makes an execution's last attempt, or made it."""
    found: str | None = row["owner"] or row["sent_by"]
    return found


def _optional(convert: Any, value: Any) -> Any:
    return None if value is None else convert(value)
