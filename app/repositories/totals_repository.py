"""SQL on the totals of ended executions, which the database counts and retention leaves alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.execution import FINAL_STATUSES, ExecutionStatus
from app.domain.history import HistoryFilter
from app.domain.ids import JobId
from app.models.tables import executions, job_totals
from app.repositories.ledger_conditions import OPEN

_ADD_PRUNED = (
    sa.update(job_totals)
    .where(
        job_totals.c.job_id == sa.bindparam("of_job"),
        job_totals.c.status == sa.bindparam("of_status"),
        job_totals.c.reason == sa.bindparam("of_reason"),
        job_totals.c.cause == sa.bindparam("of_cause"),
    )
    .values(pruned=job_totals.c.pruned + sa.bindparam("count"))
)


@dataclass(frozen=True, slots=True)
class TotalKey:
    """What is counted together; ``reason`` is empty for none."""

    job_id: str
    status: str
    reason: str
    cause: str


def count_kept(connection: ReadConnection, wanted: HistoryFilter) -> int:
    """Count a job's executions that match and are in the history, without reading them.

    ``wanted`` names a job and no range in time.
    """
    assert wanted.job_id is not None, "the totals are by job"
    assert not wanted.has_range, "the totals know no times"
    return _count_ended(connection, wanted) + _count_open(connection, wanted)


def lifetime_instants(connection: ReadConnection, job_id: JobId) -> dict[ExecutionStatus, int]:
    """Tell how many due instants and manual runs of a job came to each end, ever."""
    statement = (
        sa.select(job_totals.c.status, sa.func.sum(job_totals.c.instants))
        .where(job_totals.c.job_id == job_id)
        .group_by(job_totals.c.status)
    )
    counted = {status: int(count) for status, count in connection.execute(statement)}
    return {
        status: counted.get(status, 0) for status in ExecutionStatus if status in FINAL_STATUSES
    }


def add_pruned(connection: WriteConnection, removed: Mapping[TotalKey, int]) -> None:
    """Note how many rows are gone from the history."""
    if removed:
        rows = [
            {
                "of_job": key.job_id,
                "of_status": key.status,
                "of_reason": key.reason,
                "of_cause": key.cause,
                "count": count,
            }
            for key, count in removed.items()
        ]
        connection.execute(_ADD_PRUNED, rows)


def jobs_above(
    connection: ReadConnection, *, after: str, rows: int, limit: int
) -> tuple[list["Kept"], str | None]:
    """Find jobs that keep more than ``limit`` ended executions of either kind, by id.

    Looks at about so many ``rows`` of the totals behind the job ``after``; the second value is the
    job to go on behind, None at the end.
    """
    ids = sa.select(job_totals.c.job_id).where(job_totals.c.job_id > after)
    last = connection.execute(
        ids.order_by(job_totals.c.job_id).limit(1).offset(rows - 1)
    ).scalar_one_or_none()
    failed = _sum_of(ExecutionStatus.FAILED, ExecutionStatus.UNKNOWN)
    kept = sa.func.sum(job_totals.c.total - job_totals.c.pruned)
    statement = (
        sa.select(job_totals.c.job_id, kept - failed, failed)
        .where(job_totals.c.job_id > after)
        .group_by(job_totals.c.job_id)
        .having(sa.or_(kept - failed > limit, failed > limit))
        .order_by(job_totals.c.job_id)
    )
    if last is not None:
        statement = statement.where(job_totals.c.job_id <= last)
    found = connection.execute(statement).all()
    return [Kept(JobId(row[0]), int(row[1]), int(row[2])) for row in found], last


@dataclass(frozen=True, slots=True)
class Kept:
    """How many ended executions of a job are in the history; ``failed`` counts unknown too."""

    job_id: JobId
    others: int
    failed: int


def _sum_of(*statuses: ExecutionStatus) -> sa.ColumnElement[int]:
    kept = job_totals.c.total - job_totals.c.pruned
    return sa.func.sum(sa.case((job_totals.c.status.in_(statuses), kept), else_=0))


def _count_ended(connection: ReadConnection, wanted: HistoryFilter) -> int:
    statement = sa.select(sa.func.sum(job_totals.c.total - job_totals.c.pruned)).where(
        job_totals.c.job_id == wanted.job_id
    )
    if wanted.statuses:
        statement = statement.where(job_totals.c.status.in_(sorted(wanted.statuses)))
    if wanted.reasons:
        statement = statement.where(job_totals.c.reason.in_(sorted(wanted.reasons)))
    if wanted.causes:
        statement = statement.where(job_totals.c.cause.in_(sorted(wanted.causes)))
    return int(connection.execute(statement).scalar_one() or 0)


def _count_open(connection: ReadConnection, wanted: HistoryFilter) -> int:
    found = sa.select(sa.func.count()).where(executions.c.job_id == wanted.job_id, OPEN)
    if wanted.statuses:
        found = found.where(executions.c.status.in_(sorted(wanted.statuses)))
    if wanted.reasons:
        found = found.where(executions.c.reason.in_(sorted(wanted.reasons)))
    if wanted.causes:
        found = found.where(executions.c.cause.in_(sorted(wanted.causes)))
    return connection.execute(found).scalar_one()
