"""Any rows against any rule: the comparison finds what comparing sets by hand finds."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.clock import to_us
from app.domain.ids import JobId
from app.engine.reconciliation import EpochPart, Rule, Segment, Tally, reconcile
from app.engine.triggers import build_trigger
from app.repositories.audit_repository import LedgerPage, StoredStretch
from tests.support.schedules import interval_of

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
BEGIN_US = to_us(BEGIN)
SECOND = 1_000_000
LENGTH = 60
RULE = Rule(trigger=build_trigger(interval_of(timedelta(seconds=1)), anchor=BEGIN), has_void=True)
INSTANTS = [BEGIN_US + number * SECOND for number in range(1, LENGTH + 1)]


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[list[int], list[StoredStretch]]:
    """Draw rows, right and wrong ones, and stretches that do not overlap, right and wrong ones."""
    rows = draw(st.lists(st.sampled_from(INSTANTS), unique=True, max_size=LENGTH))
    rows += draw(st.lists(st.integers(BEGIN_US + 1, INSTANTS[-1]), unique=True, max_size=5))
    edges = sorted(draw(st.sets(st.integers(0, LENGTH - 1), max_size=8)))
    stretches = []
    for first, last in zip(edges[::2], edges[1::2], strict=False):
        count = last - first + 1 + draw(st.sampled_from([0, 0, 0, 1, -1]))
        if count > 1:
            stretches.append(
                StoredStretch(
                    first_us=INSTANTS[first], last_us=INSTANTS[last], count=count, void=None
                )
            )
    firsts = {stretch.first_us for stretch in stretches}
    return sorted(set(rows) - firsts), stretches


def by_hand(rows: list[int], stretches: list[StoredStretch]) -> tuple[int, int]:
    """Count the instants without a row and the rows too many, one by one."""
    held = Counter(rows)
    missing = doubled = 0
    for stretch in stretches:
        inside = [us for us in INSTANTS if stretch.first_us <= us <= stretch.last_us]
        held.update(inside)
        missing += max(len(inside) - stretch.count, 0)
        doubled += max(stretch.count - len(inside), 0)
    missing += sum(us not in held for us in INSTANTS)
    doubled += sum(number - (us in INSTANTS) for us, number in held.items())
    return missing, doubled


@given(ledger=ledgers(), limit=st.integers(2, 80), listed_max=st.sampled_from([3, 10, 1000]))
def test_the_comparison_is_that_of_sets(
    ledger: tuple[list[int], list[StoredStretch]], limit: int, listed_max: int
) -> None:
    """Whatever is missing or too many is counted exactly, in pages of any size."""
    rows, stretches = ledger
    segment = Segment(
        after_us=BEGIN_US, until_us=INSTANTS[-1], begin_us=BEGIN_US, end_us=INSTANTS[-1],
        revision=1, rule=RULE,
    )  # fmt: skip
    part = EpochPart(job_id=JobId("job"), clock_epoch=0, segments=(segment,))
    tally, at = Tally(), part.after_us
    stored = sorted([*rows, *(stretch.first_us for stretch in stretches)])
    while at < part.until_us:
        left = [us for us in stored if us > at]
        until = part.until_us if len(left) < limit else left[limit - 1]
        before = [stretch for stretch in stretches if stretch.first_us <= at][-3:]
        inside = [stretch for stretch in stretches if at < stretch.first_us <= until]
        page = LedgerPage(
            after_us=at,
            until_us=until,
            rows=[us for us in left if us <= until],
            stretches=(*before, *inside),
        )
        reached = reconcile(part, page, tally, listed_max=listed_max)
        assert at < reached <= until
        at = reached
    assert tally.expected == LENGTH
    assert (tally.unaccounted_count, tally.duplicates_count) == by_hand(rows, stretches)
    assert sum(found.count for found in tally.unaccounted) == tally.unaccounted_count
    assert sum(found.count for found in tally.duplicates) == tally.duplicates_count
