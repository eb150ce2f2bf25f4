"""SQL on executions that are marked running while nobody runs them, and what becomes of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import AttemptOutcome, Outcome, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.policies import OnCrash, RunPolicy
from app.models.tables import executions, job_revisions
from app.repositories.database_clock import PRESENT_US
from app.repositories.definition_codec import UnreadableDefinitionError, load_policy
from app.repositories.ledger_conditions import OF_ITS_REVISION, RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRun:
    """An execution that is marked running while nobody runs it."""

    execution_id: ExecutionId
    job_id: JobId
    host: str
    owner: str
    fence: int
    number: int
    retries: int
    attempt_started_at: datetime
    policy: RunPolicy | None


def orphan_runs(connection: ReadConnection, *, now: datetime | None, limit: int) -> list[OrphanRun]:
    """Read running executions whose lease is over (``now`` None: all that run).

    Those that are over longest come first. Among replicas the database's clock decides, not
    ``now``: a replica whose clock is ahead must not take others' attempts for lost.
    """
    statement = (
        sa.select(executions, job_revisions.c.host, job_revisions.c.policy)
        .join_from(executions, job_revisions, OF_ITS_REVISION)
        .where(RUNNING)
        .order_by(executions.c.lease_until_us)
        .limit(limit)
    )
    if now is None:
        found = connection.execute(statement)
    else:
        over = executions.c.lease_until_us < PRESENT_US
        found = connection.execute(statement.where(over), {"now_us": to_us(now)})
    return [_orphan(row) for row in found.mappings()]


def on_crash(run: OrphanRun) -> OnCrash:
    """Tell what an orphan's job wants; a job that cannot be read is not sent again."""
    return OnCrash.FAIL if run.policy is None else run.policy.on_crash


def lost(run: OrphanRun) -> Outcome:
    """Describe the attempt of an orphan: bytes may have left, no answer was kept."""
    return Outcome(
        kind=AttemptOutcome.LOST,
        reason=Reason.CRASH,
        error=(
            f"The process that made attempt {run.number} ended before its outcome was recorded; "
            "the target may or may not have received the request"
        ),
    )


def _orphan(row: Any) -> OrphanRun:
    try:
        policy = load_policy(row["policy"])
    except UnreadableDefinitionError:
        policy = None
    return OrphanRun(
        execution_id=ExecutionId(row["id"]),
        job_id=JobId(row["job_id"]),
        host=row["host"],
        owner=row["owner"],
        fence=row["fence"],
        number=row["attempts"],
        retries=row["retries"],
        attempt_started_at=from_us(row["attempt_started_us"]),
        policy=policy,
    )
