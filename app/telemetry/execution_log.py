"""One INFO line for every execution that ended; retries to come are DEBUG."""

import structlog

from app.domain.events import Event, ExecutionEnded
from app.domain.execution import ExecutionStatus

log = structlog.get_logger("app.execution")


def log_execution(event: Event) -> None:
    """Write the line of an ended execution; other events are not for people."""
    if not isinstance(event, ExecutionEnded):
        return
    write = log.debug if event.status is ExecutionStatus.RETRYING else log.info
    write(
        "execution.finished",
        job_id=event.job_id,
        execution_id=event.execution_id,
        status=event.status.value,
        reason=None if event.reason is None else event.reason.value,
        http_status=event.http_status,
        attempts=event.attempts,
        lateness_ms=event.lateness_ms,
        duration_ms=event.duration_ms,
        error=event.error,
        replica=event.replica,
    )
