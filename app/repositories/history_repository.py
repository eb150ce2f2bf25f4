"""SQL that reads history in pages, whatever the filter, without ever reading all of it.

A filter is answered by one walk or several, each along an index that gives its order: a job's rows
by birth, all rows by birth, one status that is not ``completed`` by birth, all rows by due instant,
or the rows that are open. What an index cannot tell is looked up in each row the walk comes past;
of these a page examines a bounded number and then says how far it came.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import Cause, Execution, ExecutionStatus, Reason
from app.domain.history import (
    OPEN_STATUSES,
    HistoryCount,
    HistoryFilter,
    HistorySlice,
    Position,
)
from app.domain.ids import JobId
from app.models.tables import executions
from app.repositories.ledger_conditions import NOT_COMPLETED, OPEN, literal_status, status_in

# Rows that one page examines at most, when an index alone cannot tell which match: first a few,
# which suffices where matches are frequent, then more.
_EXAMINED = (2_000, 18_000)
# Counting ends here; it reads so many entries of an index.
COUNTED_MAX = 10_000

_BY_BIRTH = (executions.c.seq,)
_BY_DUE = (executions.c.scheduled_us, executions.c.seq)
# What a page shows, and no more: the columns of a place first.
_SELECT: sa.Select[Any] = sa.select(
    executions.c.seq,
    executions.c.scheduled_us,
    executions.c.id,
    executions.c.job_id,
    executions.c.job_revision,
    executions.c.cause,
    executions.c.status,
    executions.c.reason,
    executions.c.until_us,
    executions.c.instant_count,
    executions.c.queued_us,
    executions.c.started_us,
    executions.c.finished_us,
    executions.c.next_attempt_us,
    executions.c.attempts,
    executions.c.http_status,
    executions.c.response_bytes,
    executions.c.response_excerpt,
    executions.c.error,
    sa.func.coalesce(executions.c.owner, executions.c.sent_by),
)
# A table is a tenth of what calling the enumeration costs.
_CAUSES = {str(cause): cause for cause in Cause}
_STATUSES = {str(status): status for status in ExecutionStatus}
_REASONS: dict[str | None, Reason | None] = {None: None, **{str(one): one for one in Reason}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """Rows in the order of one index, newest first; ``looked_up`` needs the rows themselves."""

    along: tuple[sa.ColumnElement[bool], ...] = ()
    order: tuple[sa.Column[int], ...] = _BY_BIRTH
    looked_up: tuple[sa.ColumnElement[bool], ...] = ()
    # The only condition of ``along``, if it is this job's.
    job_id: JobId | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether this is a job's history, or everybody's, without any filter."""
        unfiltered = len(self.along) == (self.job_id is not None) and not self.looked_up
        return unfiltered and self.order is _BY_BIRTH


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of a walk; ``reached`` is set if more may match below that place, which are not known.

    It is None if there are none, or if the rows are more than a page holds.
    """

    rows: list[Any]
    reached: Position | None


def read_history(
    connection: ReadConnection,
    wanted: HistoryFilter,
    *,
    limit: int,
    before: Position | None = None,
) -> HistorySlice:
    """Read a page, newest first; ``before`` is where the page before it ended.

    Newest is latest born (``sequence``); with a range in time and no job, latest due. At most
    20,000 rows are examined: a page may end before it is full and still have a next one.
    """
    walks = list(_walks(wanted, before))
    found = [
        _scan(connection, walk, before=before, need=limit + 1, share=len(walks)) for walk in walks
    ]
    return _merge(found, _order(wanted), limit)


def count_history(connection: ReadConnection, wanted: HistoryFilter) -> HistoryCount | None:
    """Count what an index alone can tell, up to ``COUNTED_MAX``; None if rows would be read."""
    walks = list(_walks(wanted))
    if any(walk.looked_up for walk in walks):
        return None
    count = sum(_count(connection, walk) for walk in walks)
    if count > COUNTED_MAX:
        return HistoryCount(at_least=COUNTED_MAX)
    return HistoryCount(exact=count)


def _order(wanted: HistoryFilter) -> tuple[sa.Column[int], ...]:
    return _BY_DUE if wanted.goes_by_due else _BY_BIRTH


def _walks(wanted: HistoryFilter, before: Position | None = None) -> Iterator[_Walk]:
    """Choose the indexes that answer a filter."""
    statuses = wanted.possible
    if not statuses:
        return
    if wanted.goes_by_due:
        # Where a page goes on it is bounded already; two upper bounds and SQLite may take either.
        along = _range(wanted if before is None else replace(wanted, until=None))
        yield _Walk(along=along, order=_BY_DUE, looked_up=_conditions(wanted, status=True))
    elif statuses <= OPEN_STATUSES:
        yield _open_walk(wanted, statuses)
    elif wanted.job_id is not None:
        looked_up = (*_conditions(wanted, status=True), *_range(wanted))
        of_job = executions.c.job_id == wanted.job_id
        yield _Walk(along=(of_job,), looked_up=looked_up, job_id=wanted.job_id)
    elif ExecutionStatus.COMPLETED in statuses:
        yield _Walk(looked_up=_conditions(wanted, status=True))
    else:
        yield from _status_walks(wanted, statuses)


def _status_walks(wanted: HistoryFilter, statuses: frozenset[ExecutionStatus]) -> Iterator[_Walk]:
    looked_up = _conditions(wanted, status=False)
    for status in sorted(statuses - OPEN_STATUSES):
        along = (NOT_COMPLETED, executions.c.status == literal_status(status))
        yield _Walk(along=along, looked_up=looked_up)
    if still_open := statuses & OPEN_STATUSES:
        yield _open_walk(wanted, still_open)


def _open_walk(wanted: HistoryFilter, statuses: frozenset[ExecutionStatus]) -> _Walk:
    """Walk what is open: few rows, found by their own index, which knows no order."""
    found = sa.select(executions.c.seq).where(OPEN, status_in(*sorted(statuses)))
    if wanted.job_id is not None:
        found = found.where(executions.c.job_id == wanted.job_id)
    found = found.where(*_conditions(wanted, status=False), *_range(wanted))
    # Materialized, lest the planner walk all rows by birth to find the few.
    open_rows = found.cte("open_rows").prefix_with("MATERIALIZED")
    return _Walk(along=(executions.c.seq.in_(sa.select(open_rows.c.seq)),))


def _conditions(wanted: HistoryFilter, *, status: bool) -> tuple[sa.ColumnElement[bool], ...]:
    conditions: list[sa.ColumnElement[bool]] = []
    if status and (wanted.statuses or wanted.reasons):
        conditions.append(_looked_up(executions.c.status).in_(sorted(wanted.possible)))
    if wanted.reasons:
        conditions.append(_looked_up(executions.c.reason).in_(sorted(wanted.reasons)))
    if wanted.causes:
        conditions.append(_looked_up(executions.c.cause).in_(sorted(wanted.causes)))
    return tuple(conditions)


def _looked_up(column: sa.Column[str]) -> sa.ColumnElement[str]:
    """Hide a column from planners, who might else leave the walk for another index, and sort."""
    return column.concat(sa.literal_column("''"))


def _range(wanted: HistoryFilter) -> tuple[sa.ColumnElement[bool], ...]:
    due: sa.ColumnElement[int] = executions.c.scheduled_us
    if not wanted.goes_by_due:
        due = due + sa.literal_column("0")  # hidden from planners, as above
    bounds: list[sa.ColumnElement[bool]] = []
    if wanted.since is not None:
        bounds.append(due >= to_us(wanted.since))
    if wanted.until is not None:
        bounds.append(due < to_us(wanted.until))
    return tuple(bounds)


def _scan(
    connection: ReadConnection, walk: _Walk, *, before: Position | None, need: int, share: int
) -> _Found:
    """Find the next ``need`` rows of a walk; ``share`` walks divide what may be examined."""
    if not walk.looked_up:
        rows = _read(connection, walk, before=before, floor=None, limit=need)
        return _Found(rows, None)
    rows = []
    for width in _EXAMINED:
        floor = _floor(connection, walk, before=before, width=max(width // share, 1))
        rows += _read(connection, walk, before=before, floor=floor, limit=need - len(rows))
        if floor is None or len(rows) >= need:
            return _Found(rows, None)
        before = floor
    return _Found(rows, before)


def _floor(
    connection: ReadConnection, walk: _Walk, *, before: Position | None, width: int
) -> Position | None:
    """Tell where the next ``width`` rows of a walk end; None: there are no more than that."""
    if walk.order is _BY_BIRTH and not walk.along:
        return _floor_of_all(connection, before=before, width=width)
    statement: Any = sa.select(*walk.order).where(*walk.along, *_after(walk, before))
    found = connection.execute(_newest_first(statement, walk).limit(1).offset(width - 1)).first()
    return None if found is None else tuple(found)


def _floor_of_all(
    connection: ReadConnection, *, before: Position | None, width: int
) -> Position | None:
    """Reckon instead of read: rows are wide, and there are never more of them than numbers."""
    newest = sa.select(sa.func.max(executions.c.seq))
    if before is not None:
        newest = newest.where(executions.c.seq < before[0])
    top = connection.execute(newest).scalar_one()
    return None if top is None or top <= width else (top - width + 1,)


def _read(
    connection: ReadConnection,
    walk: _Walk,
    *,
    before: Position | None,
    floor: Position | None,
    limit: int,
) -> list[Any]:
    if walk.is_plain and floor is None:
        given = {"of_job": walk.job_id, "before": None if before is None else before[0]}
        given = {name: value for name, value in given.items() if value is not None}
        return list(connection.execute(_plain(*given), {**given, "most": limit}))
    statement = _SELECT.where(*walk.along, *walk.looked_up, *_after(walk, before))
    if floor is not None:
        statement = statement.where(_place(walk) >= _bound(floor))
    found = connection.execute(_newest_first(statement, walk).limit(limit))
    return list(found)


# The pages that are asked for most; making their statements would cost more than running them.
@lru_cache
def _plain(*given: str) -> sa.Select[Any]:
    conditions = {
        "of_job": executions.c.job_id == sa.bindparam("of_job"),
        "before": executions.c.seq < sa.bindparam("before", type_=sa.BigInteger),
    }
    statement = _SELECT.where(*(conditions[name] for name in given))
    return statement.order_by(executions.c.seq.desc()).limit(sa.bindparam("most"))


def _after(walk: _Walk, before: Position | None) -> tuple[sa.ColumnElement[bool], ...]:
    return () if before is None else (_place(walk) < _bound(before),)


def _place(walk: _Walk) -> Any:
    return walk.order[0] if len(walk.order) == 1 else sa.tuple_(*walk.order)


def _bound(position: Position) -> Any:
    # Parameters, lest every page be a statement of its own.
    numbers = [sa.bindparam(None, number, sa.BigInteger) for number in position]
    return numbers[0] if len(numbers) == 1 else sa.tuple_(*numbers)


def _newest_first(statement: sa.Select[Any], walk: _Walk) -> sa.Select[Any]:
    return statement.order_by(*(column.desc() for column in walk.order))


def _key(row: Any, order: tuple[sa.Column[int], ...]) -> Position:
    return (row[0],) if order is _BY_BIRTH else (row[1], row[0])


def _merge(found: Sequence[_Found], order: tuple[sa.Column[int], ...], limit: int) -> HistorySlice:
    """Put walks together; below the place that one of them has not passed nothing is known."""
    reached = max((part.reached for part in found if part.reached is not None), default=None)
    rows = [row for part in found for row in part.rows]
    if reached is not None:
        rows = [row for row in rows if _key(row, order) >= reached]
    rows.sort(key=lambda row: _key(row, order), reverse=True)
    shown = rows[:limit]
    following = _key(shown[-1], order) if len(rows) > limit else reached
    return HistorySlice(executions=[_to_execution(row) for row in shown], next_position=following)


def _to_execution(row: Any) -> Execution:
    """Read an execution from a row of ``_SELECT``."""
    seq, scheduled_us, id_, job_id, revision, cause, status, reason, until_us, instants, *rest = row
    queued_us, started_us, finished_us, next_us, attempts, *of_last = rest
    http_status, size, excerpt, error, replica = of_last
    return Execution(
        sequence=seq,
        id=id_,
        job_id=job_id,
        job_revision=revision,
        cause=_CAUSES[cause],
        status=_STATUSES[status],
        reason=_REASONS[reason],
        scheduled_for=from_us(scheduled_us),
        scheduled_until=None if until_us is None else from_us(until_us),
        instant_count=instants,
        queued_at=from_us(queued_us),
        started_at=None if started_us is None else from_us(started_us),
        finished_at=None if finished_us is None else from_us(finished_us),
        next_attempt_at=None if next_us is None else from_us(next_us),
        attempts=attempts,
        http_status=http_status,
        response_bytes=size,
        response_excerpt=excerpt,
        error=error,
        replica=replica,
    )


def _count(connection: ReadConnection, walk: _Walk) -> int:
    some: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(executions)
    counted = some.where(*walk.along).limit(COUNTED_MAX + 1).subquery("counted")
    statement = sa.select(sa.func.count()).select_from(counted)
    return connection.execute(statement).scalar_one()
