"""Both sides of every jump of every zone's clock, against a look at every minute."""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError

from app.domain.schedule import CrontabRule, DstFold, DstGap, Schedule
from app.engine.triggers import ScheduleTrigger, build_trigger
from app.engine.wall_clock import LAST_YEAR, zone_segments
from app.engine.zones import load_zone, zone_names
from tests.support.cron_oracles import (
    MINUTE,
    MinuteWindow,
    debian_fires,
    distinct_zones,
    table_changes,
)

DAY = timedelta(days=1)
POLICIES = list(product(DstGap, DstFold))
DEFAULT_POLICY = [(DstGap.RUN_AFTER, DstFold.FIRST)]


def trigger_of(
    expression: str,
    zone: str,
    *,
    gap: DstGap = DstGap.RUN_AFTER,
    fold: DstFold = DstFold.FIRST,
) -> ScheduleTrigger:
    """Build the trigger of a crontab line."""
    schedule = Schedule(
        rule=CrontabRule(expression=expression), timezone=zone, dst_gap=gap, dst_fold=fold
    )
    return build_trigger(schedule, anchor=datetime(2026, 1, 1, tzinfo=UTC))


def fires_between(trigger: ScheduleTrigger, *, begin: datetime, end: datetime) -> list[datetime]:
    """List a trigger's instants in ``begin`` … ``end``, the latter exclusive."""
    fires = []
    at = trigger.next_from(begin)
    while at is not None and at < end:
        fires.append(at)
        at = trigger.next_after(at)
    return fires


def expressions_around(change: datetime, zone: str) -> list[str]:
    """Write lines that fire before, inside and after a jump of the clock."""
    info = load_zone(zone)
    before = (change - MINUTE).astimezone(info)
    after = change.astimezone(info)
    hours = {before.hour, after.hour, (before.hour + 1) % 24, (after.hour - 1) % 24}
    fixed = [f"{minute} {hour} * * *" for hour in sorted(hours) for minute in (0, 20, 30, 59)]
    several = f"0,15,45 {min(hours)}-{max(hours)} * * *"
    on_the_day = f"30 {after.hour} {before.day},{after.day} {after.month} *"
    elapsed = ["*/20 * * * *", "7 */3 * * *", f"* {before.hour} * * *", f"0 *,{after.hour} * * *"]
    return [*fixed, several, on_the_day, *elapsed]


def assert_agrees_around(
    change: datetime,
    zones: list[str],
    *,
    policies: list[tuple[DstGap, DstFold]],
    span: timedelta = 1.25 * DAY,
):
    """Compare every minute of ``span`` around a jump that the zones share."""
    begin, end = change - span, change + span
    window = MinuteWindow(load_zone(zones[0]), begin=begin - DAY, end=end + DAY)
    for expression in expressions_around(change, zones[0]):
        for gap, fold in policies:
            everything = window.fires(expression, gap=gap, fold=fold)
            expected = [at for at in everything if begin <= at < end]
            for zone in zones:
                trigger = trigger_of(expression, zone, gap=gap, fold=fold)
                actual = fires_between(trigger, begin=begin, end=end)
                assert expected == actual, (expression, zone, gap, fold)


def zones_by_jump(year: int) -> dict[tuple[datetime, object, object], list[str]]:
    """Group the zones whose clocks jump at one instant from one offset to another."""
    groups: dict[tuple[datetime, object, object], list[str]] = defaultdict(list)
    for zone in distinct_zones():
        info = load_zone(zone)
        for change in table_changes(zone, first_year=year, last_year=year):
            before = (change - MINUTE).astimezone(info).utcoffset()
            groups[change, before, change.astimezone(info).utcoffset()].append(zone)
    return groups


def test_defaults_agree_with_every_minute_around_every_jump_of_2026():
    """By default every zone fires in 2026 exactly when a look at every minute says so."""
    groups = zones_by_jump(2026)
    assert sum(len(zones) for zones in groups.values()) > 150
    for (change, _, _), zones in groups.items():
        assert_agrees_around(change, zones, policies=DEFAULT_POLICY)


@pytest.mark.slow
def test_every_policy_agrees_with_every_minute_around_every_jump_of_2026():
    """Under each of the nine policies a zone fires in 2026 when a look at every minute says so."""
    for (change, _, _), zones in zones_by_jump(2026).items():
        assert_agrees_around(change, zones[:1], policies=POLICIES)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # skipped 30 December
        ("Pacific/Kwajalein", datetime(1993, 8, 21, 12, tzinfo=UTC)),  # skipped 21 August
        ("Pacific/Kiritimati", datetime(1994, 12, 31, 10, tzinfo=UTC)),  # skipped New Year's Eve
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),  # back by 30 minutes
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
        ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # forward by 2 hours
        ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
        ("Europe/Dublin", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # winter is the exception there
        ("Europe/Dublin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
        ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),  # Ramadan
        ("Africa/Casablanca", datetime(2026, 3, 22, 2, tzinfo=UTC)),
        ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),  # 00:00 does not exist
        ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),  # 00:00 does not exist
        ("Asia/Pyongyang", datetime(2015, 8, 14, 15, tzinfo=UTC)),  # back by 30 minutes at 00:00
        ("America/Caracas", datetime(2016, 5, 1, 7, tzinfo=UTC)),  # forward by 30 minutes
        ("Asia/Kathmandu", datetime(1985, 12, 31, 18, 30, tzinfo=UTC)),  # 15 minutes, New Year
        ("Antarctica/Casey", datetime(2020, 10, 3, 16, 1, tzinfo=UTC)),  # 3 hours, at 00:01
        ("America/Juneau", datetime(1983, 10, 30, 9, tzinfo=UTC)),  # 2 hours back
    ],
)
def test_odd_jumps_agree_with_every_minute(zone, change):
    """Under every policy a zone with an odd jump fires when a look at every minute says so."""
    assert [change] == [
        found
        for found in table_changes(zone, first_year=change.year, last_year=change.year)
        if abs(found - change) < DAY
    ]
    assert_agrees_around(change, [zone], policies=POLICIES[:1] + POLICIES[4:5] + POLICIES[-1:])


@pytest.mark.slow
def test_200_000_random_fires_agree_with_cronsim():
    """Of 200,000 random fires from distinct starts each one is cronsim's, whose errors are known.

    Half of the walks begin within a day before a jump of the zone's clock.
    """
    rng = random.Random(20261121)
    compared = 0
    while compared < 200_000:
        expression, zone, start = random_case(rng)
        try:
            expected = debian_fires(expression, zone=load_zone(zone), after=start)
        except CronSimError:
            continue
        compared += compare_walk(expression, zone, start=start, expected=expected)


def compare_walk(
    expression: str, zone: str, *, start: datetime, expected: Iterator[datetime]
) -> int:
    """Compare up to 25 consecutive fires and return how many."""
    trigger = trigger_of(expression, zone)
    at = start
    for number in range(25):
        fire, debian = trigger.next_after(at), next(expected, None)
        if fire != debian:
            assert fire is not None
            assert debian is not None
            assert_cronsim_errs(expression, zone, after=at, fire=fire, debian=debian)
            return number
        if fire is None:
            return number
        at = fire
    return 25


def assert_cronsim_errs(
    expression: str, zone: str, *, after: datetime, fire: datetime, debian: datetime
):
    """Accept a difference only where cronsim's error is known and every minute is on our side.

    Its aware mode errs on rules that follow elapsed time, in two kinds of zones. It walks by
    whole hours and so misses the top of the hour (and may go back in time) where clocks move by,
    or stand off by, half hours or quarters: Lord Howe, Chatham, Caracas 2016, Pyongyang. And it
    starts a new day at 00:00 even where that does not exist: Havana, Asuncion, Cairo, Beirut.
    """
    case = (expression, zone, fire, debian)
    assert any(field.startswith("*") for field in expression.split()[:2]), case
    early, late = min(fire, debian), max(fire, debian)
    jumps = [
        jump
        for jump in table_changes(zone, first_year=early.year - 1, last_year=late.year)
        if early - 2 * DAY <= jump <= late
    ]
    assert any(misleads_cronsim(jump, load_zone(zone)) for jump in jumps), case
    assert fire in fires_near(expression, zone, fire), case
    if after < debian < fire:
        assert debian not in fires_near(expression, zone, debian), case


def misleads_cronsim(jump: datetime, zone: ZoneInfo) -> bool:
    """Tell whether a jump is of the two kinds described above."""
    before, after = (jump - MINUTE).astimezone(zone), jump.astimezone(zone)
    uneven = (before.minute + 1) % 60 != 0 or after.minute != 0
    return uneven or (after.date() > before.date() and after.hour != 0) or after.hour == 1


def fires_near(expression: str, zone: str, at: datetime) -> list[datetime]:
    """List what a look at every minute finds within a day of ``at``."""
    window = MinuteWindow(load_zone(zone), begin=at - 3 * DAY, end=at + 3 * DAY)
    return [fire for fire in window.fires(expression) if abs(fire - at) < DAY]


def random_case(rng: random.Random) -> tuple[str, str, datetime]:
    """Draw a line, a zone and a start."""
    zone = rng.choice(zone_names())
    expression = random_expression(rng)
    start = datetime(rng.randint(2005, 2035), 1, 1, tzinfo=UTC) + timedelta(
        seconds=rng.randrange(365 * 86400)
    )
    jumps = [segment.end for segment in zone_segments(zone, start.year)[:-1]]
    if not jumps or rng.random() < 0.5:
        return expression, zone, start
    jump = rng.choice(jumps).replace(tzinfo=UTC)
    if rng.random() < 0.7:
        near = (jump + rng.randint(-90, 90) * MINUTE).astimezone(load_zone(zone))
        hour = rng.choice([str(near.hour), "*", f"*/{rng.randint(1, 12)}", f"{near.hour}-23"])
        expression = " ".join([rng.choice([str(near.minute), "*/15", "0,30"]), hour, "* * *"])
    return expression, zone, jump - timedelta(seconds=rng.randrange(86400))


def random_expression(rng: random.Random) -> str:
    """Draw five fields of every form but those only one side knows."""
    ranges = ((0, 59, 0.15), (0, 23, 0.25), (1, 31, 0.7), (1, 12, 0.8), (0, 7, 0.7))
    return " ".join(
        "*" if rng.random() < star else random_field(rng, low, high) for low, high, star in ranges
    )


def random_field(rng: random.Random, low: int, high: int) -> str:
    """Draw a restricted field; no range of one value, which cronsim does not take as one."""
    first, last = sorted(rng.sample(range(low, high + 1), 2))
    return rng.choice(
        [
            str(first),
            f"*/{max(first, 1)}",
            f"{first}-{last}",
            f"{first}-{last}/{rng.randint(1, 5)}",
            f"{first},{last}",
            f"{first}/{max(last, 1)}",
        ]
    )


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_no_jump_of_any_zone_is_overlooked():
    """From 1971 to the last year every offset change of every zone's own table is known."""
    for zone in distinct_zones():
        found = sorted(
            segment.end.replace(tzinfo=UTC)
            for year in range(1971, LAST_YEAR + 1)
            for segment in zone_segments(zone, year)
            if segment.offset_after != segment.offset
        )
        expected = table_changes(zone, first_year=1971, last_year=LAST_YEAR)
        assert expected == sorted(set(found) & set(expected)), zone
        assert set(found) - set(expected) == set(), zone


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("shard", range(8))
def test_daily_times_neither_lose_nor_double_a_day(shard):
    """In every zone each of 24 daily times runs once for every date of five years, in order.

    A time that a date's clock skips runs at the end of the gap, which may be on the next date: by
    the definition of ``run_after``, and the only exception to "at that time".
    """
    for zone in distinct_zones()[shard::8]:
        info = load_zone(zone)
        jumps = table_changes(zone, first_year=2023, last_year=2030)
        for hour in range(24):
            trigger = trigger_of(f"{hour * 7 % 60} {hour} * * *", zone)
            wall = datetime(2024, 1, 1, hour, hour * 7 % 60)  # noqa: DTZ001 - a wall clock time
            end = datetime(2029, 1, 1)  # noqa: DTZ001 - a wall clock time
            at = wall.replace(tzinfo=info).astimezone(UTC) - timedelta(seconds=1)
            while wall < end:
                following = trigger.next_after(at)
                assert following is not None
                at = following
                assert instant_of(wall, info, jumps) == at, (zone, wall)
                wall += DAY


def instant_of(wall: datetime, zone: ZoneInfo, jumps: list[datetime]) -> datetime:
    """Map one wall clock time by the definition: itself, else the end of the gap it lies in."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    return max(jump for jump in jumps if jump <= instant)
