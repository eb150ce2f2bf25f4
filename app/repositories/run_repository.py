"""SQL that moves executions through their states: waiting, claimed, ended, rescued.

Each change is a compare-and-set. A claim takes only what still waits; an outcome is written only by
the owner under its fence, so a process that lost its lease changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import (
    Attempt,
    AttemptOutcome,
    ClaimedRun,
    ExecutionStatus,
    Outcome,
    Reason,
    WaitingRun,
)
from app.domain.ids import ExecutionId, JobId
from app.domain.policies import OnCrash, OverlapPolicy, RunPolicy
from app.models.tables import attempts, executions, job_revisions
from app.repositories import slot_repository
from app.repositories.definition_codec import (
    UnreadableDefinitionError,
    load_delivery,
    load_policy,
)
from app.repositories.job_repository import CHUNK
from app.repositories.ledger_conditions import RUNNING, WAITING

# Which attempt of which execution, by whom: execution, owner, fence, number.
_AttemptKey: TypeAlias = tuple[ExecutionId, str, int, int]

# An execution goes by the definition that was in force when it was queued.
_OF_ITS_REVISION = sa.and_(
    job_revisions.c.job_id == executions.c.job_id,
    job_revisions.c.revision == executions.c.job_revision,
)
_other = executions.alias()
_BUSY = sa.exists().where(
    _other.c.job_id == executions.c.job_id,
    _other.c.status == sa.literal_column(f"'{ExecutionStatus.RUNNING}'"),
    _other.c.exclusive == sa.literal_column("1"),
)
_CLAIMABLE = (
    sa.select(
        executions.c.id,
        executions.c.attempts,
        executions.c.retries,
        executions.c.scheduled_us,
        executions.c.started_us,
        executions.c.job_revision,
        executions.c.exclusive,
        job_revisions.c.delivery,
        job_revisions.c.policy,
    )
    .join_from(executions, job_revisions, _OF_ITS_REVISION)
    .where(
        executions.c.id.in_(sa.bindparam("ids", expanding=True)),
        WAITING,
        sa.or_(executions.c.exclusive == 0, ~_BUSY),
    )
    .with_for_update(of=executions, skip_locked=True)
)
_CLAIM = (
    sa.update(executions)
    .where(executions.c.id == sa.bindparam("execution_id"), WAITING)
    .values(
        status=ExecutionStatus.RUNNING,
        owner=sa.bindparam("new_owner"),
        fence=sa.bindparam("new_fence"),
        lease_until_us=sa.bindparam("new_lease_us"),
        attempts=sa.bindparam("number"),
        started_us=sa.bindparam("first_us"),
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
_RECORD = (
    sa.update(executions)
    .where(
        executions.c.id == sa.bindparam("execution_id"),
        RUNNING,
        executions.c.owner == sa.bindparam("my_owner"),
        executions.c.fence == sa.bindparam("my_fence"),
        executions.c.attempts == sa.bindparam("number"),
    )
    .values(
        status=sa.bindparam("new_status"),
        reason=sa.bindparam("new_reason"),
        outcome=sa.bindparam("new_outcome"),
        attempt_reason=sa.bindparam("new_attempt_reason"),
        http_status=sa.bindparam("new_http_status"),
        response_bytes=sa.bindparam("new_response_bytes"),
        error=sa.bindparam("new_error"),
        response_excerpt=sa.bindparam("new_response_excerpt"),
        finished_us=sa.bindparam("new_finished_us"),
        next_attempt_us=sa.bindparam("new_next_attempt_us"),
        retries=sa.bindparam("new_retries"),
        owner=None,
        fence=None,
        lease_until_us=None,
    )
)
_KEEP_ATTEMPT = sa.insert(attempts)
_ranked = (
    sa.select(
        executions.c.id,
        executions.c.job_id,
        executions.c.job_revision,
        executions.c.exclusive,
        executions.c.next_attempt_us,
        sa.func.row_number()
        .over(
            partition_by=executions.c.job_id,
            order_by=(executions.c.next_attempt_us, executions.c.seq),
        )
        .label("place"),
    )
    .where(WAITING, executions.c.next_attempt_us <= sa.bindparam("until_us"))
    .subquery("ranked")
)
_WAITING_RUNS = (
    sa.select(
        _ranked.c.id,
        _ranked.c.job_id,
        _ranked.c.exclusive,
        job_revisions.c.host,
        _ranked.c.next_attempt_us,
        job_revisions.c.policy,
    )
    .join_from(
        _ranked,
        job_revisions,
        sa.and_(
            job_revisions.c.job_id == _ranked.c.job_id,
            job_revisions.c.revision == _ranked.c.job_revision,
        ),
    )
    .where(_ranked.c.place <= sa.bindparam("per_job"))
    .order_by(_ranked.c.next_attempt_us)
    .limit(sa.bindparam("row_limit"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who claims, under which fence, and how long beyond its deadline an attempt is trusted."""

    owner: str
    fence: int
    now: datetime
    lease_margin: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRun:
    """A waiting execution whose definition cannot be read; it can only be ended."""

    execution_id: ExecutionId
    problem: str


def job_slots(policy: RunPolicy) -> int | None:
    """Tell how many executions of a job may run at once (None: any number)."""
    return None if policy.overlap is OverlapPolicy.ALLOW else policy.max_instances


def waiting_runs(
    connection: ReadConnection, *, until: datetime, limit: int, per_job: int
) -> tuple[list[WaitingRun], list[UnreadableRun]]:
    """Read what waits for a worker and may start by ``until``, soonest first.

    At most ``limit`` runs, and ``per_job`` of each job, so that one backlog hides no other job.
    """
    found: list[WaitingRun] = []
    unreadable: list[UnreadableRun] = []
    parameters = {"until_us": to_us(until), "row_limit": limit, "per_job": per_job}
    for execution_id, job_id, exclusive, host, next_attempt_us, policy in connection.execute(
        _WAITING_RUNS, parameters
    ):
        try:
            slots = job_slots(load_policy(policy))
        except UnreadableDefinitionError as error:
            unreadable.append(
                UnreadableRun(execution_id=ExecutionId(execution_id), problem=str(error))
            )
            continue
        found.append(
            WaitingRun(
                id=ExecutionId(execution_id),
                job_id=JobId(job_id),
                host=host,
                next_attempt_at=from_us(next_attempt_us),
                # A row written while its job allowed one at a time keeps to that.
                job_slots=1 if exclusive else slots,
            )
        )
    return found, unreadable


def claim_runs(
    connection: WriteConnection, waiting: Sequence[WaitingRun], claim: Claim
) -> tuple[list[ClaimedRun], list[UnreadableRun]]:
    """Take those of ``waiting`` that still wait; their attempts' intent is in this transaction.

    What was cancelled or claimed by another is left out of the answer, and so is an exclusive run
    of a job that has one running (the row of a lost attempt, until it is rescued).
    """
    free = slot_repository.free_slots(connection, waiting)
    rows = _claimable(connection, [run.id for run in waiting])
    claimed: list[ClaimedRun] = []
    unreadable: list[UnreadableRun] = []
    exclusive_jobs: set[JobId] = set()
    for run in waiting:
        row = rows.get(run.id)
        if row is None or (row.exclusive and run.job_id in exclusive_jobs):
            continue
        if free.get(run.job_id, 1) < 1:
            continue
        try:
            claimed.append(_claimed(run, row, claim))
        except (UnreadableDefinitionError, OverflowError) as error:
            unreadable.append(UnreadableRun(execution_id=run.id, problem=str(error)))
        if row.exclusive:
            exclusive_jobs.add(run.job_id)
        if run.job_id in free:
            free[run.job_id] -= 1
    if claimed:
        connection.execute(_CLAIM, [_claim_values(run, claim) for run in claimed])
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
        connection.execute(_RECORD, [_record_values(ending) for ending in mine])
    return mine


def end_unreadable(connection: WriteConnection, runs: Sequence[UnreadableRun], now_us: int) -> None:
    """End waiting executions that can never be sent, saying why."""
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


def orphan_runs(
    connection: ReadConnection, *, lease_before: datetime | None, limit: int
) -> list[OrphanRun]:
    """Read running executions whose lease ended before ``lease_before`` (None: all of them).

    Those that are over longest come first.
    """
    statement = (
        sa.select(executions, job_revisions.c.host, job_revisions.c.policy)
        .join_from(executions, job_revisions, _OF_ITS_REVISION)
        .where(RUNNING)
        .order_by(executions.c.lease_until_us)
        .limit(limit)
    )
    if lease_before is not None:
        statement = statement.where(executions.c.lease_until_us < to_us(lease_before))
    return [_orphan(row) for row in connection.execute(statement).mappings()]


def on_crash(run: OrphanRun) -> OnCrash:
    """Tell what an orphan's job wants; a job that cannot be read is not sent again."""
    return OnCrash.FAIL if run.policy is None else run.policy.on_crash


def _live_attempts(
    connection: WriteConnection, ids: Sequence[ExecutionId]
) -> dict[_AttemptKey, Reason | None]:
    """Find the attempts under way of executions, keeping others from ending them.

    The value is why no further attempt may follow, if so.
    """
    live: dict[_AttemptKey, Reason | None] = {}
    for start in range(0, len(ids), CHUNK):
        statement = (
            sa.select(
                executions.c.id,
                executions.c.owner,
                executions.c.fence,
                executions.c.attempts,
                executions.c.stop_reason,
            )
            .where(executions.c.id.in_(ids[start : start + CHUNK]))
            .where(RUNNING)
            .order_by(executions.c.id)
            .with_for_update()
        )
        for execution_id, owner, fence, number, stop_reason in connection.execute(statement):
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


def _claimable(connection: WriteConnection, ids: Sequence[ExecutionId]) -> dict[ExecutionId, Any]:
    """Read and lock those that may be claimed."""
    rows: dict[ExecutionId, Any] = {}
    for start in range(0, len(ids), CHUNK):
        for row in connection.execute(_CLAIMABLE, {"ids": ids[start : start + CHUNK]}):
            rows[ExecutionId(row.id)] = row
    return rows


def _claimed(waiting: WaitingRun, row: Any, claim: Claim) -> ClaimedRun:
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


def _claim_values(run: ClaimedRun, claim: Claim) -> dict[str, object]:
    return {
        "execution_id": run.attempt.execution_id,
        "new_owner": claim.owner,
        "new_fence": claim.fence,
        "new_lease_us": to_us(claim.now + run.delivery.timeout + claim.lease_margin),
        "number": run.attempt.number,
        "first_us": to_us(run.first_started_at),
        "now_us": to_us(claim.now),
    }


def _record_values(ending: Ending) -> dict[str, object]:
    outcome, next_at = ending.outcome, ending.next_attempt_at
    return {
        "execution_id": ending.execution_id,
        "my_owner": ending.owner,
        "my_fence": ending.fence,
        "number": ending.number,
        "new_status": ending.status,
        "new_reason": ending.reason,
        "new_outcome": outcome.kind,
        "new_attempt_reason": outcome.reason,
        "new_http_status": outcome.http_status,
        "new_response_bytes": outcome.response_bytes,
        "new_error": outcome.error,
        "new_response_excerpt": outcome.response_excerpt,
        "new_finished_us": None if next_at is not None else to_us(ending.ended_at),
        "new_next_attempt_us": None if next_at is None else to_us(next_at),
        "new_retries": ending.retries,
    }


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
