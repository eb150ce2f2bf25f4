"""Where a zone's clock jumps: the policies by example, instant by instant."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Rule, Schedule
from app.engine.triggers import build_trigger
from app.engine.zones import load_zone


def local_fires(rule: Rule | str, zone: str, *, begin: str, count: int, **policy) -> list[str]:
    """List fires from a local time on as ``day hour:minute offset``."""
    if isinstance(rule, str):
        rule = CrontabRule(expression=rule)
    info = load_zone(zone)
    trigger = build_trigger(
        Schedule(rule=rule, timezone=zone, **policy), anchor=datetime(2026, 1, 1, tzinfo=UTC)
    )
    at = datetime.fromisoformat(begin).replace(tzinfo=info).astimezone(UTC) - timedelta(seconds=1)
    fires = []
    for _ in range(count):
        following = trigger.next_after(at)
        assert following is not None
        at = following
        fires.append(at.astimezone(info).strftime("%d %H:%M %z"))
    return fires


NEW_YORK = "America/New_York"  # 2027: 14 March 02:00 → 03:00, 7 November 02:00 → 01:00


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DstGap.RUN_AFTER, ["13 02:30 -0500", "14 03:00 -0400", "15 02:30 -0400"]),
        (DstGap.SHIFT, ["13 02:30 -0500", "14 03:30 -0400", "15 02:30 -0400"]),
        (DstGap.SKIP, ["13 02:30 -0500", "15 02:30 -0400", "16 02:30 -0400"]),
    ],
)
def test_a_fixed_time_in_the_gap(policy, expected):
    """02:30 on the day it does not exist runs right after the gap, shifted, or not at all."""
    fires = local_fires("30 2 * * *", NEW_YORK, begin="2027-03-13", count=3, dst_gap=policy)
    assert expected == fires


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DstFold.FIRST, ["06 01:30 -0400", "07 01:30 -0400", "08 01:30 -0500", "09 01:30 -0500"]),
        (DstFold.SECOND, ["06 01:30 -0400", "07 01:30 -0500", "08 01:30 -0500", "09 01:30 -0500"]),
        (DstFold.BOTH, ["06 01:30 -0400", "07 01:30 -0400", "07 01:30 -0500", "08 01:30 -0500"]),
    ],
)
def test_a_fixed_time_in_the_fold(policy, expected):
    """01:30 on the day it comes twice runs the first time, the second, or both."""
    fires = local_fires("30 1 * * *", NEW_YORK, begin="2027-11-06", count=4, dst_fold=policy)
    assert expected == fires


def test_times_around_the_gap_meet_once():
    """Two times in the gap and one at its end are one run, whatever they were."""
    fires = local_fires("15,30 2,3 * * *", NEW_YORK, begin="2027-03-14", count=4)
    assert fires == ["14 03:00 -0400", "14 03:15 -0400", "14 03:30 -0400", "15 02:15 -0400"]
    fires = local_fires("0 2,3 * * *", NEW_YORK, begin="2027-03-14", count=2)
    assert fires == ["14 03:00 -0400", "15 02:00 -0400"]


def test_shifted_times_keep_their_order_and_meet_once():
    """02:15 and 02:30 shifted by an hour meet 03:15 and 03:30 of their own, in order, once each."""
    fires = local_fires(
        "15,30 2,3 * * *", NEW_YORK, begin="2027-03-14", count=4, dst_gap=DstGap.SHIFT
    )
    assert fires == ["14 03:15 -0400", "14 03:30 -0400", "15 02:15 -0400", "15 02:30 -0400"]
    fires = local_fires(
        "20 2 * * *", NEW_YORK, begin="2027-03-14 03:10", count=1, dst_gap=DstGap.SHIFT
    )
    assert fires == ["14 03:20 -0400"]


def test_all_seconds_of_a_fixed_minute_in_the_gap_are_one_run():
    """A rule with a * in second only is a fixed time: its sixty runs in the gap become one."""
    rule = CronRule(fields=(("hour", "2"), ("minute", "30"), ("second", "*")))
    fires = local_fires(rule, NEW_YORK, begin="2027-03-14", count=2)
    assert fires == ["14 03:00 -0400", "15 02:30 -0400"]


@pytest.mark.parametrize("rule", ["0 * * * *", "0 */1 * * *"])
@pytest.mark.parametrize("fold", DstFold)
@pytest.mark.parametrize("gap", DstGap)
def test_every_hour_follows_elapsed_time(rule, gap, fold):
    """An hourly job runs every 60 minutes through gap and fold, whatever the policies say."""
    policy = {"dst_gap": gap, "dst_fold": fold}
    fires = local_fires(rule, NEW_YORK, begin="2027-11-07", count=4, **policy)
    assert fires == ["07 00:00 -0400", "07 01:00 -0400", "07 01:00 -0500", "07 02:00 -0500"]
    fires = local_fires(rule, NEW_YORK, begin="2027-03-14 01:00", count=2, **policy)
    assert fires == ["14 01:00 -0500", "14 03:00 -0400"]


def test_a_step_in_minute_follows_elapsed_time():
    """*/30 in an hour that comes twice runs four times, and not at all in one that is skipped."""
    fires = local_fires("*/30 1 * * *", NEW_YORK, begin="2027-11-07", count=5)
    assert fires == [
        "07 01:00 -0400",
        "07 01:30 -0400",
        "07 01:00 -0500",
        "07 01:30 -0500",
        "08 01:00 -0500",
    ]
    assert local_fires("*/30 2 * * *", NEW_YORK, begin="2027-03-14", count=1) == ["15 02:00 -0400"]


def test_a_star_inside_a_list_follows_elapsed_time():
    """A list that holds a */n follows elapsed time wherever in the list it stands."""
    fires = local_fires("5,*/30 1 * * *", NEW_YORK, begin="2027-11-07 01:20", count=3)
    assert fires == ["07 01:30 -0400", "07 01:00 -0500", "07 01:05 -0500"]


def test_a_cron_object_without_a_minute_follows_elapsed_time():
    """An omitted field means *, so hour alone runs every minute of both passes."""
    rule = CronRule(fields=(("hour", "1"), ("second", "0")))
    fires = local_fires(rule, NEW_YORK, begin="2027-11-07 01:59", count=2)
    assert fires == ["07 01:59 -0400", "07 01:00 -0500"]


def test_ranges_are_fixed_times():
    """A range in hour is a list of fixed times: in the fold it runs once, by Debian's rule."""
    fires = local_fires("30 0-2 * * *", NEW_YORK, begin="2027-11-07", count=3)
    assert fires == ["07 00:30 -0400", "07 01:30 -0400", "07 02:30 -0500"]


def test_a_skipped_day_runs_first_thing_on_the_next():
    """Samoa had no 30 December 2011: that day's 10:00 runs at 00:00 on the 31st."""
    fires = local_fires("0 10 * * *", "Pacific/Apia", begin="2011-12-29", count=3)
    assert fires == ["29 10:00 -1000", "31 00:00 +1400", "31 10:00 +1400"]
    fires = local_fires(
        "0 10 * * *", "Pacific/Apia", begin="2011-12-30", count=2, dst_gap=DstGap.SHIFT
    )
    assert fires == ["31 10:00 +1400", "01 10:00 +1400"]


def test_a_skipped_date_of_its_own_still_runs():
    """A job for 30 December alone runs at the first instant after the day Samoa skipped."""
    fires = local_fires("0 10 30 12 *", "Pacific/Apia", begin="2011-12-01", count=2)
    assert fires == ["31 00:00 +1400", "30 10:00 +1400"]


def test_midnight_that_does_not_exist():
    """Where the clock jumps at midnight a daily 00:00 runs at 01:00 that day."""
    fires = local_fires("0 0 * * *", "Africa/Cairo", begin="2026-04-23", count=3)
    assert fires == ["23 00:00 +0200", "24 01:00 +0300", "25 00:00 +0300"]


def test_a_half_hour_jump():
    """On Lord Howe clocks move by 30 minutes: 02:15 does not exist, 01:45 comes twice."""
    fires = local_fires("15 2 * * *", "Australia/Lord_Howe", begin="2026-10-04", count=2)
    assert fires == ["04 02:30 +1100", "05 02:15 +1100"]
    fires = local_fires(
        "45 1 * * *", "Australia/Lord_Howe", begin="2026-04-05", count=2, dst_fold=DstFold.BOTH
    )
    assert fires == ["05 01:45 +1100", "05 01:45 +1030"]


def test_a_two_hour_jump():
    """At Troll clocks move by two hours."""
    fires = local_fires("30 2 * * *", "Antarctica/Troll", begin="2026-03-29", count=2)
    assert fires == ["29 03:00 +0200", "30 02:30 +0200"]


def test_winter_time_as_the_exception():
    """Dublin's negative daylight saving is an hour back in October like any other."""
    fires = local_fires("30 1 * * *", "Europe/Dublin", begin="2026-10-25", count=2)
    assert fires == ["25 01:30 +0100", "26 01:30 +0000"]


def test_ramadan():
    """Casablanca leaves summer time for Ramadan and comes back after it."""
    fires = local_fires("30 2 * * *", "Africa/Casablanca", begin="2026-02-15", count=2)
    assert fires == ["15 02:30 +0100", "16 02:30 +0000"]
    fires = local_fires("30 2 * * *", "Africa/Casablanca", begin="2026-03-22", count=2)
    assert fires == ["22 03:00 +0100", "23 02:30 +0100"]


def test_a_jump_of_odd_seconds():
    """Monrovia left an offset of 44 minutes 30 seconds: the gap ends at 00:44:30."""
    fires = local_fires("30 0 * * *", "Africa/Monrovia", begin="1972-01-07", count=2)
    assert fires == ["07 00:44 +0000", "08 00:30 +0000"]


def test_a_jump_at_new_year():
    """A jump at the turn of the year (UTC) is not cut in two: Kathmandu 1986 loses 15 minutes."""
    fires = local_fires("5 0 * * *", "Asia/Kathmandu", begin="1985-12-31", count=3)
    assert fires == ["31 00:05 +0530", "01 00:15 +0545", "02 00:05 +0545"]


def test_the_last_occurrence_in_the_fold_is_not_lost():
    """A rule that ends with its year still runs the second time round."""
    rule = CronRule(
        fields=(
            ("year", "2027"),
            ("month", "11"),
            ("day", "7"),
            ("hour", "1"),
            ("minute", "30"),
            ("second", "0"),
        )
    )
    fires = local_fires(rule, NEW_YORK, begin="2027-11-01", count=2, dst_fold=DstFold.BOTH)
    assert fires == ["07 01:30 -0400", "07 01:30 -0500"]


def test_a_jump_days_before_new_year_belongs_to_its_own_year():
    """Hong Kong's jump of 30 December 1973 leaves the days after it alone."""
    fires = local_fires("30 3 * * *", "Asia/Hong_Kong", begin="1973-12-29", count=5)
    assert fires == [
        "29 03:30 +0800",
        "30 04:30 +0900",
        "31 03:30 +0900",
        "01 03:30 +0900",
        "02 03:30 +0900",
    ]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DstFold.FIRST, ["31 20:30 +0000", "01 20:30 -0600"]),
        (DstFold.SECOND, ["31 20:30 -0600", "01 20:30 -0600"]),
    ],
)
def test_a_fold_at_new_year(policy, expected):
    """A fold at the very turn of the year (UTC) is known on both sides: Rankin Inlet 1957."""
    fires = local_fires(
        "30 20 * * *", "America/Rankin_Inlet", begin="1956-12-31", count=2, dst_fold=policy
    )
    assert fires == expected
