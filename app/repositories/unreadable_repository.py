"""SQL that ends what cannot be read: a waiting run whose definition is damaged, and its job."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import from_us
from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.job import JobState
from app.models.tables import executions, jobs
from app.repositories import job_repository
from app.repositories.job_repository import BrokenJob
from app.repositories.ledger_conditions import WAITING

_OF_PRESENT_REVISION = (
    sa.select(jobs.c.id, jobs.c.revision)
    .join_from(executions, jobs, executions.c.job_id == jobs.c.id)
    .where(
        executions.c.id == sa.bindparam("execution_id"),
        executions.c.job_revision == jobs.c.revision,
        jobs.c.state.in_([JobState.ACTIVE, JobState.FINISHED]),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRun:
    """A waiting execution whose definition cannot be read; it can only be ended."""

    execution_id: ExecutionId
    problem: str
    # False: the definition is sound, the execution's own row is damaged.
    breaks_job: bool = True


def end_unreadable(
    connection: WriteConnection, runs: Sequence[UnreadableRun], now_us: int
) -> list[BrokenJob]:
    """End waiting executions that can never be sent, saying why; return the jobs this breaks.

    A job is marked broken, once, if its present revision is the one that cannot be read: its
    further instants would come to nothing either. One that is paused stays so.
    """
    broken: list[BrokenJob] = []
    for run in runs:
        connection.execute(
            sa.update(executions)
            .where(executions.c.id == run.execution_id, WAITING)
            .values(
                status=ExecutionStatus.FAILED,
                reason=Reason.BROKEN,
                error=f"The job's definition is broken: {run.problem}",
                finished_us=now_us,
                next_attempt_us=None,
            )
        )
        row = connection.execute(_OF_PRESENT_REVISION, {"execution_id": run.execution_id}).first()
        if row is not None and run.breaks_job:
            job = BrokenJob(id=JobId(row.id), revision=row.revision, problem=run.problem)
            job_repository.mark_broken(connection, job, now=from_us(now_us))
            broken.append(job)
    return broken
