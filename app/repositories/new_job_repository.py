"""SQL that stores new jobs, many in one statement: a herd of creations is one write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.job import Change, Job
from app.models.tables import job_revisions, jobs
from app.repositories.batch import Batch, parameters
from app.repositories.definition_codec import dump_delivery, dump_policy, dump_schedule, host_of

_NEW = Batch(
    text=("id", "actor", "state", "name", "schedule", "policy", "delivery", "host"),
    integers=("anchor_us", "cursor_us", "next_run_us", "created_us"),
)
_SHARED = ("state", "name", "schedule", "policy", "delivery", "host", "anchor_us")
_FIRST_REVISION: sa.ColumnElement[int] = sa.literal_column("1")
_FIRST_EPOCH: sa.ColumnElement[int] = sa.literal_column("0")

_JOB = {
    "id": _NEW["id"],
    **{name: _NEW[name] for name in _SHARED},
    "revision": _FIRST_REVISION,
    "clock_epoch": _FIRST_EPOCH,
    "cursor_us": _NEW["cursor_us"],
    "next_run_us": _NEW["next_run_us"],
    "execution_count": sa.literal_column("0"),
    "created_us": _NEW["created_us"],
    "updated_us": _NEW["created_us"],
}
_REVISION = {
    "job_id": _NEW["id"],
    **{name: _NEW[name] for name in _SHARED},
    "revision": _FIRST_REVISION,
    "clock_epoch": _FIRST_EPOCH,
    "changed_us": _NEW["created_us"],
    "change": sa.literal_column(f"'{Change.CREATED}'"),
    "actor": _NEW["actor"],
    "since_us": _NEW["cursor_us"],
    "before_us": _NEW["cursor_us"],
}


def _rows(values: dict[str, Any]) -> sa.Select[Any]:
    # SQLite takes ON CONFLICT for part of a FROM clause, unless a WHERE stands between.
    return sa.select(*values.values()).select_from(_NEW.table).where(sa.literal_column("1 = 1"))


# An id that is known already is left out, be it another transaction's a moment ago.
_INSERT_JOBS = {
    dialect: insert(jobs)
    .from_select(list(_JOB), _rows(_JOB))
    .on_conflict_do_nothing(index_elements=[jobs.c.id])
    .returning(jobs.c.id)
    for dialect, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}
_INSERT_REVISIONS = sa.insert(job_revisions).from_select(list(_REVISION), _rows(_REVISION))


@dataclass(frozen=True, slots=True)
class FirstJob:
    """A job that never was before: first revision, first clock epoch, nothing run yet."""

    job: Job
    actor: str | None


def insert_new_jobs(connection: WriteConnection, new: Sequence[FirstJob]) -> list[bool]:
    """Store jobs and their first revisions; tell of each whether it was.

    One whose id is known, deleted ones included, is not; of two with one id the first is stored.
    """
    first: dict[str, FirstJob] = {}
    for one in new:
        first.setdefault(one.job.id, one)
    # In one order everywhere, so that two transactions with the same ids do not wait in a circle.
    rows = [_values(first[job_id]) for job_id in sorted(first)]
    found = connection.execute(_INSERT_JOBS[connection.dialect.name], parameters(rows))
    stored = set(found.scalars())
    if len(stored) < len(rows):
        rows = [row for row in rows if row[0] in stored]
    if rows:
        connection.execute(_INSERT_REVISIONS, parameters(rows))
    return [one.job.id in stored and first[one.job.id] is one for one in new]


def _values(one: FirstJob) -> tuple[object, ...]:
    """Make a row of ``_NEW``."""
    job, definition = one.job, one.job.definition
    assert definition is not None, "only readable jobs are written"
    return (
        job.id,
        one.actor,
        job.state,
        definition.name,
        dump_schedule(definition.schedule),
        dump_policy(definition.policy),
        dump_delivery(definition.delivery),
        host_of(definition.delivery.target.url),
        to_us(job.anchor),
        to_us(job.cursor),
        None if job.next_run_time is None else to_us(job.next_run_time),
        to_us(job.created_at),
    )
