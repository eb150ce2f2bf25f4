"""How the starts of what is found late are spread."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from app.domain.execution import Cause, ExecutionStatus, NewExecution, Reason
from app.domain.ids import ExecutionId, JobId
from app.engine.pacer import Pacer, PacerOptions
from app.engine.presence import Presence, PresenceOptions
from tests.support.builders import NOON
from tests.support.virtual_clock import VirtualClock

SECOND = timedelta(seconds=1)
LATE = NOON - 6 * SECOND


def make_row(number: int, next_attempt_at: datetime | None) -> NewExecution:
    queued = next_attempt_at is not None
    return NewExecution(
        id=ExecutionId(f"exe_{number}"),
        job_id=JobId("job"),
        job_revision=1,
        clock_epoch=0,
        cause=Cause.SCHEDULE,
        scheduled_for=NOON,
        status=ExecutionStatus.QUEUED if queued else ExecutionStatus.MISSED,
        reason=None if queued else Reason.TOO_LATE,
        next_attempt_at=next_attempt_at,
    )


def starts(pacer: Pacer, clock: VirtualClock, *times: datetime | None) -> list[timedelta | None]:
    """Place rows of these times, and tell how long after the clock's present each may start."""
    rows = [make_row(number, time) for number, time in enumerate(times)]
    placed = pacer.place(rows, now=clock.now())
    assert [row.id for row in placed] == [row.id for row in rows]
    return [
        None if row.next_attempt_at is None else row.next_attempt_at - clock.now() for row in placed
    ]


def make_pacer(clock: VirtualClock, rate: float | None = 4.0) -> Pacer:
    presence = Presence(clock=clock, options=PresenceOptions())
    return Pacer(clock=clock, presence=presence, options=PacerOptions(starts_per_second=rate))


def test_late_runs_start_at_the_given_rate():
    """The first late run starts at once, each further one a fourth of a second after another."""
    clock = VirtualClock(NOON)
    found = starts(make_pacer(clock), clock, LATE, LATE, LATE)
    assert found == [timedelta(0), SECOND / 4, SECOND / 2]


def test_runs_on_time_are_left_alone():
    """What is at most five seconds late keeps its time and takes no late run's place."""
    clock = VirtualClock(NOON)
    on_time = [NOON - 5 * SECOND, NOON, NOON + SECOND]
    found = starts(make_pacer(clock), clock, on_time[0], LATE, *on_time[1:], LATE)
    assert found == [-5 * SECOND, timedelta(0), timedelta(0), SECOND, SECOND / 4]


def test_a_backlog_is_not_spread():
    """What is late because too much was due at once starts as fast as it can: nobody was away."""
    with VirtualClock(NOON) as clock:
        presence = Presence(clock=clock, options=PresenceOptions())
        pacer = Pacer(clock=clock, presence=presence, options=PacerOptions())
        for _ in range(10):
            clock.advance(SECOND)
            presence.note()
        assert starts(pacer, clock, NOON, NOON) == [-10 * SECOND] * 2


def test_what_does_not_run_gets_no_start():
    """A row that is final at birth stays without a time and takes no place."""
    clock = VirtualClock(NOON)
    assert starts(make_pacer(clock), clock, None, LATE) == [None, timedelta(0)]


def test_places_go_on_over_ticks_and_are_not_saved_up():
    """Late runs of the next tick follow the last one's; after a rest the first starts at once."""
    with VirtualClock(NOON) as clock:
        pacer = make_pacer(clock)
        starts(pacer, clock, LATE, LATE)
        assert starts(pacer, clock, LATE) == [SECOND / 2]
        clock.advance(60 * SECOND)
        assert starts(pacer, clock, LATE, LATE) == [timedelta(0), SECOND / 4]


def test_a_stepped_clock_does_not_hold_late_runs_back():
    """Places are counted by the time that passes: a clock set back moves none away."""
    with VirtualClock(NOON) as clock:
        pacer = make_pacer(clock)
        starts(pacer, clock, LATE)
        clock.step(-3600 * SECOND)
        assert starts(pacer, clock, LATE - 3600 * SECOND) == [SECOND / 4]


def test_without_a_rate_nothing_is_spread():
    """With no rate every late run starts at once."""
    clock = VirtualClock(NOON)
    assert starts(make_pacer(clock, rate=None), clock, LATE, LATE) == [-6 * SECOND] * 2


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_is_positive(rate: float):
    """A rate that would never start anything is refused."""
    with pytest.raises(ValueError, match="must be positive"):
        PacerOptions(starts_per_second=rate)


def test_the_gap_is_even():
    """A thousand late runs are spread evenly: none shares its moment with another."""
    clock = VirtualClock(NOON)
    found = starts(make_pacer(clock, rate=50.0), clock, *[LATE] * 1000)
    gaps = {later - earlier for earlier, later in pairwise(found)}  # type: ignore[operator]  # all set
    assert gaps == {SECOND / 50}
