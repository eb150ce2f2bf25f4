"""What counts as an absence of the scheduler."""

from datetime import timedelta

import pytest

from app.engine.presence import Presence, PresenceOptions
from tests.support.builders import NOON
from tests.support.virtual_clock import VirtualClock

SECOND = timedelta(seconds=1)


@pytest.fixture
def clock():
    with VirtualClock(NOON) as clock:
        yield clock


@pytest.fixture
def presence(clock: VirtualClock) -> Presence:
    return Presence(clock=clock, options=PresenceOptions())


def test_what_came_due_before_the_beginning(presence: Presence):
    """An instant well before the start was missed by an absence, one shortly before was not."""
    assert presence.was_away(NOON - 6 * SECOND)
    assert not presence.was_away(NOON - 5 * SECOND)


def test_a_backlog_is_no_absence(presence: Presence, clock: VirtualClock):
    """However late an instant is written, it was seen if the scheduler was at work all along."""
    for _ in range(30):
        clock.advance(2 * SECOND)
        presence.note()
    assert not presence.was_away(NOON + SECOND)


def test_a_silence_is_an_absence(presence: Presence, clock: VirtualClock):
    """What came due while nothing was noted is late by it, but for the silence's last seconds."""
    clock.advance(60 * SECOND)
    presence.note()
    assert presence.was_away(NOON + 54 * SECOND)
    assert not presence.was_away(NOON + 55 * SECOND)
    assert not presence.was_away(NOON)


def test_refused_commits_are_an_absence(presence: Presence, clock: VirtualClock):
    """Notes mean nothing while commits fail; the absence lasts until one succeeds."""
    presence.fail()
    for _ in range(10):
        clock.advance(SECOND)
        presence.note()
    assert presence.was_away(NOON + SECOND)
    presence.recover()
    clock.advance(SECOND)
    assert presence.was_away(NOON + SECOND)
    assert not presence.was_away(NOON + 10 * SECOND)


def test_a_clock_set_forward_is_an_absence(presence: Presence, clock: VirtualClock):
    """The instants that a clock jumps over are late by the jump."""
    clock.step(3600 * SECOND)
    presence.note()
    assert presence.was_away(NOON + 60 * SECOND)


def test_a_clock_set_back_is_none(presence: Presence, clock: VirtualClock):
    """After a step back the scheduler is at work at the new time."""
    clock.advance(SECOND)
    presence.note()
    clock.step(-SECOND)
    presence.note()
    clock.advance(4 * SECOND)
    presence.note()
    assert not presence.was_away(NOON + SECOND)


def test_a_new_beginning_forgets(presence: Presence, clock: VirtualClock):
    """Who begins to lead anew was away until then."""
    clock.advance(4 * SECOND)
    presence.note()
    clock.advance(4 * SECOND)
    presence.begin()
    assert presence.was_away(NOON + 2 * SECOND)
    assert not presence.was_away(NOON + 4 * SECOND)
