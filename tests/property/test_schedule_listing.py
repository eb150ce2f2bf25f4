"""Listing agrees with walking, and what is not listed near a jump of the clock is left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.clock import from_us, to_us
from app.domain.schedule import CrontabRule, DstFold, DstGap, IntervalRule, Rule, Schedule
from app.engine.left_out import LeftOutKind
from app.engine.occurrences import pattern_of
from app.engine.transitions import list_transitions
from app.engine.triggers import build_trigger
from app.engine.zones import load_zone
from tests.support.schedule_walks import ANCHOR, FIXED_TIMES, RULES, ZONES, walk

DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
YEARS = (datetime(2026, 1, 2, tzinfo=UTC), datetime(2028, 12, 1, tzinfo=UTC))
LOST_DAY = ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC))
NO_JUMP = ("Asia/Tokyo", datetime(2027, 3, 1, tzinfo=UTC))
JUMPS = [(zone, jump.at) for zone in ZONES for jump in list_transitions(zone, *YEARS)]


@st.composite
def spans(draw: st.DrawFn) -> tuple[str, datetime, datetime]:
    """Draw a zone and a span that lies near, across or at a jump of its clock, or far from any."""
    zone, jump = draw(st.sampled_from([LOST_DAY, NO_JUMP, *JUMPS]))
    far = st.integers(-60 * DAY // INSTANT, 60 * DAY // INSTANT)
    near = st.integers(-2 * 86_400, 2 * 86_400).map(lambda seconds: seconds * 1_000_000)
    quarters = st.integers(-200, 200).map(lambda quarter: quarter * 900_000_000)
    after = jump + draw(near | quarters | far) * INSTANT
    span = draw(st.timedeltas(timedelta(0), 5 * DAY) | st.integers(0, 400).map(_quarter_hours))
    return zone, after, after + span


def _quarter_hours(count: int) -> timedelta:
    return count * timedelta(minutes=15)


@st.composite
def schedules(draw: st.DrawFn, rules: list[Rule]) -> tuple[Schedule, datetime, datetime]:
    """Draw a schedule of any policy, perhaps bounded, and a span."""
    zone, after, until = draw(spans())
    inside = st.timedeltas(-DAY, until - after + DAY).map(lambda offset: after + offset)
    schedule = Schedule(
        rule=draw(st.sampled_from(rules)),
        timezone=zone,
        dst_gap=draw(st.sampled_from(DstGap)),
        dst_fold=draw(st.sampled_from(DstFold)),
        start_at=draw(st.none() | inside),
        end_at=draw(st.none() | inside),
    )
    return schedule, after, until


@settings(max_examples=400, deadline=None)
@given(drawn=schedules(RULES))
def test_a_list_is_the_walk(drawn):
    """For any rule, zone, policy, bounds and span the list holds the instants walked through."""
    schedule, after, until = drawn
    trigger = build_trigger(schedule, anchor=ANCHOR)
    listed = trigger.list_us(after, until)
    assert [to_us(instant) for instant in walk(trigger, after, until)] == listed
    assert len(listed) == trigger.count(after, until)


def test_a_list_across_every_jump_of_a_year_is_the_walk():
    """Listing a whole year of half hours equals walking it, in every zone."""
    for zone in ZONES:
        for line in ("*/30 * * * *", "0,30 0-23 * * *"):
            schedule = Schedule(rule=CrontabRule(expression=line), timezone=zone)
            trigger = build_trigger(schedule, anchor=ANCHOR)
            listed = trigger.list_us(ANCHOR, ANCHOR + 366 * DAY)
            walked = [to_us(at) for at in walk(trigger, ANCHOR, ANCHOR + 366 * DAY)]
            assert walked == listed


def test_a_list_ends_where_the_calendar_does():
    """Neither list nor count nor walk goes beyond the last year looked at."""
    after, until = datetime(2199, 12, 30, tzinfo=UTC), datetime(2205, 1, 1, tzinfo=UTC)
    schedule = Schedule(rule=CrontabRule(expression="0 12 * * *"), timezone="Asia/Tokyo")
    trigger = build_trigger(schedule, anchor=ANCHOR)
    listed = trigger.list_us(after, until)
    assert [to_us(at) for at in walk(trigger, after, until)] == listed
    assert [datetime(2199, 12, day, 3, tzinfo=UTC) for day in (30, 31)] == list(
        map(from_us, listed)
    )
    assert len(listed) == trigger.count(after, until)
    ten_years = Schedule(rule=IntervalRule(period=3660 * DAY, parts=()), timezone="UTC")
    late = datetime(9998, 1, 1, tzinfo=UTC)
    assert build_trigger(ten_years, anchor=ANCHOR).list_us(late, late + DAY) == []


@dataclass
class Readings:
    """What a schedule's local times come to, read from the zone's own tables."""

    run: set[datetime] = field(default_factory=set)
    in_gap: dict[datetime, datetime] = field(default_factory=dict)
    in_fold: dict[datetime, datetime] = field(default_factory=dict)


def read_walls(schedule: Schedule, after: datetime, until: datetime) -> Readings:
    """Ask zoneinfo about each local time the rule names, two days around the span."""
    readings, zone = Readings(), load_zone(schedule.timezone)
    for wall in _walls(schedule, after, until):
        early, late = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        assert early is not None
        assert late is not None
        first, second = (wall - offset for offset in (early, late))
        first, second = first.replace(tzinfo=UTC), second.replace(tzinfo=UTC)
        if early == late:
            readings.run.add(first)
        elif early < late:
            readings.in_gap[first] = wall
        elif schedule.dst_fold is DstFold.BOTH:
            readings.run |= {first, second}
        else:
            chosen, void = (first, second)[:: 1 if schedule.dst_fold is DstFold.FIRST else -1]
            readings.run.add(chosen)
            readings.in_fold[void] = wall
    return readings


def _walls(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    pattern = pattern_of(schedule)
    assert pattern is not None
    begin = (after - 2 * DAY).replace(tzinfo=None, microsecond=0)
    wall = pattern.first_from(begin)
    while wall is not None and wall < until.replace(tzinfo=None) + 2 * DAY:
        yield wall
        wall = pattern.first_from(wall + timedelta(seconds=1))


def within(schedule: Schedule, at: datetime) -> bool:
    """Tell whether the schedule's own bounds hold an instant."""
    starts, ends = schedule.start_at or at, schedule.end_at or at
    return starts <= at <= ends


@settings(max_examples=400, deadline=None)
@given(drawn=schedules(FIXED_TIMES))
@example(
    drawn=(
        Schedule(
            rule=CrontabRule(expression="30 1,2,3 * * *"),
            timezone="Pacific/Apia",
            dst_gap=DstGap.SKIP,
        ),
        LOST_DAY[1] - DAY,
        LOST_DAY[1] + 2 * DAY,
    )
)
def test_every_local_time_runs_or_is_left_out(drawn):
    """Each reading of each local time is run, or left out once with its reason, never both."""
    schedule, after, until = drawn
    trigger = build_trigger(schedule, anchor=ANCHOR)
    listed = trigger.list_us(after, until)
    left_out = trigger.left_out(after, until)
    void_us = [to_us(void.at) for void in left_out]
    assert sorted(set(void_us)) == void_us
    assert set(listed).isdisjoint(void_us)
    readings = read_walls(schedule, after, until)
    skips = schedule.dst_gap is DstGap.SKIP

    def seen(at: datetime) -> bool:
        return after < at <= until and within(schedule, at)

    run = {to_us(at) for at in readings.run if seen(at)}
    assert run == set(listed) if skips else run <= set(listed)
    expected = {(at, wall, LeftOutKind.FOLD) for at, wall in readings.in_fold.items() if seen(at)}
    if skips:
        gap = readings.in_gap.items()
        expected |= {(at, wall, LeftOutKind.GAP) for at, wall in gap if seen(at)}
    assert {one for one in expected if to_us(one[0]) not in set(listed)} == {
        (void.at, void.wall, void.kind) for void in left_out
    }


@settings(max_examples=200, deadline=None)
@given(drawn=schedules(FIXED_TIMES), cuts=st.lists(st.floats(0, 1), max_size=4))
def test_short_spans_leave_out_what_a_long_one_does(drawn, cuts):
    """Asking tick by tick tells the same void times as asking once, each exactly once."""
    schedule, after, until = drawn
    trigger = build_trigger(schedule, anchor=ANCHOR)
    edges = sorted({after, until, *(after + (until - after) * cut for cut in cuts)})
    pieces = [void for begin, end in pairwise(edges) for void in trigger.left_out(begin, end)]
    assert trigger.left_out(after, until) == tuple(pieces)
