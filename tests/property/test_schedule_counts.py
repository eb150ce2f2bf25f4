"""Counting instants agrees with walking through them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Schedule
from app.engine.catch_up import LISTED_MAX, find_due_instants, find_stretch
from app.engine.triggers import build_trigger
from tests.support.builders import make_due_job
from tests.support.schedule_walks import ANCHOR, RULES, ZONES, walk


@settings(max_examples=300, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    zone=st.sampled_from(ZONES),
    gap=st.sampled_from(list(DstGap)),
    fold=st.sampled_from(list(DstFold)),
    begin=st.datetimes(datetime(2026, 1, 2), datetime(2026, 12, 1)),  # noqa: DTZ001 - naive bounds
    span=st.timedeltas(timedelta(0), timedelta(days=20)),
)
def test_a_count_is_the_number_of_instants(rule, zone, gap, fold, begin, span):
    """For any rule, zone, policy and span the count equals the instants walked through."""
    schedule = Schedule(rule=rule, timezone=zone, dst_gap=gap, dst_fold=fold)
    trigger = build_trigger(schedule, anchor=ANCHOR)
    after = begin.replace(tzinfo=UTC)
    instants = list(walk(trigger, after, after + span))
    assert trigger.count(after, after + span) == len(instants)
    stretch = find_stretch(trigger, after=after, until=after + span)
    if instants:
        assert stretch is not None
        assert (stretch.first, stretch.last) == (instants[0], instants[-1])
        assert stretch.count == len(instants)
    else:
        assert stretch is None


@pytest.mark.parametrize("zone", ZONES)
def test_a_count_across_every_jump_of_a_year_is_right(zone: str):
    """Counting a whole year of half hours equals walking it, jumps included."""
    schedule = Schedule(rule=CrontabRule(expression="*/30 * * * *"), timezone=zone)
    trigger = build_trigger(schedule, anchor=ANCHOR)
    until = ANCHOR + timedelta(days=365)
    assert trigger.count(ANCHOR, until) == len(list(walk(trigger, ANCHOR, until)))


def test_bounds_of_the_schedule_bound_the_count():
    """Instants before start_at and after end_at are not counted; the bounds themselves are."""
    hour = timedelta(hours=1)
    schedule = Schedule(
        rule=CrontabRule(expression="0 * * * *"),
        timezone="Asia/Tokyo",
        start_at=ANCHOR + 10 * hour,
        end_at=ANCHOR + 12 * hour,
    )
    trigger = build_trigger(schedule, anchor=ANCHOR)
    assert trigger.count(ANCHOR, ANCHOR + 100 * hour) == 3
    assert trigger.count(ANCHOR + 12 * hour, ANCHOR + 100 * hour) == 0


def test_thirty_days_of_seconds_are_counted_and_the_newest_listed():
    """A 1-second job after 30 days down: the newest are listed, the others counted exactly."""
    rule = CronRule(fields=(("second", "*"),))
    schedule = Schedule(rule=rule, timezone="Europe/Berlin")
    now = datetime(2026, 4, 10, 12, 0, 0, tzinfo=UTC)
    first = now - timedelta(days=30)
    job = make_due_job(schedule=schedule, next_run_time=first)
    found = find_due_instants(job, build_trigger(schedule, anchor=ANCHOR), now=now)
    assert len(found.fire_times) == LISTED_MAX
    assert found.fire_times[-1] == now
    assert found.elided is not None
    assert found.elided.first == first
    assert found.elided.count == 30 * 86_400 + 1 - LISTED_MAX
    assert found.elided.last + timedelta(seconds=1) == found.fire_times[0]
