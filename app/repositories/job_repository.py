"""SQL on jobs and their revisions.

Every change of a definition or state writes a new revision row in the same transaction, so that
the ledger can be recomputed and an edit be traced. Deleted jobs stay as tombstones; a new job of
the same id revives the row under the next clock epoch.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.ids import JobId
from app.domain.job import Change, DueJob, Job, JobDefinition, JobState
from app.domain.record import record
from app.models.tables import job_revisions, jobs
from app.repositories.batch import IDS, Batch, Gathered, id_parameters, parameters
from app.repositories.definition_codec import (
    UnreadableDefinitionError,
    dump_delivery,
    dump_policy,
    dump_schedule,
    host_of,
    load_delivery,
    load_policy,
    load_schedule,
)

_PRESENT = jobs.c.state != JobState.DELETED
_BY_ID = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
_DUE_COLUMNS = (
    jobs.c.id,
    jobs.c.revision,
    jobs.c.clock_epoch,
    jobs.c.schedule,
    jobs.c.policy,
    jobs.c.anchor_us,
    jobs.c.host,
    jobs.c.cursor_us,
    jobs.c.next_run_us,
)
_DUE = (
    sa.select(*_DUE_COLUMNS)
    .where(jobs.c.next_run_us.is_not(None), jobs.c.next_run_us <= sa.bindparam("until_us"))
    .order_by(jobs.c.next_run_us)
    .limit(sa.bindparam("row_limit"))
)
# In the order of ids SQLite looks each of them up; without it, it reads all jobs.
_BY_IDS = sa.select(*_DUE_COLUMNS).where(IDS.holds(jobs.c.id, "id")).order_by(jobs.c.id)
_SCHEDULES = sa.select(jobs.c.id, jobs.c.schedule).where(IDS.holds(jobs.c.id, "id"))
_CURRENT = Gathered(
    sa.select(jobs.c.id, jobs.c.revision, jobs.c.next_run_us)
    .where(IDS.holds(jobs.c.id, "id"))
    .order_by(jobs.c.id)
    .with_for_update(key_share=True)
)
_STEPS = Batch(text=("id", "state"), integers=("revision", "was_us", "accounted_us", "next_us"))
_ADVANCE = (
    sa.update(jobs)
    .where(
        _STEPS.joins(jobs.c.id, "id"),
        jobs.c.revision == _STEPS["revision"],
        jobs.c.next_run_us == _STEPS["was_us"],
    )
    .values(
        next_run_us=_STEPS["next_us"],
        cursor_us=_STEPS["accounted_us"],
        state=_STEPS["state"],
    )
)
_STARTS = Batch(text=("id",), integers=("starts",))
_COUNT_STARTS = (
    sa.update(jobs)
    .where(_STARTS.joins(jobs.c.id, "id"))
    .values(execution_count=jobs.c.execution_count + _STARTS["starts"])
)


@record
class Advance:
    """One job's step in a tick, valid only while revision and next run time are what was read."""

    job_id: JobId
    revision: int
    was: datetime
    accounted_until: datetime
    next_run_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenJob:
    """An active job whose stored definition cannot be read."""

    id: JobId
    revision: int
    problem: str


def find_job(connection: ReadConnection, job_id: JobId) -> Job | None:
    """Read one job; None if it does not exist or is deleted."""
    row = connection.execute(_BY_ID, {"job_id": job_id}).mappings().first()
    return None if row is None or row["state"] == JobState.DELETED else to_job(row)


def find_job_for_change(connection: WriteConnection, job_id: JobId) -> Job | None:
    """Read one job, tombstones included, and keep others from changing it until the commit."""
    # Rows that refer to the job may be added meanwhile. SQLite renders nothing: one writer.
    statement = _BY_ID.with_for_update(key_share=True)
    row = connection.execute(statement, {"job_id": job_id}).mappings().first()
    return None if row is None else to_job(row)


def zones_of(connection: ReadConnection, job_ids: Sequence[JobId]) -> dict[JobId, str]:
    """Tell the zones of jobs, deleted ones included; unreadable ones are left out."""
    zones: dict[JobId, str] = {}
    for job_id, schedule in connection.execute(_SCHEDULES, id_parameters(job_ids)):
        with contextlib.suppress(UnreadableDefinitionError):
            zones[job_id] = load_schedule(schedule).timezone
    return zones


def count_jobs(connection: ReadConnection) -> int:
    """Count the jobs that are not deleted."""
    return connection.execute(sa.select(sa.func.count()).where(_PRESENT)).scalar_one()


def insert_job(connection: WriteConnection, job: Job, *, actor: str | None) -> None:
    """Store a new job and its first revision."""
    connection.execute(sa.insert(jobs), _values(job))
    _insert_revision(connection, job, Change.CREATED, accounted=job.cursor, actor=actor)


def save_job(
    connection: WriteConnection,
    job: Job,
    change: Change,
    *,
    accounted: datetime,
    actor: str | None,
) -> None:
    """Store a changed job (its revision already raised) and the new revision.

    ``accounted`` is how far the instants of the revision before it have their rows. The cursor
    never moves back within a clock epoch.
    """
    statement = sa.update(jobs).where(jobs.c.id == job.id, jobs.c.revision == job.revision - 1)
    changed = connection.execute(statement, _values(job))
    assert changed.rowcount == 1, "the row was read for change in this transaction"
    _insert_revision(connection, job, change, accounted=accounted, actor=actor)


def save_state(
    connection: WriteConnection,
    job: Job,
    change: Change,
    *,
    accounted: datetime,
    actor: str | None,
) -> None:
    """Store a job's changed state and place in time (its revision already raised).

    ``accounted`` as in ``save_job``. The definition stays as it is stored, readable or not.
    """
    changed = connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == job.id, jobs.c.revision == job.revision - 1)
        .values(
            revision=job.revision,
            state=job.state,
            state_reason=job.state_reason,
            anchor_us=to_us(job.anchor),
            clock_epoch=job.clock_epoch,
            next_run_us=None if job.next_run_time is None else to_us(job.next_run_time),
            cursor_us=to_us(job.cursor),
            updated_us=to_us(job.updated_at),
        )
    )
    assert changed.rowcount == 1, "the row was read for change in this transaction"
    _copy_revision(connection, job.id, change, accounted=accounted, actor=actor)


def due_jobs(
    connection: ReadConnection, *, until: datetime, limit: int
) -> tuple[list[DueJob], list[BrokenJob]]:
    """Read the active jobs due by ``until``, soonest first, at most ``limit``."""
    rows = connection.execute(_DUE, {"until_us": to_us(until), "row_limit": limit})
    return _due(rows.all())


def due_jobs_by_id(
    connection: ReadConnection, job_ids: Sequence[JobId]
) -> tuple[list[DueJob], list[BrokenJob]]:
    """Read those of ``job_ids`` that are active and have a next run time."""
    rows = connection.execute(_BY_IDS, id_parameters(job_ids))
    return _due([row for row in rows if row.next_run_us is not None])


def jobs_ahead(
    connection: WriteConnection, *, now: datetime, after: JobId, limit: int
) -> list[Job]:
    """Read active and paused jobs whose cursor lies after ``now``, by id, beginning after one.

    There are none unless the clock was set back. Keeps others from changing them.
    """
    statement = (
        sa.select(jobs)
        .where(jobs.c.id > after, jobs.c.cursor_us > to_us(now))
        .where(jobs.c.state.in_([JobState.ACTIVE, JobState.PAUSED]))
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update(key_share=True)
    )
    return [to_job(row) for row in connection.execute(statement).mappings()]


def current_ticks(
    connection: WriteConnection, job_ids: Sequence[JobId]
) -> dict[JobId, tuple[int, int | None]]:
    """Read ``revision`` and ``next_run_us`` of jobs, keeping others from changing them.

    What a tick planned for a job counts only if both are still what the window had read.
    """
    rows = _CURRENT.fetch(connection, id_parameters(job_ids))
    return {job_id: (revision, next_run_us) for job_id, revision, next_run_us in rows}


def advance_jobs(connection: WriteConnection, advances: Iterable[Advance]) -> None:
    """Move cursors and next run times; a job without a next one is finished."""
    rows = [
        (
            step.job_id,
            JobState.FINISHED if step.next_run_time is None else JobState.ACTIVE,
            step.revision,
            to_us(step.was),
            to_us(step.accounted_until),
            None if step.next_run_time is None else to_us(step.next_run_time),
        )
        for step in advances
    ]
    if rows:
        connection.execute(_ADVANCE, parameters(rows))


def count_starts(connection: WriteConnection, starts: dict[JobId, int]) -> None:
    """Add to the jobs' counts of executions that started."""
    if starts:
        connection.execute(_COUNT_STARTS, parameters(sorted(starts.items())))


def mark_broken(connection: WriteConnection, broken: BrokenJob, *, now: datetime) -> None:
    """Take a job that cannot be read out of the schedule, keeping it and the reason."""
    changed = connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == broken.id, jobs.c.revision == broken.revision)
        .values(
            revision=jobs.c.revision + 1,
            state=JobState.BROKEN,
            state_reason=broken.problem,
            next_run_us=None,
            updated_us=to_us(now),
        )
    )
    if changed.rowcount:
        _copy_revision(connection, broken.id, Change.BROKEN, accounted=None, actor=None)


def _due(rows: Sequence[Any]) -> tuple[list[DueJob], list[BrokenJob]]:
    due: list[DueJob] = []
    broken: list[BrokenJob] = []
    for row in rows:
        try:
            due.append(_due_job(row))
        except UnreadableDefinitionError as error:
            broken.append(BrokenJob(id=JobId(row.id), revision=row.revision, problem=str(error)))
    return due, broken


def _due_job(row: Any) -> DueJob:
    job_id, revision, epoch, schedule, policy, anchor_us, host, cursor_us, next_run_us = row
    return DueJob(
        id=JobId(job_id),
        revision=revision,
        clock_epoch=epoch,
        schedule=load_schedule(schedule),
        policy=load_policy(policy),
        anchor=from_us(anchor_us),
        host=host,
        cursor=from_us(cursor_us),
        next_run_time=from_us(next_run_us),
    )


def _values(job: Job) -> dict[str, object]:
    return {
        **_definition_values(job),
        "id": job.id,
        "revision": job.revision,
        "state": job.state,
        "state_reason": job.state_reason,
        "host": _host(job),
        "anchor_us": to_us(job.anchor),
        "clock_epoch": job.clock_epoch,
        "cursor_us": to_us(job.cursor),
        "next_run_us": None if job.next_run_time is None else to_us(job.next_run_time),
        "execution_count": job.execution_count,
        "created_us": to_us(job.created_at),
        "updated_us": to_us(job.updated_at),
    }


def _definition_values(job: Job) -> dict[str, object]:
    definition = job.definition
    assert definition is not None, "only readable jobs are written"
    return {
        "name": definition.name,
        "schedule": dump_schedule(definition.schedule),
        "policy": dump_policy(definition.policy),
        "delivery": dump_delivery(definition.delivery),
    }


def _host(job: Job) -> str:
    assert job.definition is not None, "only readable jobs are written"
    return host_of(job.definition.delivery.target.url)


def _insert_revision(
    connection: WriteConnection,
    job: Job,
    change: Change,
    *,
    accounted: datetime,
    actor: str | None,
) -> None:
    connection.execute(
        sa.insert(job_revisions),
        {
            **_definition_values(job),
            "job_id": job.id,
            "revision": job.revision,
            "changed_us": to_us(job.updated_at),
            "change": change,
            "actor": actor,
            "state": job.state,
            "host": _host(job),
            "anchor_us": to_us(job.anchor),
            "clock_epoch": job.clock_epoch,
            "since_us": to_us(job.cursor),
            "before_us": to_us(accounted),
        },
    )


def _copy_revision(
    connection: WriteConnection,
    job_id: JobId,
    change: Change,
    *,
    accounted: datetime | None,
    actor: str | None,
) -> None:
    """Write the revision of a job as it is stored; ``accounted`` None: up to its cursor."""
    before = jobs.c.cursor_us if accounted is None else sa.literal(to_us(accounted))
    documents = ("name", "schedule", "policy", "delivery", "host")
    copied = ("state", *documents, "anchor_us", "clock_epoch")
    own = ("job_id", "revision", "changed_us", "change", "actor", "since_us", "before_us")
    columns = [*own, *copied]
    source = sa.select(
        jobs.c.id,
        jobs.c.revision,
        jobs.c.updated_us,
        sa.literal(change),
        sa.literal(actor, sa.Text),
        jobs.c.cursor_us,
        before,
        *(jobs.c[name] for name in copied),
    ).where(jobs.c.id == job_id)
    connection.execute(sa.insert(job_revisions).from_select(columns, source))


def to_job(row: Any) -> Job:
    """Read a job from a row of its table; one that cannot be read is shown as broken."""
    definition, problem = _definition(row)
    next_run_us, state = row["next_run_us"], JobState(row["state"])
    if problem is not None and state is not JobState.DELETED:
        state = JobState.BROKEN
    return Job(
        id=JobId(row["id"]),
        revision=row["revision"],
        definition=definition,
        state=state,
        state_reason=row["state_reason"] or problem,
        anchor=from_us(row["anchor_us"]),
        clock_epoch=row["clock_epoch"],
        cursor=from_us(row["cursor_us"]),
        next_run_time=None if next_run_us is None else from_us(next_run_us),
        execution_count=row["execution_count"],
        created_at=from_us(row["created_us"]),
        updated_at=from_us(row["updated_us"]),
    )


def _definition(row: Any) -> tuple[JobDefinition | None, str | None]:
    try:
        definition = JobDefinition(
            name=row["name"],
            schedule=load_schedule(row["schedule"]),
            policy=load_policy(row["policy"]),
            delivery=load_delivery(row["delivery"]),
        )
    except UnreadableDefinitionError as error:
        return None, str(error)
    return definition, None
