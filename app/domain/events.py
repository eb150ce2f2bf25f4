"""What happened, once it is committed. Subscribers may lose an event; the ledger loses nothing."""

from dataclasses import dataclass

from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.record import record


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """A job was created, edited, paused, resumed, triggered or deleted: read it again."""

    job_id: JobId


@record
class ExecutionEnded:
    """An execution reached its final state, or ``retrying`` (then another attempt follows)."""

    execution_id: ExecutionId
    job_id: JobId
    status: ExecutionStatus
    reason: Reason | None
    http_status: int | None
    attempts: int
    lateness_ms: int
    duration_ms: int
    error: str | None
    # Who made the last attempt.
    replica: str


Event = JobChanged | ExecutionEnded
