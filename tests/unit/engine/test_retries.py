"""What an attempt's outcome does to its execution."""

import random
from datetime import timedelta

import pytest

from app.domain.execution import AttemptOutcome, ExecutionStatus, Outcome, Reason
from app.domain.policies import OnCrash, RetryPolicy
from app.engine.retries import conclude, wait_before, wants_retry
from tests.support.builders import NOON, make_claimed, make_delivery, make_policy

SECOND = timedelta(seconds=1)


class NoChance(random.Random):
    """Draws the same number every time."""

    def __init__(self, drawn: float = 0.0) -> None:
        super().__init__(0)
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


def answer(status: int, **changes: object) -> Outcome:
    failed = not 200 <= status < 300
    values: dict[str, object] = {
        "kind": AttemptOutcome.RESPONSE,
        "http_status": status,
        "reason": Reason.STATUS if failed else None,
        "error": "The target answered" if failed else None,
        **changes,
    }
    return Outcome(**values)  # type: ignore[arg-type]  # a table of fields


def refused(kind: AttemptOutcome, reason: Reason) -> Outcome:
    return Outcome(kind=kind, reason=reason, error="It did not work")


def end(outcome: Outcome, *, retries: int = 0, max_retries: int = 0):
    run = make_claimed(
        retries=retries, delivery=make_delivery(retry=RetryPolicy(max_retries=max_retries))
    )
    return conclude(run, outcome, owner="me", ended_at=NOON, chance=NoChance())


def test_a_2xx_completes_the_execution():
    """An attempt answered with 2xx ends its execution as completed."""
    ending = end(answer(201))
    assert (ending.status, ending.reason, ending.next_attempt_at) == (
        ExecutionStatus.COMPLETED,
        None,
        None,
    )


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_a_5xx_is_tried_again(status: int):
    """5xx is retried while retries are left."""
    ending = end(answer(status), max_retries=1)
    assert ending.status is ExecutionStatus.RETRYING
    assert ending.retries == 1
    assert ending.next_attempt_at == NOON + SECOND


@pytest.mark.parametrize("status", [301, 400, 401, 404, 408, 410, 425, 429])
def test_a_plain_3xx_or_4xx_is_never_tried_again(status: int):
    """4xx (and 3xx) end the execution at once, with the reason status."""
    ending = end(answer(status), max_retries=5)
    assert (ending.status, ending.reason) == (ExecutionStatus.FAILED, Reason.STATUS)


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_4xx_that_asks_for_another_try_gets_it(status: int):
    """408, 425 and 429 are retried when Retry-After is present."""
    assert wants_retry(answer(status, retry_after=SECOND), RetryPolicy())
    assert not wants_retry(answer(404, retry_after=SECOND), RetryPolicy())


def test_a_status_that_the_job_lists_is_tried_again():
    """A job may list statuses that are retried without Retry-After."""
    assert wants_retry(answer(429), RetryPolicy(retry_statuses=frozenset({429})))


@pytest.mark.parametrize(
    ("kind", "reason", "again"),
    [
        (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT, True),
        (AttemptOutcome.CONNECT_ERROR, Reason.DNS, True),
        (AttemptOutcome.TIMEOUT, Reason.TIMEOUT, True),
        (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL, True),
        (AttemptOutcome.TOO_LARGE, Reason.RESPONSE_TOO_LARGE, False),
        (AttemptOutcome.BLOCKED, Reason.EGRESS_DENIED, False),
        (AttemptOutcome.PROTOCOL_ERROR, Reason.CONFIG_ERROR, False),
    ],
)
def test_transport_errors_are_tried_again_and_refusals_are_not(kind, reason, again):
    """What another try may mend is retried; what it cannot is not."""
    assert wants_retry(refused(kind, reason), RetryPolicy()) is again


def test_the_last_retry_ends_the_execution_as_exhausted():
    """When the retries are used up the execution fails as retries_exhausted."""
    ending = end(answer(500), retries=2, max_retries=2)
    assert (ending.status, ending.reason) == (ExecutionStatus.FAILED, Reason.RETRIES_EXHAUSTED)


def test_without_retries_the_reason_is_the_attempts_own():
    """A job without retries fails with what went wrong."""
    ending = end(refused(AttemptOutcome.TIMEOUT, Reason.TIMEOUT))
    assert (ending.status, ending.reason) == (ExecutionStatus.FAILED, Reason.TIMEOUT)


def test_an_interrupted_attempt_is_put_back_and_spends_no_retry():
    """A stop of the service gives the execution back at once, whatever its retries."""
    ending = end(refused(AttemptOutcome.INTERRUPTED, Reason.SHUTDOWN))
    assert ending.status is ExecutionStatus.RETRYING
    assert ending.next_attempt_at == NOON
    assert ending.retries == 0


@pytest.mark.parametrize("reason", [Reason.USER, Reason.OVERLAP])
@pytest.mark.parametrize("on_crash", list(OnCrash))
def test_an_attempt_that_was_ended_on_purpose_is_the_last(reason, on_crash):
    """Cut off by a user or by the next run, an execution is cancelled, retries left or not."""
    outcome = Outcome(kind=AttemptOutcome.INTERRUPTED, reason=reason, error="cut off", sent=True)
    run = make_claimed(policy=make_policy(on_crash=on_crash))
    ending = conclude(run, outcome, owner="me", ended_at=NOON, chance=NoChance())
    assert (ending.status, ending.reason) == (ExecutionStatus.CANCELLED, reason)
    assert ending.next_attempt_at is None


def test_waits_double_from_the_first_to_the_cap():
    """The waits are first, 2 x first, 4 x first … up to the longest."""
    policy = RetryPolicy(max_retries=5, first_wait=2 * SECOND, wait_max=10 * SECOND)
    waits = [wait_before(policy, retry=n, asked=None, chance=NoChance()) for n in range(1, 6)]
    assert [wait.total_seconds() for wait in waits] == [2, 4, 8, 10, 10]


def test_jitter_lengthens_a_wait_by_up_to_a_fifth_and_keeps_the_cap():
    """A wait is never shorter than asked, at most a fifth longer, and never beyond the cap."""
    policy = RetryPolicy(max_retries=5, first_wait=10 * SECOND, wait_max=21 * SECOND)
    longest = NoChance(1.0)
    assert wait_before(policy, retry=1, asked=None, chance=longest) == 12 * SECOND
    assert wait_before(policy, retry=2, asked=None, chance=longest) == 21 * SECOND


def test_retry_after_lengthens_a_wait_up_to_the_cap():
    """What the target asks for is honoured if it is longer, and capped."""
    policy = RetryPolicy(max_retries=5, first_wait=SECOND, wait_max=60 * SECOND)
    chance = NoChance()
    assert wait_before(policy, retry=1, asked=30 * SECOND, chance=chance) == 30 * SECOND
    assert wait_before(policy, retry=1, asked=timedelta(0), chance=chance) == SECOND
    assert wait_before(policy, retry=1, asked=3600 * SECOND, chance=chance) == 60 * SECOND


def test_no_wait_at_all_is_possible():
    """A first wait of zero tries again at once."""
    policy = RetryPolicy(max_retries=1, first_wait=timedelta(0))
    assert wait_before(policy, retry=1, asked=None, chance=NoChance(1.0)) == timedelta(0)


@pytest.mark.parametrize(
    ("sent", "status"), [(True, ExecutionStatus.UNKNOWN), (False, ExecutionStatus.RETRYING)]
)
def test_a_job_that_wants_no_repetition_gets_none_of_what_may_have_left(sent, status):
    """With on_crash fail an interrupted attempt is repeated only if it is certain to be unsent."""
    interrupted = Outcome(
        kind=AttemptOutcome.INTERRUPTED, reason=Reason.SHUTDOWN, error="stopped", sent=sent
    )
    run = make_claimed(policy=make_policy(on_crash=OnCrash.FAIL))
    ending = conclude(run, interrupted, owner="me", ended_at=NOON, chance=NoChance())
    assert ending.status is status
