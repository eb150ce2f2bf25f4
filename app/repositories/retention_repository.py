"""SQL that finds and removes ended executions, some at a time, in the order of their birth.

What is counted about them stays: totals note how many rows are gone, and each job notes up to which
due instant rows may be missing, so that a proof of the ledger does not ask for them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import to_us
from app.domain.execution import FINAL_STATUSES, Cause, ExecutionStatus
from app.domain.ids import JobId
from app.models.tables import attempts, executions, jobs
from app.repositories import totals_repository
from app.repositories.batch import Batch, parameters
from app.repositories.ledger_conditions import NOT_COMPLETED, literal_status
from app.repositories.totals_repository import TotalKey

# Kept longer than the others: somebody may have to look into them.
FAILED_STATUSES = frozenset({ExecutionStatus.FAILED, ExecutionStatus.UNKNOWN})
OTHER_STATUSES = FINAL_STATUSES - FAILED_STATUSES

_DUE_CAUSES = frozenset({Cause.SCHEDULE, Cause.CATCH_UP})
_ENTRY = (
    executions.c.seq,
    executions.c.id,
    executions.c.job_id,
    executions.c.status,
    executions.c.reason,
    executions.c.cause,
    executions.c.scheduled_us,
    executions.c.until_us,
    executions.c.queued_us,
    executions.c.finished_us,
)
_GONE = Batch(text=("id",), integers=("seq",))
_DELETE_ATTEMPTS = sa.delete(attempts).where(_GONE.holds(attempts.c.execution_id, "id"))
_DELETE_EXECUTIONS = sa.delete(executions).where(_GONE.holds(executions.c.seq, "seq"))
_LATEST = Batch(text=("job_id",), integers=("instant_us",))
_RAISE_PRUNED = (
    sa.update(jobs)
    .where(
        _LATEST.joins(jobs.c.id, "job_id"),
        sa.or_(jobs.c.pruned_us.is_(None), jobs.c.pruned_us < _LATEST["instant_us"]),
    )
    .values(pruned_us=_LATEST["instant_us"])
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """Executions to remove: those of ``statuses`` that ended before ``ended_before``.

    Of one job, or of all; ``statuses`` is one of the two groups above, or one of their members.
    """

    statuses: frozenset[ExecutionStatus]
    ended_before: datetime
    job_id: JobId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look at some rows found: those to remove, and the last one seen.

    ``done``: whatever follows was born too late, or nothing does.
    """

    entries: list[Any]
    last: int
    done: bool


def look_for(connection: ReadConnection, surplus: Surplus, *, after: int, rows: int) -> Looked:
    """Look at the next ``rows`` behind the sequence ``after`` for some that may be removed."""
    ended_before = to_us(surplus.ended_before)
    statement = sa.select(*_ENTRY).where(executions.c.seq > after, *_along(surplus))
    seen = connection.execute(statement.order_by(executions.c.seq).limit(rows)).all()
    entries = [
        row for row in seen if row.status in surplus.statuses and row.finished_us < ended_before
    ]
    # Ended after it was born: what was born too late cannot have ended early enough.
    is_past = len(seen) < rows or all(row.queued_us >= ended_before for row in seen)
    return Looked(entries=entries, last=seen[-1].seq if seen else after, done=is_past)


def remove(connection: WriteConnection, entries: Sequence[Any]) -> None:
    """Remove ended executions with their attempts, and note that they are gone."""
    gone = parameters([(row.id, row.seq) for row in entries])
    connection.execute(_DELETE_ATTEMPTS, gone)
    connection.execute(_DELETE_EXECUTIONS, gone)
    _raise_pruned(connection, entries)
    totals_repository.add_pruned(connection, Counter(map(_total_key, entries)))


def _along(surplus: Surplus) -> Collection[sa.ColumnElement[bool]]:
    """Choose the index: a job's rows, or the rows of one status, or all rows."""
    if surplus.job_id is not None:
        return (executions.c.job_id == surplus.job_id,)
    if len(surplus.statuses) == 1 and ExecutionStatus.COMPLETED not in surplus.statuses:
        (status,) = surplus.statuses
        return (NOT_COMPLETED, executions.c.status == literal_status(status))
    return ()


def _raise_pruned(connection: WriteConnection, entries: Sequence[Any]) -> None:
    latest: dict[str, int] = {}
    for row in entries:
        if row.cause in _DUE_CAUSES:
            instant_us = row.scheduled_us if row.until_us is None else row.until_us
            latest[row.job_id] = max(instant_us, latest.get(row.job_id, instant_us))
    if latest:
        connection.execute(_RAISE_PRUNED, parameters(sorted(latest.items())))


def _total_key(row: Any) -> TotalKey:
    return TotalKey(row.job_id, row.status, row.reason or "", row.cause)
