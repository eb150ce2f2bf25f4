"""Comparing rules with rows, piece by piece: by example, void times and large holes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.domain.clock import to_us
from app.domain.execution import Reason
from app.domain.ids import JobId
from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Rule, Schedule
from app.engine.reconciliation import (
    NAMED_MAX,
    DuplicateKind,
    EpochPart,
    Finding,
    Segment,
    Tally,
    reconcile,
)
from app.engine.reconciliation import Rule as LedgerRule
from app.engine.triggers import build_trigger
from app.repositories.audit_repository import LedgerPage, StoredStretch
from tests.support.schedules import interval_of

JOB = JobId("job")
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
MICRO = 1_000_000


def rule_of(schedule: Schedule, *, has_void: bool = True) -> LedgerRule:
    return LedgerRule(trigger=build_trigger(schedule, anchor=BEGIN), has_void=has_void)


def part_of(rule: LedgerRule | None, begin: datetime, end: datetime, **whole: int) -> EpochPart:
    after, until = to_us(begin), to_us(end)
    segment = Segment(
        after_us=after,
        until_us=until,
        begin_us=whole.get("begin_us", after),
        end_us=whole.get("end_us", until),
        revision=1,
        rule=rule,
    )
    return EpochPart(job_id=JOB, clock_epoch=0, segments=(segment,))


def compare(
    part: EpochPart, rows: list[int], *stretches: StoredStretch, limit: int = 10**6, **options: int
) -> Tally:
    """Compare all of a part, in pages of so many rows."""
    tally, at = Tally(), part.after_us
    ordered = sorted([*rows, *(stretch.first_us for stretch in stretches)])
    while at < part.until_us:
        left = [us for us in ordered if us > at]
        until = part.until_us if len(left) < limit else left[limit - 1]
        page = LedgerPage(
            after_us=at,
            until_us=until,
            rows=[us for us in left if us <= until],
            stretches=tuple(
                stretch
                for stretch in sorted(stretches, key=lambda stretch: stretch.first_us)
                if stretch.first_us <= until
            ),
        )
        reached = reconcile(part, page, tally, **options)
        assert reached > at
        at = reached
    return tally


def stretch(first: int, last: int, count: int, void: Reason | None = None) -> StoredStretch:
    return StoredStretch(first_us=first, last_us=last, count=count, void=void)


def zoned(rule: Rule | str, zone: str, **policies: DstGap | DstFold) -> LedgerRule:
    if isinstance(rule, str):
        rule = CrontabRule(expression=rule)
    return rule_of(Schedule(rule=rule, timezone=zone, **policies))  # type: ignore[arg-type]


def at(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


# New York's clocks go forward on 14 March 2027 at 07:00 UTC.
SPRING = (datetime(2027, 3, 13, 12, tzinfo=UTC), datetime(2027, 3, 15, 12, tzinfo=UTC))


def test_a_void_time_must_have_its_row():
    """A local time that the clock jumped over is expected like an instant, unless nobody asks."""
    rule = zoned("30 2 * * *", "America/New_York", dst_gap=DstGap.SKIP)
    void, following = at("2027-03-14T07:30:00Z"), at("2027-03-15T06:30:00Z")
    assert compare(part_of(rule, *SPRING), [void, following]).is_clean
    tally = compare(part_of(rule, *SPRING), [following])
    assert [(f.first_us, f.count) for f in tally.unaccounted] == [(void, 1)]
    idle = LedgerRule(trigger=rule.trigger, has_void=False)
    assert compare(part_of(idle, *SPRING), [following]).is_clean


def test_many_void_times_are_a_stretch_of_their_own():
    """A stretch of void times accounts for them, and its count is compared with theirs."""
    rule = zoned("0-29 2 * * *", "America/New_York", dst_gap=DstGap.SKIP)
    first, last = at("2027-03-14T07:00:00Z"), at("2027-03-14T07:29:00Z")
    rows = [at("2027-03-15T06:00:00Z") + minute * 60 * MICRO for minute in range(30)]
    part = part_of(rule, *SPRING)
    gap = Reason.DST_GAP
    tally = compare(part, rows, stretch(first, last, 30, gap))
    assert (tally.expected, tally.is_clean) == (60, True)
    tally = compare(part, rows, stretch(first, last, 28, gap))
    assert [(f.first_us, f.count) for f in tally.unaccounted] == [(first, 2)]
    # A stretch of the other kind accounts for none of them.
    tally = compare(part, rows, stretch(first, last, 30, Reason.DST_FOLD))
    assert (tally.unaccounted_count, tally.duplicates_count) == (30, 30)


def test_void_times_may_lie_between_instants_and_inside_a_stretch():
    """Where a gap of half an hour shifts void times between instants, neither covers the other."""
    # Lord Howe's clocks go forward half an hour on 4 October 2026 at 15:30 UTC the day before.
    minutes = ",".join(str(m) for m in (*range(0, 30, 2), *range(31, 60, 2)))
    fields = (("hour", "2"), ("minute", minutes), ("second", "0"))
    rule = zoned(CronRule(fields=fields), "Australia/Lord_Howe", dst_gap=DstGap.SKIP)
    begin, end = datetime(2026, 10, 3, 15, 20, tzinfo=UTC), datetime(2026, 10, 3, 16, 5, tzinfo=UTC)
    part = part_of(rule, begin, end)
    instants = rule.list_us(part.after_us, part.until_us)
    void = [us for us, _ in rule.void(part.after_us, part.until_us)]
    assert (len(instants), len(void)) == (15, 15)
    assert instants[0] < void[1] < instants[1]
    voids = stretch(void[0], void[-1], 15, Reason.DST_GAP)
    both = [voids, stretch(instants[0], instants[-1], 15)]
    assert compare(part, instants, voids).is_clean
    assert compare(part, [], *both).is_clean
    assert compare(part, void, both[1]).is_clean
    assert compare(part, [], *both).expected == 30
    assert compare(part, instants[1:], voids).unaccounted_count == 1


def test_a_hole_of_millions_is_counted_and_not_listed():
    """Years of missing seconds are one finding, beside rows that are there."""
    rule = rule_of(interval_of(timedelta(seconds=1)))
    days = 400
    part = part_of(rule, BEGIN, BEGIN + timedelta(days=days))
    total = days * 86_400
    kept = [part.after_us + second * MICRO for second in (1, 2, 20_000_000, total)]
    tally = compare(part, kept, listed_max=1000)
    assert (tally.expected, tally.unaccounted_count) == (total, total - 4)
    assert [f.count for f in tally.unaccounted] == [20_000_000 - 3, total - 20_000_000 - 1]
    assert tally.duplicates == []


def test_findings_beyond_the_named_are_counted():
    """The first hundred findings are named, all are counted, and none grows by another."""
    rule = rule_of(interval_of(timedelta(seconds=1)))
    part = part_of(rule, BEGIN, BEGIN + timedelta(seconds=1000))
    rows = [part.after_us + second * MICRO for second in range(2, 1001, 2)]
    extra = [us - 1 for us in rows]
    tally = compare(part, rows + extra, limit=64)
    assert (tally.unaccounted_count, tally.duplicates_count) == (500, 500)
    assert len(tally.unaccounted) == len(tally.duplicates) == NAMED_MAX
    assert {found.count for found in tally.unaccounted} == {1}
    total = Tally()
    total.add(tally)
    total.add(tally)
    assert (len(total.unaccounted), total.unaccounted_count) == (NAMED_MAX, 1000)


def test_a_hole_over_the_edge_of_two_rules_is_two():
    """Missing instants of two revisions are told apart, though they follow one another."""
    first = rule_of(interval_of(timedelta(seconds=1)))
    middle, end = to_us(BEGIN) + 10 * MICRO, to_us(BEGIN) + 20 * MICRO
    segments = tuple(
        Segment(
            after_us=after, until_us=until, begin_us=after, end_us=until, revision=number,
            rule=first,
        )
        for number, (after, until) in enumerate([(to_us(BEGIN), middle), (middle, end)], start=1)
    )  # fmt: skip
    tally = compare(EpochPart(job_id=JOB, clock_epoch=0, segments=segments), [])
    assert [(f.revision, f.count) for f in tally.unaccounted] == [(1, 10), (2, 10)]


@pytest.mark.parametrize("limit", [2, 3, 1000])
def test_a_stretch_where_no_rule_names_anything(limit: int):
    """Rows under a deleted or finished revision are all too many, stretches with their count."""
    part = part_of(None, BEGIN, BEGIN + timedelta(seconds=100))
    first = part.after_us + 10 * MICRO
    tally = compare(part, [first - 5, first + 9], stretch(first, first + 5, 4), limit=limit)
    assert [(f.kind, f.count) for f in tally.duplicates] == [
        (DuplicateKind.UNEXPECTED_ROW, 1),
        (DuplicateKind.UNEXPECTED_ROW, 4),
        (DuplicateKind.UNEXPECTED_ROW, 1),
    ]
    assert tally.expected == 0


def test_a_stretch_that_reaches_into_the_next_revision_covers_nothing_there():
    """A stretch accounts for the instants of its own revision alone."""
    rule = rule_of(interval_of(timedelta(seconds=1)))
    begin = to_us(BEGIN)
    edges = [begin, begin + 10 * MICRO, begin + 20 * MICRO]
    segments = tuple(
        Segment(
            after_us=after, until_us=until, begin_us=after, end_us=until, revision=number,
            rule=rule,
        )
        for number, (after, until) in enumerate(pairwise(edges), start=1)
    )  # fmt: skip
    part = EpochPart(job_id=JOB, clock_epoch=0, segments=segments)
    rows = [begin + second * MICRO for second in (*range(1, 6), *range(16, 21))]
    tally = compare(part, rows, stretch(begin + 6 * MICRO, begin + 15 * MICRO, 10))
    assert [(f.revision, f.count) for f in tally.unaccounted] == [(2, 5)]
    assert [(f.kind, f.count) for f in tally.duplicates] == [(DuplicateKind.STRETCH_COUNT, 5)]


def test_joined_findings_keep_their_ends():
    """A finding that goes on over pages is one, from its first to its last instant."""
    rule = rule_of(interval_of(timedelta(seconds=1)))
    part = part_of(rule, BEGIN, BEGIN + timedelta(seconds=50))
    rows = [part.after_us + second * MICRO for second in (1, 2, 3, 50)]
    tally = compare(part, rows, limit=2)
    expected = Finding(
        job_id=JOB, revision=1, first_us=part.after_us + 4 * MICRO,
        last_us=part.after_us + 49 * MICRO, count=46,
    )  # fmt: skip
    assert tally.unaccounted == [expected]
