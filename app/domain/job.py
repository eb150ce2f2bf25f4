"""A job: a stored definition, its schedule's state, and what it calls."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.ids import JobId
from app.domain.policies import RetryPolicy, RunPolicy
from app.domain.record import record
from app.domain.schedule import Schedule


class JobState(StrEnum):
    """Where a job is in its life.

    ``active ⇄ paused``; ``active → finished`` when its schedule has no further instant;
    ``→ broken`` when it cannot be read or computes nonsense, ``→ active`` by an edit;
    ``→ deleted`` leaves a tombstone that a new job of the same id revives.
    """

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"
    BROKEN = "broken"
    DELETED = "deleted"


class Change(StrEnum):
    """What made a new revision of a job."""

    CREATED = "created"
    EDITED = "edited"
    PAUSED = "paused"
    RESUMED = "resumed"
    DELETED = "deleted"
    BROKEN = "broken"
    # The machine's clock was set back behind what the job has accounted for.
    CLOCK_SET_BACK = "clock_set_back"


class BodyType(StrEnum):
    """How a body is put on the wire."""

    JSON = "json"
    FORM = "form"
    RAW = "raw"


@record
class HttpTarget:
    """One HTTP call.

    ``url`` goes out byte for byte. ``body_json`` is the body as JSON text (None: no body), whatever
    ``body_type`` makes of it; it is sent for POST, PUT and PATCH only.
    ``headers`` keep the user's order and spelling. ``success_statuses`` beyond 2xx do not exist.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body_json: str | None = None
    body_type: BodyType = BodyType.JSON
    follow_redirects: bool = False


@record
class Delivery:
    """What a claimed run needs: whom to call, how long one attempt may take, how often to retry."""

    target: HttpTarget
    timeout: timedelta
    retry: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """What a user asked for; replaced as a whole by an edit."""

    name: str
    schedule: Schedule
    policy: RunPolicy
    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stored job.

    ``revision`` grows with every change of definition or state. ``anchor`` is when the schedule
    was set: the first instant lies after it. ``clock_epoch`` tells apart the due instants of a
    re-created job from those of its predecessor. ``execution_count`` counts executions that
    started.
    """

    id: JobId
    revision: int
    # None only in a broken job whose stored definition cannot be read.
    definition: JobDefinition | None
    state: JobState
    state_reason: str | None
    anchor: datetime
    clock_epoch: int
    # Every due instant up to here has its ledger row, beyond it none has.
    cursor: datetime
    next_run_time: datetime | None
    execution_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPosition:
    """A job's place in the list; ``next_run_us`` None: behind all that have a next run time."""

    next_run_us: int | None
    id: str


@record
class DueJob:
    """What a tick needs of an active job whose next instant is near.

    ``definition`` documents that cannot be read raise when the row is mapped, so a ``DueJob`` is
    always whole. ``host`` is the key of the per-host limit.
    """

    id: JobId
    revision: int
    clock_epoch: int
    schedule: Schedule
    policy: RunPolicy
    anchor: datetime
    host: str
    # Every due instant up to here has its ledger row.
    cursor: datetime
    next_run_time: datetime
