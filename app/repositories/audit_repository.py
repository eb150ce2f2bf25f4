"""SQL of the ledger's proof: which rule answered for which time, and which rows there are.

Every function reads a bounded number of rows. Instants stay integers: millions of them pass here.
Called by ``engine/auditor.py``.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.execution import Reason
from app.domain.ids import JobId
from app.domain.job import JobState
from app.models.tables import executions, job_revisions, jobs
from app.repositories.ledger_conditions import DUE

# Stretches that may reach over one moment: of instants, of times in a gap, of times in a fold.
_LAYERS = 3

_STRETCHES = executions.c.instant_count > sa.literal_column("1")
_OF_JOB = (
    executions.c.job_id == sa.bindparam("job_id"),
    executions.c.clock_epoch == sa.bindparam("clock_epoch"),
)
_HEAD_COLUMNS = (
    jobs.c.id,
    jobs.c.state,
    jobs.c.revision,
    jobs.c.clock_epoch,
    jobs.c.cursor_us,
    jobs.c.next_run_us,
    jobs.c.pruned_us,
)
_HEADS = (
    sa.select(*_HEAD_COLUMNS)
    .where(jobs.c.id > sa.bindparam("after"))
    .order_by(jobs.c.id)
    .limit(sa.bindparam("row_limit"))
)
# Jobs that had an instant since one moment, or should have had one by another.
_MOVED_HEADS = _HEADS.where(
    sa.or_(
        jobs.c.cursor_us > sa.bindparam("moved_us"),
        sa.and_(
            jobs.c.state == JobState.ACTIVE,
            sa.or_(jobs.c.next_run_us.is_(None), jobs.c.next_run_us <= sa.bindparam("due_us")),
        ),
    )
)
_HEAD = sa.select(*_HEAD_COLUMNS).where(jobs.c.id == sa.bindparam("job_id"))
# Only idle revisions ask whether their whole definition can be read.
_IDLE = job_revisions.c.state.in_([JobState.PAUSED, JobState.BROKEN])
_REVISION_COLUMNS = (
    job_revisions.c.job_id,
    job_revisions.c.revision,
    job_revisions.c.state,
    job_revisions.c.schedule,
    sa.case((_IDLE, job_revisions.c.policy)).label("policy"),
    sa.case((_IDLE, job_revisions.c.delivery)).label("delivery"),
    job_revisions.c.anchor_us,
    job_revisions.c.clock_epoch,
    job_revisions.c.since_us,
    job_revisions.c.before_us,
)
_REVISIONS = (
    sa.select(*_REVISION_COLUMNS)
    .where(
        job_revisions.c.job_id == sa.bindparam("job_id"),
        job_revisions.c.revision > sa.bindparam("after"),
        job_revisions.c.revision <= sa.bindparam("last"),
    )
    .order_by(job_revisions.c.revision)
    .limit(sa.bindparam("row_limit"))
)
_FIRST_REVISIONS = (
    sa.select(*_REVISION_COLUMNS)
    .where(job_revisions.c.job_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(job_revisions.c.job_id, job_revisions.c.revision)
    .limit(sa.bindparam("row_limit"))
)
_BEYOND = (
    sa.select(
        jobs.c.id,
        sa.func.count(),
        sa.func.min(executions.c.scheduled_us),
        sa.func.max(executions.c.scheduled_us),
    )
    .join_from(
        jobs,
        executions,
        sa.and_(
            executions.c.job_id == jobs.c.id,
            executions.c.clock_epoch == jobs.c.clock_epoch,
            executions.c.scheduled_us > jobs.c.cursor_us,
            DUE,
        ),
    )
    .where(
        jobs.c.id.in_(sa.bindparam("ids", expanding=True)),
        executions.c.scheduled_us > sa.bindparam("after_us"),
        executions.c.scheduled_us <= sa.bindparam("until_us"),
    )
    .group_by(jobs.c.id)
)
_ROWS = (
    sa.select(executions.c.scheduled_us)
    .where(
        DUE,
        *_OF_JOB,
        executions.c.scheduled_us > sa.bindparam("after_us"),
        executions.c.scheduled_us <= sa.bindparam("until_us"),
    )
    .order_by(executions.c.scheduled_us)
    .limit(sa.bindparam("row_limit"))
)
_reaching = (
    sa.select(executions.c.scheduled_us.label("us"))
    .where(_STRETCHES, *_OF_JOB, executions.c.scheduled_us <= sa.bindparam("after_us"))
    .order_by(executions.c.scheduled_us.desc())
    .limit(sa.literal_column(str(_LAYERS)))
    .subquery()
)
_STRETCHES_BETWEEN = (
    sa.select(
        executions.c.scheduled_us,
        executions.c.until_us,
        executions.c.instant_count,
        executions.c.reason,
    )
    .where(
        _STRETCHES,
        *_OF_JOB,
        executions.c.scheduled_us
        >= sa.func.coalesce(
            sa.select(sa.func.min(_reaching.c.us)).scalar_subquery(), sa.bindparam("after_us")
        ),
        executions.c.scheduled_us <= sa.bindparam("until_us"),
    )
    .order_by(executions.c.scheduled_us)
    .limit(sa.bindparam("row_limit"))
)
_VOID_REASONS = frozenset({Reason.DST_GAP, Reason.DST_FOLD})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHead:
    """How far a job has accounted, tombstones included; instants in microseconds."""

    id: JobId
    state: JobState
    revision: int
    clock_epoch: int
    cursor_us: int
    next_run_us: int | None
    pruned_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRevision:
    """A revision as it is stored; ``policy`` and ``delivery`` of paused and broken ones only."""

    job_id: JobId
    revision: int
    state: JobState
    schedule: str
    policy: str | None
    delivery: str | None
    anchor_us: int
    clock_epoch: int
    since_us: int
    before_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """The rows of due instants that a job has behind its cursor: none, if all is well."""

    job_id: JobId
    count: int
    first_us: int
    last_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStretch:
    """One row for many instants; ``void`` is the reason if they are times a zone left out."""

    first_us: int
    last_us: int
    count: int
    void: Reason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPage:
    """The due rows of one job and clock epoch after one instant up to and including another.

    ``rows`` are their instants in order, of a stretch its first. ``stretches`` are those that
    begin in the page, and the latest ones before it, which may reach into it.
    """

    after_us: int
    until_us: int
    rows: list[int]
    stretches: tuple[StoredStretch, ...]


def list_heads(connection: ReadConnection, *, after: JobId, limit: int) -> list[JobHead]:
    """Read jobs by id, deleted ones included, beginning after one."""
    found = connection.execute(_HEADS, {"after": after, "row_limit": limit})
    return [_head(row) for row in found]


def list_moved_heads(
    connection: ReadConnection, *, after: JobId, limit: int, moved_us: int, due_us: int
) -> list[JobHead]:
    """Read jobs as ``list_heads`` does, but only those that can have an instant in question.

    That is those with one after ``moved_us``, and active ones whose next is due by ``due_us``. The
    others cost a look by the database alone: a million of them a second or so.
    """
    parameters = {"after": after, "row_limit": limit, "moved_us": moved_us, "due_us": due_us}
    return [_head(row) for row in connection.execute(_MOVED_HEADS, parameters)]


def find_head(connection: ReadConnection, job_id: JobId) -> JobHead | None:
    """Read one job, deleted or not."""
    row = connection.execute(_HEAD, {"job_id": job_id}).first()
    return None if row is None else _head(row)


def first_revisions(
    connection: ReadConnection, job_ids: Sequence[JobId], *, limit: int
) -> dict[JobId, list[StoredRevision]]:
    """Read the first revisions of jobs, at most ``limit`` in all; the last jobs may lack some."""
    found: dict[JobId, list[StoredRevision]] = defaultdict(list)
    for row in connection.execute(_FIRST_REVISIONS, {"ids": list(job_ids), "row_limit": limit}):
        found[JobId(row.job_id)].append(_revision(row))
    return found


def list_revisions(
    connection: ReadConnection, head: JobHead, *, after: int, limit: int
) -> list[StoredRevision]:
    """Read a job's revisions in order, beginning after one, up to the head's."""
    values = {"job_id": head.id, "after": after, "last": head.revision, "row_limit": limit}
    return [_revision(row) for row in connection.execute(_REVISIONS, values)]


def find_beyond(
    connection: ReadConnection, job_ids: Sequence[JobId], *, after_us: int, until_us: int
) -> list[Beyond]:
    """Find the rows that jobs have behind their cursors, between two instants."""
    values = {"ids": list(job_ids), "after_us": after_us, "until_us": until_us}
    return [
        Beyond(job_id=JobId(job_id), count=count, first_us=first_us, last_us=last_us)
        for job_id, count, first_us, last_us in connection.execute(_BEYOND, values)
    ]


def read_page(
    connection: ReadConnection,
    job_id: JobId,
    clock_epoch: int,
    *,
    after_us: int,
    until_us: int,
    limit: int,
) -> LedgerPage:
    """Read at most ``limit`` (two or more) due rows of one job and epoch after an instant.

    The page ends at ``until_us``, or where the limit ends it; rows of one instant stay together.
    """
    values = {
        "job_id": job_id,
        "clock_epoch": clock_epoch,
        "after_us": after_us,
        "until_us": until_us,
        "row_limit": limit,
    }
    rows = list(connection.execute(_ROWS, values).scalars())
    if len(rows) == limit:
        # More may follow at the last instant, so it belongs to the next page.
        until_us = rows[-1] - (rows[0] < rows[-1])
        del rows[bisect_right(rows, until_us) :]
    values["row_limit"] = limit + _LAYERS
    stretches = [_stretch(row) for row in connection.execute(_STRETCHES_BETWEEN, values)]
    return LedgerPage(
        after_us=after_us,
        until_us=until_us,
        rows=rows,
        stretches=tuple(found for found in stretches if found.first_us <= until_us),
    )


def _head(row: Any) -> JobHead:
    job_id, state, revision, epoch, cursor_us, next_run_us, pruned_us = row
    return JobHead(
        id=JobId(job_id),
        state=JobState(state),
        revision=revision,
        clock_epoch=epoch,
        cursor_us=cursor_us,
        next_run_us=next_run_us,
        pruned_us=pruned_us,
    )


def _revision(row: Any) -> StoredRevision:
    return StoredRevision(
        job_id=JobId(row.job_id),
        revision=row.revision,
        state=JobState(row.state),
        schedule=row.schedule,
        policy=row.policy,
        delivery=row.delivery,
        anchor_us=row.anchor_us,
        clock_epoch=row.clock_epoch,
        since_us=row.since_us,
        before_us=row.before_us,
    )


def _stretch(row: Any) -> StoredStretch:
    first_us, last_us, count, reason = row
    return StoredStretch(
        first_us=first_us,
        last_us=last_us,
        count=count,
        void=Reason(reason) if reason in _VOID_REASONS else None,
    )
