"""What is tried for of a host's slots after a refusal."""

from datetime import timedelta

from app.engine.host_shares import HostShares
from app.repositories.host_repository import Why
from tests.support.builders import NOON

MS = timedelta(milliseconds=1)


def test_all_slots_are_tried_for_at_first():
    """A host that was never refused may have all its slots here."""
    shares = HostShares(10)
    assert shares.slots("a:80") == 10
    assert shares.next_time() is None


def test_a_refused_host_keeps_what_it_has_until_its_rest_is_over():
    """Until then no more is tried for; then all slots are."""
    shares = HostShares(10)
    shares.refuse("a:80", Why.FULL, busy=3, now=NOON)
    assert (shares.slots("a:80"), shares.slots("b:80")) == (3, 10)
    assert shares.next_time() == NOON + 10 * MS
    assert shares.pop_rested(NOON + 9 * MS) == []
    assert shares.pop_rested(NOON + 10 * MS) == ["a:80"]
    assert (shares.slots("a:80"), shares.next_time()) == (10, None)


def test_rests_double_up_to_a_quarter_of_a_second():
    """A host that stays full costs four tries a second."""
    shares = HostShares(10)
    now, rests = NOON, []
    for _ in range(7):
        shares.refuse("a:80", Why.FULL, busy=0, now=now)
        until = shares.next_time()
        assert until is not None
        rests.append((until - now) // MS)
        now = until
        shares.pop_rested(now)
    assert rests == [10, 20, 40, 80, 160, 250, 250]


def test_a_grant_begins_with_short_rests_again():
    """What is got after a rest shows that slots come back."""
    shares = HostShares(10)
    for _ in range(3):
        shares.refuse("a:80", Why.FULL, busy=0, now=NOON)
    shares.pop_rested(NOON + timedelta(seconds=1))
    shares.grant("a:80")
    shares.refuse("a:80", Why.FULL, busy=1, now=NOON)
    assert shares.next_time() == NOON + 10 * MS


def test_a_grant_within_the_share_keeps_it():
    """A start in the place of one that ended tells nothing of further slots."""
    shares = HostShares(10)
    shares.refuse("a:80", Why.FULL, busy=3, now=NOON)
    shares.grant("a:80")
    assert shares.slots("a:80") == 3


def test_contention_is_over_soon_and_never_adds_up():
    """A host for which another process was claiming is tried again some milliseconds later."""
    shares = HostShares(10)
    for _ in range(3):
        shares.refuse("a:80", Why.CONTENDED, busy=1, now=NOON)
        assert shares.next_time() == NOON + 5 * MS
        assert shares.pop_rested(NOON + 5 * MS) == ["a:80"]


def test_contention_for_a_full_host_is_no_haste():
    """A host that was found full is tried for at its own pace, also if another claims for it."""
    shares = HostShares(10)
    for _ in range(4):
        shares.refuse("a:80", Why.FULL, busy=0, now=NOON)
    shares.pop_rested(NOON + timedelta(seconds=1))
    shares.refuse("a:80", Why.CONTENDED, busy=0, now=NOON)
    assert shares.next_time() == NOON + 80 * MS


def test_a_second_refusal_extends_the_rest():
    """Only the later end counts."""
    shares = HostShares(10)
    shares.refuse("a:80", Why.FULL, busy=3, now=NOON)
    shares.refuse("a:80", Why.FULL, busy=2, now=NOON)
    assert shares.pop_rested(NOON + 10 * MS) == []
    assert shares.slots("a:80") == 2
    assert shares.pop_rested(NOON + 20 * MS) == ["a:80"]


def test_nothing_is_kept_of_a_forgotten_host():
    """Hosts without runs leave no trace."""
    shares = HostShares(10)
    shares.refuse("a:80", Why.FULL, busy=0, now=NOON)
    shares.forget("a:80")
    assert shares.slots("a:80") == 10
    assert shares.pop_rested(NOON + 10 * MS) == []
    assert (shares._shares, shares._ends) == ({}, [])


def test_a_change_of_the_clock_ends_all_rests():
    """No host rests because the clock was set back."""
    shares = HostShares(10)
    shares.refuse("a:80", Why.FULL, busy=0, now=NOON)
    assert shares.clear() == ["a:80"]
    assert (shares.slots("a:80"), shares.next_time()) == (10, None)
