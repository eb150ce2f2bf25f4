"""SQL on the totals of ended executions, which the database counts and retention leaves alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.execution import FINAL_STATUSES, ExecutionStatus
from app.domain.history import HistoryFilter
from app.domain.ids import JobId
from app.models.tables import executions, job_totals
from app.repositories.batch import Batch, parameters
from app.repositories.ledger_conditions import OPEN

_GONE = Batch(text=("job_id", "status", "reason", "cause"), integers=("rows",))
_ADD_PRUNED = (
    sa.update(job_totals)
    .where(
        _GONE.joins(job_totals.c.job_id, "job_id"),
        *(job_totals.c[name] == _GONE[name] for name in ("status", "reason", "cause")),
    )
    .values(pruned=job_totals.c.pruned + _GONE["rows"])
)
_LIFETIME = (
    sa.select(job_totals.c.status, sa.func.sum(job_totals.c.instants))
    .where(job_totals.c.job_id == sa.bindparam("of_job"))
    .group_by(job_totals.c.status)
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
    found = connection.execute(_LIFETIME, {"of_job": job_id})
    counted = {status: int(count) for status, count in found}
    return {
        status: counted.get(status, 0) for status in ExecutionStatus if status in FINAL_STATUSES
    }


def add_pruned(connection: WriteConnection, removed: Mapping[TotalKey, int]) -> None:
    """Note how many rows are gone from the history."""
    if removed:
        rows = [
            (key.job_id, key.status, key.reason, key.cause, count)
            for key, count in sorted(removed.items(), key=lambda item: item[0].job_id)
        ]
        connection.execute(_ADD_PRUNED, parameters(rows))


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
    given = _given(wanted)
    found = connection.execute(_ended(*given), {"of_job": wanted.job_id, **given})
    return int(found.scalar_one() or 0)


def _count_open(connection: ReadConnection, wanted: HistoryFilter) -> int:
    given = _given(wanted)
    found = connection.execute(_open(*given), {"of_job": wanted.job_id, **given})
    return int(found.scalar_one())


def _given(wanted: HistoryFilter) -> dict[str, list[str]]:
    """Tell what a filter asks for, by the columns that it is about."""
    words: dict[str, frozenset[Any]] = {
        "status": wanted.statuses,
        "reason": wanted.reasons,
        "cause": wanted.causes,
    }
    return {name: sorted(given) for name, given in words.items() if given}


# One statement for each choice of columns: making one costs more than running it.
@lru_cache
def _ended(*columns: str) -> sa.Select[Any]:
    counted = sa.select(sa.func.sum(job_totals.c.total - job_totals.c.pruned))
    return counted.where(
        job_totals.c.job_id == sa.bindparam("of_job"), *_among(job_totals, columns)
    )


@lru_cache
def _open(*columns: str) -> sa.Select[Any]:
    of_job = executions.c.job_id == sa.bindparam("of_job")
    return sa.select(sa.func.count()).where(of_job, OPEN, *_among(executions, columns))


def _among(table: sa.Table, columns: Iterable[str]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name].in_(sa.bindparam(name, expanding=True)) for name in columns]
