"""SQL that lists jobs in pages: those with a next run time, soonest first, then the others by id.

Each half has its index (``jobs_due``, ``jobs_idle``), so a page costs the same wherever it is.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.job import Job, JobPosition, JobState
from app.models.tables import jobs
from app.repositories.job_repository import to_job

# Jobs read at a time when all are asked for. The event loop is free between two such readings.
_AT_ONCE = 100
# Counting ends here.
COUNTED_MAX = 10_000

LISTED_STATES = frozenset(JobState) - {JobState.DELETED}

_DUE = (
    sa.select(jobs)
    .where(jobs.c.next_run_us.is_not(None))
    .order_by(jobs.c.next_run_us, jobs.c.id)
    .limit(sa.bindparam("most"))
)
_DUE_BEHIND = _DUE.where(
    sa.tuple_(jobs.c.next_run_us, jobs.c.id)
    > sa.tuple_(
        sa.bindparam("after_us", type_=sa.BigInteger), sa.bindparam("after_id", type_=sa.Text)
    )
)
# The index's own condition, in the text of the statement: SQLite looks for it there.
_IDLE = sa.and_(
    jobs.c.next_run_us.is_(None), jobs.c.state != sa.literal_column(f"'{JobState.DELETED}'")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSlice:
    """A page of jobs; ``next_position`` None: there are no more."""

    jobs: list[Job]
    next_position: JobPosition | None


def read_jobs(
    connection: ReadConnection,
    *,
    limit: int,
    states: Collection[JobState] = LISTED_STATES,
    after: JobPosition | None = None,
) -> JobSlice:
    """Read a page of the jobs in these states; ``after`` is where the page before it ended."""
    need = limit + 1
    rows: list[Any] = []
    if JobState.ACTIVE in states and (after is None or after.next_run_us is not None):
        rows = _due(connection, need, after)
        after = None
    if len(rows) < need:
        behind = None if after is None else after.id
        rows += _idle(connection, need - len(rows), states, behind)
    shown = rows[:limit]
    return JobSlice(
        jobs=[to_job(row) for row in shown],
        next_position=_position(shown[-1]) if shown and len(rows) > limit else None,
    )


def read_all_jobs(connection: ReadConnection) -> list[Job]:
    """Read all jobs."""
    return [job for jobs in read_by_page(connection) for job in jobs]


def read_by_page(connection: ReadConnection) -> Iterator[list[Job]]:
    """Read all jobs, in one snapshot but some at a time, so that the event loop stays free."""
    after: JobPosition | None = None
    while True:
        page = read_jobs(connection, limit=_AT_ONCE, after=after)
        yield page.jobs
        after = page.next_position
        if after is None:
            return


def count_listed(connection: ReadConnection, states: Collection[JobState]) -> int:
    """Count jobs by the indexes alone; more than ``COUNTED_MAX`` means: at least so many."""
    count = 0
    if JobState.ACTIVE in states:
        count = connection.execute(_COUNT_DUE).scalar_one()
    for state in sorted(states):
        if count <= COUNTED_MAX:
            count += connection.execute(_COUNT_IDLE[state]).scalar_one()
    return count


def _due(connection: ReadConnection, limit: int, after: JobPosition | None) -> list[Any]:
    if after is None:
        return list(connection.execute(_DUE, {"most": limit}).mappings())
    given = {"most": limit, "after_us": after.next_run_us, "after_id": after.id}
    return list(connection.execute(_DUE_BEHIND, given).mappings())


def _idle(
    connection: ReadConnection, limit: int, states: Collection[JobState], behind: str | None
) -> list[Any]:
    """Read what has no next run time by id: the next of each state, put together by id."""
    by_state = [_idle_in(state, limit, behind) for state in sorted(states)]
    if not by_state:
        return []
    merged = sa.union_all(*(sa.select(part.subquery()) for part in by_state)).subquery("merged")
    statement = sa.select(merged).order_by(merged.c.id).limit(limit)
    return list(connection.execute(statement).mappings())


def _idle_in(state: JobState, limit: int, behind: str | None) -> sa.Select[Any]:
    statement = sa.select(jobs).where(_in_state(state))
    if behind is not None:
        statement = statement.where(jobs.c.id > behind)
    return statement.order_by(jobs.c.id).limit(limit)


def _in_state(state: JobState) -> sa.ColumnElement[bool]:
    return sa.and_(_IDLE, jobs.c.state == sa.literal_column(f"'{state}'"))


def _counting(condition: sa.ColumnElement[bool]) -> sa.Select[int]:
    some: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(jobs)
    counted = some.where(condition).limit(COUNTED_MAX + 1).subquery("counted")
    return sa.select(sa.func.count()).select_from(counted)


_COUNT_DUE = _counting(jobs.c.next_run_us.is_not(None))
_COUNT_IDLE = {state: _counting(_in_state(state)) for state in JobState}


def _position(row: Any) -> JobPosition:
    return JobPosition(next_run_us=row["next_run_us"], id=row["id"])
