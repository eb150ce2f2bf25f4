"""SQL that moves executions through their states: waiting, claimed, ended, rescued.

Each change is a compare-and-set. A claim takes only what still waits; an outcome is written only by
the owner under its fence, so a process that lost its lease changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import (
    Attempt,
    ClaimedRun,
    ExecutionStatus,
    Outcome,
    Reason,
    WaitingRun,
)
from app.domain.ids import ExecutionId, JobId
from app.domain.record import record
from app.models.tables import attempts, executions, job_revisions
from app.repositories import host_repository, slot_repository
from app.repositories.batch import IDS, Batch, Gathered, id_parameters, parameters
from app.repositories.database_clock import PRESENT_US
from app.repositories.definition_codec import (
    UnreadableDefinitionError,
    load_delivery,
    load_policy,
)
from app.repositories.ledger_conditions import (
    NAMED_RUNNING,
    NAMED_WAITING,
    OF_ITS_REVISION,
)
from app.repositories.unreadable_repository import UnreadableRun

_MICROSECOND = timedelta(microseconds=1)
# Which attempt of which execution, by whom: execution, owner, fence, number.
_AttemptKey: TypeAlias = tuple[ExecutionId, str, int, int]

_other = executions.alias()
_BUSY = sa.exists().where(
    _other.c.job_id == executions.c.job_id,
    _other.c.status == sa.literal_column(f"'{ExecutionStatus.RUNNING}'"),
    _other.c.exclusive == sa.literal_column("1"),
)
_CLAIMABLE = Gathered(
    sa.select(
        executions.c.id,
        executions.c.attempts,
        executions.c.retries,
        executions.c.scheduled_us,
        executions.c.started_us,
        executions.c.job_revision,
        executions.c.exclusive,
        executions.c.next_attempt_us,
        job_revisions.c.delivery,
        job_revisions.c.policy,
    )
    .join_from(executions, job_revisions, OF_ITS_REVISION)
    .where(
        IDS.holds(executions.c.id, "id"),
        NAMED_WAITING,
        sa.or_(executions.c.exclusive == 0, ~_BUSY),
    )
    .with_for_update(of=executions, skip_locked=True)
)
_CLAIMS = Batch(text=("id", "slot_host"), integers=("lease_us", "number", "first_us"))
_CLAIM = (
    sa.update(executions)
    .where(_CLAIMS.joins(executions.c.id, "id"), NAMED_WAITING)
    .values(
        status=ExecutionStatus.RUNNING,
        owner=sa.bindparam("new_owner"),
        fence=sa.bindparam("new_fence"),
        lease_until_us=PRESENT_US + _CLAIMS["lease_us"],
        attempts=_CLAIMS["number"],
        started_us=_CLAIMS["first_us"],
        slot_host=_CLAIMS["slot_host"],
        attempt_started_us=sa.bindparam("now_us"),
        next_attempt_us=None,
        reason=None,
        outcome=None,
        attempt_reason=None,
        http_status=None,
        response_bytes=None,
        error=None,
        response_excerpt=None,
    )
)
_LIVE_ATTEMPTS = Gathered(
    sa.select(
        executions.c.id,
        executions.c.owner,
        executions.c.fence,
        executions.c.attempts,
        executions.c.stop_reason,
    )
    .where(IDS.holds(executions.c.id, "id"))
    .where(NAMED_RUNNING)
    .order_by(executions.c.id)
    .with_for_update()
)
_ENDINGS = Batch(
    text=("id", "owner", "status", "reason", "outcome", "attempt_reason", "error",
          "response_excerpt"),
    integers=("fence", "attempts", "http_status", "response_bytes", "finished_us",
              "next_attempt_us", "retries"),
)  # fmt: skip
_WHOSE = ("owner", "fence", "attempts")
_RECORD = (
    sa.update(executions)
    .where(
        _ENDINGS.joins(executions.c.id, "id"),
        *(executions.c[name] == _ENDINGS[name] for name in _WHOSE),
        NAMED_RUNNING,
    )
    .values(
        {name: _ENDINGS[name] for name in _ENDINGS.names if name not in ("id", *_WHOSE)}
        | {"owner": None, "fence": None, "lease_until_us": None, "slot_host": None}
        # An attempt that another one follows has its own row, with its owner.
        | {"sent_by": sa.case((_ENDINGS["next_attempt_us"].is_(None), executions.c.owner))}
    )
)
_KEEP_ATTEMPT = sa.insert(attempts)


class _Claimable(NamedTuple):
    """A row of ``_CLAIMABLE``."""

    id: str
    attempts: int
    retries: int
    scheduled_us: int
    started_us: int | None
    job_revision: int
    exclusive: int
    next_attempt_us: int
    delivery: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who claims, under which fence, and how long beyond its deadline an attempt is trusted.

    ``lease_span``: the most of an attempt that its lease covers; None: all of it.
    """

    owner: str
    fence: int
    now: datetime
    lease_margin: timedelta
    lease_span: timedelta | None = None


@record
class Ending:
    """What one attempt does to its execution.

    ``next_attempt_at`` is set exactly when ``status`` is ``retrying``; ``retries`` is the new
    count.
    """

    execution_id: ExecutionId
    number: int
    owner: str
    fence: int
    started_at: datetime
    ended_at: datetime
    status: ExecutionStatus
    reason: Reason | None
    outcome: Outcome
    retries: int
    next_attempt_at: datetime | None


def claim_runs(
    connection: WriteConnection, waiting: Sequence[WaitingRun], claim: Claim
) -> tuple[list[ClaimedRun], list[UnreadableRun]]:
    """Take those of ``waiting`` that still wait; their attempts' intent is in this transaction.

    What was cancelled or claimed by another is left out of the answer, and so is what waits longer
    now than ``waiting`` says (its attempt failed meanwhile, and this would be its retry), and an
    exclusive run of a job that has one running (the row of a lost attempt, until it is rescued).
    """
    now_us = to_us(claim.now)
    free = slot_repository.free_slots(connection, waiting)
    rows = _claimable(connection, [run.id for run in waiting])
    claimed: list[ClaimedRun] = []
    unreadable: list[UnreadableRun] = []
    exclusive_jobs: set[JobId] = set()
    for run in waiting:
        row = rows.get(run.id)
        if row is None or _waits_longer(row, run, now_us):
            continue
        if free.get(run.job_id, 1) < 1 or (row.exclusive and run.job_id in exclusive_jobs):
            continue
        try:
            claimed.append(_claimed(run, row, claim))
        except (UnreadableDefinitionError, OverflowError) as error:
            of_job = isinstance(error, UnreadableDefinitionError)
            unreadable.append(
                UnreadableRun(execution_id=run.id, problem=str(error), breaks_job=of_job)
            )
        if row.exclusive:
            exclusive_jobs.add(run.job_id)
        if run.job_id in free:
            free[run.job_id] -= 1
    if claimed:
        values = parameters(
            [
                _claim_values(run, claim, host_repository.slot_of(connection, run.waiting))
                for run in claimed
            ],
            new_owner=claim.owner,
            new_fence=claim.fence,
            now_us=now_us,
        )
        connection.execute(_CLAIM, values)
    return claimed, unreadable


def record_endings(connection: WriteConnection, endings: Sequence[Ending]) -> list[Ending]:
    """Write what attempts came to; return what was written.

    Left out are executions that were no longer this owner's. An ending that wanted another attempt
    ends its execution instead if the job was paused, deleted or cancelled meanwhile. An attempt
    that another one follows is kept in ``attempts``; the last one stays on its execution's row.
    """
    if not endings:
        return []
    live = _live_attempts(connection, [ending.execution_id for ending in endings])
    mine = [
        _stopped(ending, live[attempt]) for ending in endings if (attempt := _key(ending)) in live
    ]
    followed = [ending for ending in mine if ending.status is ExecutionStatus.RETRYING]
    if followed:
        connection.execute(_KEEP_ATTEMPT, [_attempt_values(ending) for ending in followed])
    if mine:
        connection.execute(_RECORD, parameters([_record_values(ending) for ending in mine]))
    return mine


def _live_attempts(
    connection: WriteConnection, ids: Sequence[ExecutionId]
) -> dict[_AttemptKey, Reason | None]:
    """Find the attempts under way of executions, keeping others from ending them.

    The value is why no further attempt may follow, if so.
    """
    live: dict[_AttemptKey, Reason | None] = {}
    found = _LIVE_ATTEMPTS.fetch(connection, id_parameters(ids))
    for execution_id, owner, fence, number, stop_reason in found:
        stop = None if stop_reason is None else Reason(stop_reason)
        live[execution_id, owner, fence, number] = stop
    return live


def _key(ending: Ending) -> _AttemptKey:
    return ending.execution_id, ending.owner, ending.fence, ending.number


def _stopped(ending: Ending, stop_reason: Reason | None) -> Ending:
    if stop_reason is None or ending.status is not ExecutionStatus.RETRYING:
        return ending
    return replace(
        ending, status=ExecutionStatus.CANCELLED, reason=stop_reason, next_attempt_at=None
    )


def _claimable(
    connection: WriteConnection, ids: Sequence[ExecutionId]
) -> dict[ExecutionId, _Claimable]:
    """Read and lock those that may be claimed."""
    found = _CLAIMABLE.fetch(connection, id_parameters(ids))
    return {row[0]: _Claimable(*row) for row in found}


def _waits_longer(row: _Claimable, waiting: WaitingRun, now_us: int) -> bool:
    """Tell whether a run's time has been put off, since it was found, to one that is to come.

    A time that is to come may be as old as the run itself: the clock was set back.
    """
    at_us = row.next_attempt_us
    return at_us > now_us and at_us > to_us(waiting.next_attempt_at)


def _claimed(waiting: WaitingRun, row: _Claimable, claim: Claim) -> ClaimedRun:
    delivery = load_delivery(row.delivery)
    first_us = row.started_us if row.started_us is not None else to_us(claim.now)
    return ClaimedRun(
        waiting=waiting,
        attempt=Attempt(
            execution_id=waiting.id,
            job_id=waiting.job_id,
            job_revision=row.job_revision,
            number=row.attempts + 1,
            scheduled_for=from_us(row.scheduled_us),
            started_at=claim.now,
            timeout=delivery.timeout,
            target=delivery.target,
        ),
        delivery=delivery,
        policy=load_policy(row.policy),
        retries=row.retries,
        first_started_at=from_us(first_us),
        fence=claim.fence,
    )


def _claim_values(run: ClaimedRun, claim: Claim, slot_host: str | None) -> tuple[object, ...]:
    """Make a row of ``_CLAIMS``."""
    timeout, span = run.delivery.timeout, claim.lease_span
    covered = timeout if span is None else min(timeout, span)
    return (
        run.attempt.execution_id,
        slot_host,
        (covered + claim.lease_margin) // _MICROSECOND,
        run.attempt.number,
        to_us(run.first_started_at),
    )


def _record_values(ending: Ending) -> tuple[object, ...]:
    """Make a row of ``_ENDINGS``."""
    outcome, next_at = ending.outcome, ending.next_attempt_at
    return (
        ending.execution_id,
        ending.owner,
        ending.status,
        ending.reason,
        outcome.kind,
        outcome.reason,
        outcome.error,
        outcome.response_excerpt,
        ending.fence,
        ending.number,
        outcome.http_status,
        outcome.response_bytes,
        None if next_at is not None else to_us(ending.ended_at),
        None if next_at is None else to_us(next_at),
        ending.retries,
    )


def _attempt_values(ending: Ending) -> dict[str, object]:
    outcome = ending.outcome
    return {
        "execution_id": ending.execution_id,
        "number": ending.number,
        "owner": ending.owner,
        "fence": ending.fence,
        "started_us": to_us(ending.started_at),
        "ended_us": to_us(ending.ended_at),
        "outcome": outcome.kind,
        "reason": outcome.reason,
        "http_status": outcome.http_status,
        "response_bytes": outcome.response_bytes,
        "error": outcome.error,
        "response_excerpt": outcome.response_excerpt,
    }
