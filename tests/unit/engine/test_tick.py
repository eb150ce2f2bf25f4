"""What each due instant of a tick becomes."""

from collections import Counter
from datetime import datetime, timedelta

import pytest

from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.policies import CatchUp, OverlapPolicy
from app.engine.tick import (
    QUEUE_MAX,
    ROWS_MAX,
    DueInstants,
    JobPlan,
    Moment,
    Stretch,
    plan_job,
)
from tests.support.builders import MINUTE, NOON, make_due_job, make_policy, make_schedule

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def plan(
    *fire_times: datetime,
    now: datetime = NOON,
    up_since: datetime = NOON - HOUR,
    running: int = 0,
    queued: int = 0,
    retrying: int = 0,
    elided: Stretch | None = None,
    jitter: timedelta = timedelta(0),
    **policy: object,
) -> JobPlan:
    job = make_due_job(
        policy=make_policy(**policy),
        next_run_time=elided.first if elided else fire_times[0],
        schedule=make_schedule(jitter=jitter),
    )
    found = DueInstants(
        job=job, fire_times=fire_times, next_run_time=fire_times[-1] + MINUTE, elided=elided
    )
    open_runs = Counter(
        {
            ExecutionStatus.RUNNING: running,
            ExecutionStatus.QUEUED: queued,
            ExecutionStatus.RETRYING: retrying,
        }
    )
    return plan_job(found, open_runs, Moment(now=now, up_since=up_since))


def shape(result: JobPlan) -> list[tuple[object, ...]]:
    return [
        (row.status.value, row.reason, row.scheduled_for, row.instant_count) for row in result.rows
    ]


def minutes(first: datetime, count: int) -> tuple[datetime, ...]:
    return tuple(first + n * MINUTE for n in range(count))


def test_an_instant_on_time_is_queued_for_its_own_time():
    """A due instant becomes one queued execution that may start at once."""
    result = plan(NOON)
    assert shape(result) == [("queued", None, NOON, 1)]
    assert result.rows[0].next_attempt_at == NOON
    assert result.rows[0].cause is Cause.SCHEDULE
    assert result.rows[0].exclusive


def test_jitter_delays_the_start_and_not_the_fire_time():
    """With jitter the execution keeps its fire time and starts up to the jitter later."""
    row = plan(NOON, jitter=10 * SECOND).rows[0]
    assert row.scheduled_for == NOON
    assert row.next_attempt_at is not None
    assert NOON <= row.next_attempt_at <= NOON + 10 * SECOND


def test_an_instant_late_within_its_grace_runs_as_if_on_time():
    """Lateness up to the grace is no misfire."""
    assert shape(plan(NOON - 30 * SECOND)) == [("queued", None, NOON - 30 * SECOND, 1)]


def test_the_latest_misfire_runs_and_older_ones_are_coalesced():
    """By default the newest late instant runs as a catch-up, the older are skipped/coalesced."""
    first, second, third = minutes(NOON - 5 * MINUTE, 3)
    result = plan(first, second, third)
    assert shape(result) == [
        ("skipped", Reason.COALESCED, first, 1),
        ("skipped", Reason.COALESCED, second, 1),
        ("queued", None, third, 1),
    ]
    assert result.rows[-1].cause is Cause.CATCH_UP


def test_misfires_are_coalesced_into_a_later_instant_that_is_on_time():
    """When the newest due instant is on time, all late ones are coalesced into it."""
    late = NOON - 5 * MINUTE
    result = plan(late, NOON)
    assert shape(result) == [
        ("skipped", Reason.COALESCED, late, 1),
        ("queued", None, NOON, 1),
    ]
    assert result.rows[-1].cause is Cause.SCHEDULE


@pytest.mark.parametrize(
    ("up_since", "reason"),
    [(NOON, Reason.SCHEDULER_DOWN), (NOON - HOUR, Reason.TOO_LATE)],
)
def test_without_catch_up_a_misfire_is_missed_and_says_why(up_since: datetime, reason: Reason):
    """With catch_up none a late instant is missed: the scheduler was down, or it was too late."""
    late = NOON - 5 * MINUTE
    result = plan(late, up_since=up_since, catch_up=CatchUp.NONE)
    assert shape(result) == [("missed", reason, late, 1)]


def test_instants_before_and_after_the_start_are_told_apart():
    """Missed instants from before the scheduler came up do not share a reason with later ones."""
    before, after = minutes(NOON - 5 * MINUTE, 2)
    result = plan(before, after, up_since=after, catch_up=CatchUp.NONE)
    assert [row.reason for row in result.rows] == [Reason.SCHEDULER_DOWN, Reason.TOO_LATE]


def test_catch_up_all_runs_every_misfire():
    """With catch_up all every late instant gets an execution that runs."""
    instants = minutes(NOON - 5 * MINUTE, 3)
    result = plan(*instants, catch_up=CatchUp.ALL)
    assert shape(result) == [("queued", None, instant, 1) for instant in instants]
    assert {row.cause for row in result.rows} == {Cause.CATCH_UP}


def test_catch_up_all_keeps_to_its_maximum_and_drops_the_oldest():
    """Beyond catch_up_max_runs the oldest late instants are missed/limit."""
    instants = minutes(NOON - 5 * MINUTE, 3)
    result = plan(*instants, catch_up=CatchUp.ALL, catch_up_max_runs=1)
    assert [(row.status.value, row.reason) for row in result.rows] == [
        ("missed", Reason.LIMIT),
        ("missed", Reason.LIMIT),
        ("queued", None),
    ]


def test_a_misfire_outside_the_catch_up_window_does_not_run():
    """A late instant older than the window is missed even with catch_up latest."""
    result = plan(NOON - HOUR, catch_up_window=MINUTE)
    assert shape(result) == [("missed", Reason.TOO_LATE, NOON - HOUR, 1)]


def test_without_a_grace_nothing_is_late():
    """A job with no grace (a one-off's default) runs however late it is found."""
    long_ago = NOON - 1000 * HOUR
    result = plan(long_ago, misfire_grace=None)
    assert shape(result) == [("queued", None, long_ago, 1)]


def test_a_long_run_of_misfires_becomes_one_stretch():
    """More than ROWS_MAX instants that did not run for one reason share one row."""
    instants = minutes(NOON - HOUR, ROWS_MAX + 2)
    result = plan(*instants)
    assert shape(result) == [
        ("skipped", Reason.COALESCED, instants[0], ROWS_MAX + 1),
        ("queued", None, instants[-1], 1),
    ]
    assert result.rows[0].until == instants[-2]


def test_instants_too_many_to_list_are_a_stretch_of_their_own():
    """What was only counted is accounted with its first, last and number."""
    elided = Stretch(first=NOON - 10 * HOUR, last=NOON - 9 * HOUR, count=5000)
    result = plan(NOON - HOUR, elided=elided)
    assert shape(result) == [
        ("skipped", Reason.COALESCED, elided.first, 5000),
        ("queued", None, NOON - HOUR, 1),
    ]


@pytest.mark.parametrize(
    ("policy", "running", "queued", "expected"),
    [
        (OverlapPolicy.SKIP, 1, 0, ("skipped", Reason.OVERLAP)),
        (OverlapPolicy.SKIP, 0, 1, ("skipped", Reason.OVERLAP)),
        (OverlapPolicy.QUEUE_ONE, 1, 0, ("queued", None)),
        (OverlapPolicy.QUEUE_ONE, 1, 1, ("skipped", Reason.OVERLAP)),
        (OverlapPolicy.QUEUE_ALL, 1, 5, ("queued", None)),
        (OverlapPolicy.QUEUE_ALL, 1, QUEUE_MAX, ("skipped", Reason.QUEUE_FULL)),
        (OverlapPolicy.ALLOW, 7, 7, ("queued", None)),
        (OverlapPolicy.ALLOW, 200, QUEUE_MAX - 1, ("queued", None)),
        (OverlapPolicy.ALLOW, 0, QUEUE_MAX, ("skipped", Reason.QUEUE_FULL)),
        (OverlapPolicy.CANCEL_RUNNING, 1, 0, ("queued", None)),
    ],
)
def test_overlap_follows_the_policy(policy, running, queued, expected):
    """While an earlier execution is not over, the overlap policy decides about the next."""
    result = plan(NOON, running=running, queued=queued, overlap=policy)
    assert [(row.status.value, row.reason) for row in result.rows] == [expected]


@pytest.mark.parametrize("policy", [OverlapPolicy.QUEUE_ALL, OverlapPolicy.ALLOW])
@pytest.mark.parametrize("queued", [0, 400])
def test_what_is_to_be_retried_waits_too(policy, queued):
    """Runs that wait for a retry count towards the longest queue, beside those not begun."""
    full = plan(NOON, queued=queued, retrying=QUEUE_MAX - queued, overlap=policy)
    assert shape(full) == [("skipped", Reason.QUEUE_FULL, NOON, 1)]
    nearly = plan(NOON, queued=queued, retrying=QUEUE_MAX - queued - 1, overlap=policy)
    assert shape(nearly) == [("queued", None, NOON, 1)]


def test_one_pass_fills_the_queue_and_no_more():
    """Of many instants in one pass those that still fit are queued, and the others say why not."""
    instants = tuple(NOON + n * SECOND for n in range(-4, 1))
    result = plan(*instants, queued=QUEUE_MAX - 2, overlap=OverlapPolicy.ALLOW)
    queued = [row.scheduled_for for row in result.rows if row.status is ExecutionStatus.QUEUED]
    assert queued == [*instants[:2]]
    assert [row.reason for row in result.rows[2:]] == [Reason.QUEUE_FULL] * 3


@pytest.mark.parametrize("overlap", list(OverlapPolicy))
def test_catching_up_keeps_to_the_longest_queue(overlap):
    """Misfires that would run find the queue full like any others; the newest get what is left."""
    instants = minutes(NOON - 5 * MINUTE, 4)
    result = plan(*instants, queued=QUEUE_MAX - 1, overlap=overlap, catch_up=CatchUp.ALL)
    assert shape(result) == [
        *(("skipped", Reason.QUEUE_FULL, instant, 1) for instant in instants[:3]),
        ("queued", None, instants[3], 1),
    ]


def test_a_job_without_grace_does_not_pile_up():
    """A job each of whose instants is a misfire gathers no more behind its target than others."""
    result = plan(NOON, now=NOON + SECOND, queued=QUEUE_MAX, misfire_grace=timedelta(0))
    assert shape(result) == [("skipped", Reason.QUEUE_FULL, NOON, 1)]


def test_cancel_running_asks_to_end_what_runs():
    """Only cancel_running asks the dispatcher to end the attempts under way."""
    assert plan(NOON, running=1, overlap=OverlapPolicy.CANCEL_RUNNING).cancel_running
    assert not plan(NOON, running=1, overlap=OverlapPolicy.QUEUE_ONE).cancel_running
    assert not plan(NOON, overlap=OverlapPolicy.CANCEL_RUNNING).cancel_running


def test_max_instances_lets_that_many_run():
    """An instant is refused only when max_instances executions are not over."""
    assert shape(plan(NOON, running=1, max_instances=2))[0][0] == "queued"
    assert shape(plan(NOON, running=2, max_instances=2))[0][0] == "skipped"
    assert not plan(NOON, max_instances=2).rows[0].exclusive


def test_two_instants_in_one_pass_overlap_each_other():
    """The first instant of a pass counts as not over for the second."""
    result = plan(NOON - SECOND, NOON)
    assert [row.status.value for row in result.rows] == ["queued", "skipped"]


def test_ids_depend_on_job_epoch_and_instant_alone():
    """The same due instant has the same execution id whenever and why ever it is planned."""
    on_time = plan(NOON).rows[0].id
    late = plan(NOON, now=NOON + HOUR).rows[0].id
    assert on_time == late
    assert plan(NOON + SECOND).rows[0].id != on_time
