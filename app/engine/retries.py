"""When an attempt is followed by another: pure functions over tenacity's waits and stops.

A retry is a row with a time, not a sleep: nothing here waits.
"""

import random
from datetime import datetime, timedelta

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential

from app.domain.execution import (
    AttemptOutcome,
    ClaimedRun,
    ExecutionStatus,
    Outcome,
    Reason,
)
from app.domain.policies import OnCrash, RetryPolicy
from app.repositories.run_repository import Ending

# Interrupted for good: a user cancelled the execution, or the job's next run took its place.
_ENDED_ON_PURPOSE = frozenset({Reason.USER, Reason.OVERLAP})
# Jitter on top of a wait, as a share of it: a wait is never shorter than asked.
_JITTER_SHARE = 0.2
# 4xx answers that ask for another try, if they say when or the job lists them (RFC 9110, RFC 8470).
_RETRY_WHEN_ASKED = frozenset({408, 425, 429})
_SERVER_ERRORS = range(500, 600)
_TRANSPORT_FAILURES = frozenset(
    {AttemptOutcome.CONNECT_ERROR, AttemptOutcome.TIMEOUT, AttemptOutcome.PROTOCOL_ERROR}
)


def conclude(
    run: ClaimedRun, outcome: Outcome, *, owner: str, ended_at: datetime, chance: random.Random
) -> Ending:
    """Say what ``outcome`` does to its execution: complete it, fail it, or try again and when.

    An interrupted attempt (the service stopped) is put back at once and spends no retry; but if its
    request may have left and the job wants no repetition, its end is unknown. One that was ended on
    purpose is the last.
    """
    status, reason, next_at, retries = _decide(run, outcome, ended_at, chance)
    return Ending(
        execution_id=run.attempt.execution_id,
        number=run.attempt.number,
        owner=owner,
        fence=run.fence,
        started_at=run.attempt.started_at,
        ended_at=ended_at,
        status=status,
        reason=reason,
        outcome=outcome,
        retries=retries,
        next_attempt_at=next_at,
    )


def wants_retry(outcome: Outcome, policy: RetryPolicy) -> bool:
    """Tell whether another try may help: 5xx and transport errors, never a plain 4xx.

    408, 425 and 429 count when ``Retry-After`` is present; any status the job lists counts.
    """
    if outcome.kind is AttemptOutcome.RESPONSE:
        status = outcome.http_status
        if status in policy.retry_statuses or status in _SERVER_ERRORS:
            return True
        return status in _RETRY_WHEN_ASKED and outcome.retry_after is not None
    return outcome.kind in _TRANSPORT_FAILURES and outcome.reason is not Reason.CONFIG_ERROR


def wait_before(
    policy: RetryPolicy, *, retry: int, asked: timedelta | None, chance: random.Random
) -> timedelta:
    """Compute the wait before retry number ``retry`` (from 1).

    First wait, doubling, or what the target asked for by ``Retry-After`` if that is longer; up to a
    fifth of jitter on top; all of it capped by the policy's longest wait.
    """
    cap = policy.wait_max.total_seconds()
    seconds = wait_exponential(multiplier=policy.first_wait.total_seconds(), max=cap)(_state(retry))
    if asked is not None:
        seconds = max(seconds, asked.total_seconds())
    return timedelta(seconds=min(seconds * (1 + _JITTER_SHARE * chance.random()), cap))


def _decide(
    run: ClaimedRun, outcome: Outcome, ended_at: datetime, chance: random.Random
) -> tuple[ExecutionStatus, Reason | None, datetime | None, int]:
    policy, retries = run.delivery.retry, run.retries
    if outcome.succeeded:
        return ExecutionStatus.COMPLETED, None, None, retries
    if outcome.kind is AttemptOutcome.INTERRUPTED:
        status = _after_interruption(run, outcome)
        again = ended_at if status is ExecutionStatus.RETRYING else None
        return status, outcome.reason, again, retries
    if not wants_retry(outcome, policy):
        return ExecutionStatus.FAILED, outcome.reason, None, retries
    if stop_after_attempt(policy.max_retries + 1)(_state(retries + 1)):
        exhausted = Reason.RETRIES_EXHAUSTED if policy.max_retries else outcome.reason
        return ExecutionStatus.FAILED, exhausted, None, retries
    wait = wait_before(policy, retry=retries + 1, asked=outcome.retry_after, chance=chance)
    return ExecutionStatus.RETRYING, outcome.reason, ended_at + wait, retries + 1


def _after_interruption(run: ClaimedRun, outcome: Outcome) -> ExecutionStatus:
    if outcome.reason in _ENDED_ON_PURPOSE:
        return ExecutionStatus.CANCELLED
    if outcome.sent and run.policy.on_crash is OnCrash.FAIL:
        return ExecutionStatus.UNKNOWN
    return ExecutionStatus.RETRYING


def _state(attempt_number: int) -> RetryCallState:
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt_number
    return state
