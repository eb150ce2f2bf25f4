"""Executions as the API answers them, in the words that existing clients know."""

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from app.domain.catalogue import reason_entry
from app.domain.execution import AttemptRecord, Execution, ExecutionStatus, Reason
from app.schemas.reason_answer import Explanation, to_explanation
from app.schemas.times import show_instant
from app.services.cancellation_service import Cancellation

_STILL_ENDING = (
    "No further attempt will start; the one under way is being ended. If the process that makes it "
    "does not answer any more, that is recorded once the attempt's lease is over, about half a "
    "minute from now"
)
_MILLISECOND = timedelta(milliseconds=1)


class ExecutionResult(BaseModel):
    """What the target answered."""

    success: bool
    status_code: int | None
    response_size: int | None
    response_body: str | None = Field(description="Text, cut at the configured size.")
    error_message: str | None
    attempts: int


class ExecutionAnswer(BaseModel):
    """One entry of the ledger."""

    execution_id: str = Field(examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])
    job_id: str
    status: str = Field(examples=["completed"])
    reason: str | None
    cause: str = Field(examples=["schedule"])
    scheduled_for: str
    scheduled_until: str | None = Field(
        description="Set when this entry stands for many instants that did not run."
    )
    instant_count: int
    queued_at: str = Field(description="When this entry was written.")
    started_at: str | None
    completed_at: str | None
    next_attempt_at: str | None
    lateness_ms: int | None = Field(description="Start minus due time.")
    execution_time_ms: int | None = Field(
        description="First attempt's start to the end, waits included."
    )
    attempts: int
    http_status_code: int | None
    response_size: int | None
    error_message: str | None
    replica: str | None = Field(
        examples=["myscheduler-7d9c-x2x4k:1:9f86d081884c"],
        description="The process that makes the last attempt or made it: host, process id and, "
        "among replicas, a part of its own. Null where none was made, and while the execution "
        "waits for its next attempt.",
    )
    result: ExecutionResult | None


class ExecutionPage(BaseModel):
    """Executions, newest first."""

    executions: list[ExecutionAnswer]
    count: int = Field(description="Number of executions in this answer.")
    total: int | None = Field(
        description="Number of executions that match in all; null where only `total_at_least` "
        "is known without reading them."
    )
    total_at_least: int | None = Field(description="At least so many match; null with `total`.")
    next_cursor: str | None = Field(description="Ask with ?cursor= for what follows.")


class JobExecutionPage(ExecutionPage):
    """A job's executions, newest first."""

    job_id: str


class AttemptAnswer(BaseModel):
    """One try of an execution."""

    number: int
    started_at: str
    ended_at: str | None
    outcome: str | None
    reason: str | None
    http_status_code: int | None
    response_size: int | None
    error_message: str | None
    replica: str | None = Field(
        description="The process that made it, or was to; null where an older version wrote it."
    )


class ExecutionDetailAnswer(ExecutionAnswer):
    """One entry of the ledger with all its attempts."""

    explanation: Explanation | None = Field(
        description="What `reason` means and what to do, in two languages; null without a reason."
    )
    attempt_list: list[AttemptAnswer]


class CancelAnswer(BaseModel):
    """An execution that was cancelled; no further attempt of it starts."""

    execution_id: str = Field(examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])
    job_id: str
    status: str = Field(
        examples=["cancelled"], description="`cancelled`, or `running` until that is recorded."
    )
    detail: str | None = Field(description="What is still under way; null when nothing is.")


def to_cancelled(cancelled: Cancellation) -> CancelAnswer:
    """Answer a cancellation."""
    status = ExecutionStatus.CANCELLED if cancelled.recorded else ExecutionStatus.RUNNING
    return CancelAnswer(
        execution_id=cancelled.execution_id,
        job_id=cancelled.job_id,
        status=status.value,
        detail=None if cancelled.recorded else _STILL_ENDING,
    )


def to_execution(execution: Execution, zone: str) -> ExecutionAnswer:
    """Show an execution in its job's zone."""
    # Validation is compiled, and so takes a tenth of what model_construct does.
    return ExecutionAnswer.model_validate(_fields(execution, zone))


def to_execution_detail(
    execution: Execution, attempts: list[AttemptRecord], zone: str
) -> ExecutionDetailAnswer:
    """Show an execution with its attempts."""
    return ExecutionDetailAnswer.model_validate(
        {
            **_fields(execution, zone),
            "explanation": _explanation(execution.reason),
            "attempt_list": [_attempt(attempt, zone) for attempt in attempts],
        }
    )


def _fields(execution: Execution, zone: str) -> dict[str, Any]:
    error = _error(execution)
    return {
        "execution_id": execution.id,
        "job_id": execution.job_id,
        "status": execution.status.value,
        "reason": None if execution.reason is None else execution.reason.value,
        "cause": execution.cause.value,
        "scheduled_for": show_instant(execution.scheduled_for, zone),
        "scheduled_until": show_instant(execution.scheduled_until, zone),
        "instant_count": execution.instant_count,
        "queued_at": show_instant(execution.queued_at, zone),
        "started_at": show_instant(execution.started_at, zone),
        "completed_at": show_instant(execution.finished_at, zone),
        "next_attempt_at": show_instant(execution.next_attempt_at, zone),
        "lateness_ms": _lateness_ms(execution),
        "execution_time_ms": _execution_time_ms(execution),
        "attempts": execution.attempts,
        "http_status_code": execution.http_status,
        "response_size": execution.response_bytes,
        "error_message": error,
        "replica": execution.replica,
        "result": _result(execution, error),
    }


def _explanation(reason: Reason | None) -> Explanation | None:
    return None if reason is None else to_explanation(reason_entry(reason))


def _result(execution: Execution, error: str | None) -> dict[str, Any] | None:
    if execution.finished_at is None and execution.error is None:
        return None
    return {
        "success": execution.status is ExecutionStatus.COMPLETED,
        "status_code": execution.http_status,
        "response_size": execution.response_bytes,
        "response_body": execution.response_excerpt,
        "error_message": error,
        "attempts": execution.attempts,
    }


def _error(execution: Execution) -> str | None:
    """Tell what went wrong, or why nothing ran; never empty for one that did not complete."""
    if execution.status is ExecutionStatus.COMPLETED:
        return None
    if execution.error is not None or execution.reason is None:
        return execution.error
    return reason_entry(execution.reason).cause.en


def _lateness_ms(execution: Execution) -> int | None:
    if execution.started_at is None:
        return None
    return (execution.started_at - execution.scheduled_for) // _MILLISECOND


def _execution_time_ms(execution: Execution) -> int | None:
    if execution.started_at is None or execution.finished_at is None:
        return None
    return (execution.finished_at - execution.started_at) // _MILLISECOND


def _attempt(attempt: AttemptRecord, zone: str) -> AttemptAnswer:
    return AttemptAnswer(
        number=attempt.number,
        started_at=show_instant(attempt.started_at, zone) or "",
        ended_at=show_instant(attempt.ended_at, zone),
        outcome=None if attempt.outcome is None else attempt.outcome.value,
        reason=None if attempt.reason is None else attempt.reason.value,
        http_status_code=attempt.http_status,
        response_size=attempt.response_bytes,
        error_message=attempt.error,
        replica=attempt.replica,
    )
