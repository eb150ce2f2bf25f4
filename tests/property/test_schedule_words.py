"""Schedules in words: never an error, never two meanings for one text."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, IntervalRule, Schedule
from app.engine.triggers import ScheduleTrigger, build_trigger
from app.schemas.words import describe_schedule

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
BEGINS = [
    datetime(2026, 3, 8, 4, tzinfo=UTC),  # before New York's gap
    datetime(2026, 11, 1, 3, tzinfo=UTC),  # before its fold
    datetime(2027, 1, 1, tzinfo=UTC),
    datetime(2028, 2, 28, tzinfo=UTC),
]
MINUTES = [
    "0",
    "5",
    "*",
    "*/5",
    "*/7",
    "0-59/5",
    "0,40",
    "*/40",
    "3-9",
    "5/10",
    "*,5",
    "30",
    "58-2",
]
HOURS = [
    "*",
    "9",
    "9-17",
    "*/6",
    "0-23",
    "22-2",
    "1,2,5",
    "8-18/2",
    "*/5",
    "0,12",
    "2",
    "1-2",
    "*/2",
]
DAYS = ["*", "1", "1,15", "L", "LW", "*/2", "1-7", "13", "31", "29,30", "1-31", "2-31/2", "1,L"]
MONTHS = ["*", "1", "1-3", "2", "nov-feb", "1,7", "*/3"]
WEEKDAYS = ["*", "mon", "1-5", "sat,sun", "fri-mon", "5#2", "5L", "mon,5#2", "*/2", "7", "1#5"]
CRON_DAYS = ["*", "1", "last", "2nd fri", "last sun,1", "13", "1-7", "*/2"]
YEARS = ["*", "2026", "2026-2028", "2027,2029", "*/2"]
WEEKS = ["*", "1", "1-10", "*/2", "5,9"]
SECONDS = ["0", "*", "*/15", "30", "0,20,50", "5-55/10", "0-59"]


def fires(trigger: ScheduleTrigger) -> tuple[object, ...]:
    """Tell what a schedule means: many of its instants, and how many there are in some months."""
    found: list[object] = []
    for begin in BEGINS:
        at = trigger.next_from(begin)
        for _ in range(40):
            if at is None:
                break
            found.append(at)
            at = trigger.next_after(at)
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2027, 2028)]
    counts = (trigger.count(year, year + timedelta(days=90)) for year in years)
    return (*found, *counts)


def crontab_line(rng: random.Random) -> CrontabRule:
    fields = [rng.choice(values) for values in (MINUTES, HOURS)]
    dates = [rng.choice([values[0], rng.choice(values)]) for values in (DAYS, MONTHS, WEEKDAYS)]
    return CrontabRule(expression=" ".join([*fields, *dates]))


def cron_object(rng: random.Random) -> CronRule:
    pools = {
        "year": YEARS, "month": MONTHS, "day": CRON_DAYS, "week": WEEKS,
        "day_of_week": WEEKDAYS[:5], "hour": HOURS, "minute": MINUTES, "second": SECONDS,
    }  # fmt: skip
    often = {"year": 0.1, "month": 0.3, "week": 0.15, "second": 0.3, "day": 0.5, "day_of_week": 0.4}
    fields = {
        name: rng.choice(values)
        for name, values in pools.items()
        if rng.random() < often.get(name, 0.8)
    }
    return CronRule(fields=tuple({"second": "0", **fields}.items()))


def random_schedule(rng: random.Random, zone: str) -> Schedule:
    kind = rng.random()
    rule: CrontabRule | CronRule | IntervalRule
    if kind < 0.5:
        rule = crontab_line(rng)
    elif kind < 0.95:
        rule = cron_object(rng)
    else:
        rule = IntervalRule(period=timedelta(minutes=rng.choice([1, 5, 10, 60, 360])), parts=())
    gap, fold = DstGap.RUN_AFTER, DstFold.FIRST
    if rng.random() < 0.2:
        gap, fold = rng.choice(list(DstGap)), rng.choice(list(DstFold))
    return Schedule(rule=rule, timezone=zone, dst_gap=gap, dst_fold=fold)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_one_text_has_one_meaning(zone):
    """Of many random schedules, those that share a text in a language fire at the same times."""
    rng = random.Random(f"words in {zone}")
    sharing: dict[str, set[Schedule]] = defaultdict(set)
    for _ in range(2000):
        schedule = random_schedule(rng, zone)
        try:
            build_trigger(schedule, anchor=ANCHOR)
        except InvalidScheduleError:
            continue
        for text in describe_schedule(schedule).values():
            sharing[text].add(schedule)
    shared = {text: sorted(found, key=repr) for text, found in sharing.items() if len(found) > 1}
    assert len(shared) > 50, "the sample must hold schedules that share a text"
    meanings = {
        text: {fires(build_trigger(schedule, anchor=ANCHOR)): schedule for schedule in found[:3]}
        for text, found in sorted(shared.items())
    }
    assert {text: list(found.values()) for text, found in meanings.items() if len(found) > 1} == {}


def items(low: int, high: int) -> st.SearchStrategy[str]:
    values = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        values.map(str),
        st.tuples(values, values).map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(values, values, st.integers(1, 9)).map(lambda t: f"{t[0]}-{t[1]}/{t[2]}"),
    )


def field_of(low: int, high: int, *specials: str) -> st.SearchStrategy[str]:
    one = items(low, high)
    if specials:
        one = st.one_of(one, st.sampled_from(specials))
    return st.lists(one, min_size=1, max_size=4).map(",".join)


@settings(max_examples=400, deadline=None)
@given(
    fields=st.tuples(
        field_of(0, 59),
        field_of(0, 23),
        field_of(1, 31, "L", "LW"),
        field_of(1, 12),
        field_of(0, 7, "5L", "1#2", "fri#5"),
    ),
    zone=st.sampled_from(["Asia/Tokyo", "America/New_York", "Australia/Lord_Howe"]),
)
def test_every_line_has_a_text(fields, zone):
    """Whatever a valid crontab line looks like, it has one text in each language, and keeps it."""
    schedule = Schedule(rule=CrontabRule(expression=" ".join(fields)), timezone=zone)
    try:
        build_trigger(schedule, anchor=ANCHOR)
    except InvalidScheduleError:
        return
    words = describe_schedule(schedule)
    assert words == describe_schedule(schedule)
    assert set(words) == {"en", "ja"}
    for text in words.values():
        assert text.strip() == text
        assert zone in text
        assert "  " not in text
        assert "None" not in text
