"""Executions: one row of the ledger each, from due instant to one true end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.ids import ExecutionId, JobId
from app.domain.job import Delivery, HttpTarget
from app.domain.policies import RunPolicy
from app.domain.record import record


class ExecutionStatus(StrEnum):
    """The closed set of states; the second group is final and never changes."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    MISSED = "missed"


FINAL_STATUSES = frozenset(
    {
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CANCELLED,
        ExecutionStatus.UNKNOWN,
        ExecutionStatus.SKIPPED,
        ExecutionStatus.MISSED,
    }
)


class Cause(StrEnum):
    """Why an execution exists."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    MANUAL = "manual"
    CHAIN = "chain"
    REPLAY = "replay"
    BACKFILL = "backfill"


class Reason(StrEnum):
    """Why an execution failed, was cancelled, is unknown, was skipped or missed."""

    STATUS = "status"
    TIMEOUT = "timeout"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    PROTOCOL = "protocol"
    RESPONSE_TOO_LARGE = "response_too_large"
    ASSERTION = "assertion"
    EGRESS_DENIED = "egress_denied"
    RETRIES_EXHAUSTED = "retries_exhausted"
    CONFIG_ERROR = "config_error"

    OVERLAP = "overlap"
    QUEUE_FULL = "queue_full"
    PAUSED = "paused"
    COALESCED = "coalesced"
    DST_GAP = "dst_gap"
    DST_FOLD = "dst_fold"
    EXPIRED = "expired"
    BLACKOUT = "blackout"
    DEPENDENCY = "dependency"
    JOB_DELETED = "job_deleted"

    SCHEDULER_DOWN = "scheduler_down"
    TOO_LATE = "too_late"
    LIMIT = "limit"

    CRASH = "crash"
    SHUTDOWN = "shutdown"
    USER = "user"
    BROKEN = "broken"


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    RESPONSE = "response"
    CONNECT_ERROR = "connect_error"
    TIMEOUT = "timeout"
    PROTOCOL_ERROR = "protocol_error"
    TOO_LARGE = "too_large"
    BLOCKED = "blocked"
    INTERRUPTED = "interrupted"
    LOST = "lost"


@record
class Attempt:
    """One try of one execution, as a runner gets it. Its intent is already committed.

    ``number`` counts from 1. ``timeout`` is the total from now to the last byte.
    ``job_revision`` names the definition that ``target`` belongs to, so that a runner may prepare a
    request once per revision.
    """

    execution_id: ExecutionId
    job_id: JobId
    job_revision: int
    number: int
    scheduled_for: datetime
    started_at: datetime
    timeout: timedelta
    target: HttpTarget


@record
class Outcome:
    """What an attempt came to. A target that answers 500 is an outcome, not an exception.

    ``reason`` is None exactly when the attempt succeeded (2xx); then ``error`` is None too, else it
    is a sentence, never empty. ``http_status`` is None when no answer's head was received.
    ``response_bytes`` counts body bytes as received on the wire (after a cut: up to the cut).
    ``response_excerpt`` is text, safe to store and to encode as UTF-8, cut at the runner's cap.
    ``retry_after`` is what the target asked for, already bounded below by zero.
    ``sent`` is False only when it is certain that no byte left for the target.
    """

    kind: AttemptOutcome
    reason: Reason | None = None
    http_status: int | None = None
    response_bytes: int | None = None
    response_excerpt: str | None = None
    error: str | None = None
    retry_after: timedelta | None = None
    sent: bool = True

    @property
    def succeeded(self) -> bool:
        """Tell whether the target answered with 2xx."""
        return self.reason is None


@record
class NewExecution:
    """A ledger row about to be written by a tick, a trigger or a chain.

    ``status`` is ``queued`` (then ``next_attempt_at`` says from when it may start) or final at
    birth (``skipped``, ``missed``; then ``reason`` is set). ``until`` and ``instant_count`` make
    a stretch.
    """

    id: ExecutionId
    job_id: JobId
    job_revision: int
    clock_epoch: int
    cause: Cause
    scheduled_for: datetime
    status: ExecutionStatus
    reason: Reason | None = None
    next_attempt_at: datetime | None = None
    until: datetime | None = None
    instant_count: int = 1
    exclusive: bool = True


@record
class WaitingRun:
    """An execution that waits for a worker: what is needed to order and limit claims.

    ``next_attempt_at`` may lie ahead. ``job_slots`` is how many of its job may run at once (None:
    any number).
    """

    id: ExecutionId
    job_id: JobId
    host: str
    next_attempt_at: datetime
    job_slots: int | None


@record
class ClaimedRun:
    """An execution this process owns until ``lease_until``, with the attempt it is about to make.

    ``retries`` counts the retries spent before this attempt.
    """

    waiting: WaitingRun
    attempt: Attempt
    delivery: Delivery
    policy: RunPolicy
    retries: int
    first_started_at: datetime
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt as history shows it; ``ended_at`` and ``outcome`` are None while it is live.

    ``replica`` names the process that made it, or was to; None if a version wrote it that did not
    keep the name.
    """

    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    reason: Reason | None
    http_status: int | None
    response_bytes: int | None
    error: str | None
    replica: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One row of the ledger, as history shows it.

    ``scheduled_until`` and ``instant_count`` describe a stretch: many instants that did not run
    for one reason. ``queued_at`` is when the row was written, ``started_at`` the first attempt's
    start, ``finished_at`` the end; the fields from ``http_status`` on are those of the last
    attempt. ``sequence`` orders rows by birth. ``replica`` names the process that makes the last
    attempt or made it; None while the run waits, and if it made none.
    """

    sequence: int
    id: ExecutionId
    job_id: JobId
    job_revision: int
    cause: Cause
    status: ExecutionStatus
    reason: Reason | None
    scheduled_for: datetime
    scheduled_until: datetime | None
    instant_count: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    attempts: int
    http_status: int | None
    response_bytes: int | None
    response_excerpt: str | None
    error: str | None
    replica: str | None
