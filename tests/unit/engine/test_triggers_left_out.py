"""Local times that the zone's clock makes void: by example, each with its place in time."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    DstFold,
    DstGap,
    IntervalRule,
    Rule,
    Schedule,
)
from app.engine.crontab import CrontabPattern
from app.engine.left_out import LeftOut, LeftOutKind
from app.engine.triggers import ScheduleTrigger, build_trigger
from app.engine.wall_clock import WallClock

ANCHOR = datetime(2010, 1, 1, tzinfo=UTC)
NEW_YORK = "America/New_York"  # 2027: 14 March 02:00 → 03:00, 7 November 02:00 → 01:00
YEAR_2027 = (datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
SKIP, SHIFT, RUN_AFTER = DstGap.SKIP, DstGap.SHIFT, DstGap.RUN_AFTER
FIRST, SECOND, BOTH = DstFold.FIRST, DstFold.SECOND, DstFold.BOTH


def trigger_of(
    rule: Rule | str, zone: str = NEW_YORK, *, gap: DstGap = SKIP, fold: DstFold = BOTH, **bounds
) -> ScheduleTrigger:
    """Build the trigger of a crontab line or a rule."""
    if isinstance(rule, str):
        rule = CrontabRule(expression=rule)
    schedule = Schedule(rule=rule, timezone=zone, dst_gap=gap, dst_fold=fold, **bounds)
    return build_trigger(schedule, anchor=ANCHOR)


def void_times(trigger: ScheduleTrigger, span: tuple[datetime, datetime]) -> list[str]:
    """List what is left out as ``kind local = instant``, in month-day hour:minute."""
    return [
        f"{void.kind} {void.wall:%m-%d %H:%M} = {void.at:%m-%dT%H:%MZ}"
        for void in trigger.left_out(*span)
    ]


def test_a_void_time_names_its_place_its_reading_and_its_kind():
    """02:30 in the gap stands at the instant at which the old offset would have shown it."""
    expected = LeftOut(
        at=datetime(2027, 3, 14, 7, 30, tzinfo=UTC),
        wall=datetime(2027, 3, 14, 2, 30),  # noqa: DTZ001 - a wall clock time
        kind=LeftOutKind.GAP,
    )
    assert (expected,) == trigger_of("30 2 * * *").left_out(*YEAR_2027)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RUN_AFTER, []),
        (SHIFT, []),
        (SKIP, ["gap 03-14 02:00 = 03-14T07:00Z", "gap 03-14 02:30 = 03-14T07:30Z"]),
    ],
)
@pytest.mark.parametrize("fold", DstFold)
def test_only_skip_leaves_out_the_times_of_a_gap(policy, expected, fold):
    """What runs after the gap, or shifted, is not void, whatever becomes of folds."""
    assert expected == void_times(trigger_of("0,30 2 * * *", gap=policy, fold=fold), YEAR_2027)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (FIRST, ["fold 11-07 01:00 = 11-07T06:00Z", "fold 11-07 01:30 = 11-07T06:30Z"]),
        (SECOND, ["fold 11-07 01:00 = 11-07T05:00Z", "fold 11-07 01:30 = 11-07T05:30Z"]),
        (BOTH, []),
    ],
)
def test_the_pass_that_is_not_chosen_is_left_out(policy, expected):
    """dst_fold=first makes the second pass void, second the first, and both neither."""
    assert expected == void_times(trigger_of("0,30 1 * * *", fold=policy), YEAR_2027)


def test_a_void_time_at_an_instant_that_runs_is_not_listed():
    """02:30 does not exist, but where it would have been 03:30 runs; 02:15 remains void."""
    trigger = trigger_of("15,30 2 * * *")
    expected = ["gap 03-14 02:15 = 03-14T07:15Z", "gap 03-14 02:30 = 03-14T07:30Z"]
    assert expected == void_times(trigger, YEAR_2027)
    rule = CronRule(fields=(("hour", "2-3"), ("minute", "30"), ("second", "0")))
    assert void_times(trigger_of(rule), YEAR_2027) == []


@pytest.mark.parametrize(
    ("zone", "line", "expected"),
    [
        (
            "Australia/Lord_Howe",  # half an hour: 4 April 02:00 → 01:30, 3 October 02:00 → 02:30
            "0,15,30,45 1,2 * * *",
            [
                "fold 04-04 01:30 = 04-03T15:00Z",
                "fold 04-04 01:45 = 04-03T15:15Z",
            ],
        ),
        (
            "Australia/Lord_Howe",
            "10 2 * * *",
            ["gap 10-03 02:10 = 10-02T15:40Z"],
        ),
        (
            "Europe/Dublin",  # its winter time is the one that tzdata calls saving
            "30 1 * * *",
            ["gap 03-28 01:30 = 03-28T01:30Z", "fold 10-31 01:30 = 10-31T01:30Z"],
        ),
    ],
)
def test_other_clocks_jump_otherwise(zone, line, expected):
    """Half an hour and Ireland's negative saving are read from the offsets like any jump."""
    assert expected == void_times(trigger_of(line, zone, fold=FIRST), YEAR_2027)


def test_samoa_lost_a_day():
    """The 30th of December 2011 is void in Apia, and 10 o'clock of it lies on the 31st."""
    span = (datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 3, tzinfo=UTC))
    expected = ["gap 12-30 10:00 = 12-30T20:00Z"]
    assert expected == void_times(trigger_of("0 10 30 * *", "Pacific/Apia"), span)
    # Where 10:00 of the 30th would have been, 10:00 of the 31st runs.
    assert void_times(trigger_of("0 10 * * *", "Pacific/Apia"), span) == []


@pytest.mark.parametrize(
    "rule",
    [
        "*/30 * * * *",
        "30 * * * *",
        "*/30 1,2 * * *",
        CronRule(fields=(("minute", "30"), ("second", "0"))),
        IntervalRule(period=timedelta(minutes=30), parts=()),
        DateRule(run_at=datetime(2027, 3, 14, 7, 30, tzinfo=UTC)),
    ],
)
def test_what_follows_elapsed_time_leaves_nothing_out(rule):
    """Rules of every so often, intervals and dates have no void times, whatever the policies."""
    assert trigger_of(rule, gap=SKIP, fold=FIRST).left_out(*YEAR_2027) == ()


@pytest.mark.parametrize(
    ("line", "fold", "at"),
    [
        ("30 2 * * *", BOTH, datetime(2027, 3, 14, 7, 30, tzinfo=UTC)),
        ("0 2 * * *", BOTH, datetime(2027, 3, 14, 7, tzinfo=UTC)),  # the jump itself
        ("0 1 * * *", FIRST, datetime(2027, 11, 7, 6, tzinfo=UTC)),  # the jump itself
        ("59 1 * * *", FIRST, datetime(2027, 11, 7, 6, 59, tzinfo=UTC)),  # an hour after it
        ("0 1 * * *", SECOND, datetime(2027, 11, 7, 5, tzinfo=UTC)),  # an hour before it
    ],
)
def test_the_span_excludes_its_begin_and_includes_its_end(line, fold, at):
    """A void time belongs to the span that ends at it, not to the one that begins there."""
    trigger = trigger_of(line, fold=fold)
    hour, microsecond = timedelta(hours=1), timedelta(microseconds=1)
    assert [at] == [void.at for void in trigger.left_out(at - hour, at)]
    assert [at] == [void.at for void in trigger.left_out(at - microsecond, at + microsecond)]
    assert trigger.left_out(at, at + hour) == ()
    assert trigger.left_out(at - hour, at - microsecond) == ()


def test_void_times_outside_the_schedule_are_not_listed():
    """Before start_at and after end_at nothing is void; at them it is."""
    at, minute = datetime(2027, 3, 14, 7, 30, tzinfo=UTC), timedelta(minutes=1)
    expected = ["gap 03-14 02:30 = 03-14T07:30Z"]
    for trigger in (trigger_of("30 2 * * *", start_at=at), trigger_of("30 2 * * *", end_at=at)):
        assert expected == void_times(trigger, YEAR_2027)
    assert void_times(trigger_of("30 2 * * *", start_at=at + minute), YEAR_2027) == []
    assert void_times(trigger_of("30 2 * * *", end_at=at - minute), YEAR_2027) == []


def test_void_times_of_a_year_come_in_order_of_their_instants():
    """Both jumps of a year, and both hemispheres, give one ordered list."""
    trigger = trigger_of("30 1,2 * * *", fold=SECOND)
    expected = ["gap 03-14 02:30 = 03-14T07:30Z", "fold 11-07 01:30 = 11-07T05:30Z"]
    assert expected == void_times(trigger, YEAR_2027)
    south = trigger_of("30 2 * * *", "Australia/Sydney", fold=FIRST)
    expected = ["fold 04-04 02:30 = 04-03T16:30Z", "gap 10-03 02:30 = 10-02T16:30Z"]
    assert expected == void_times(south, YEAR_2027)


def test_only_near_a_jump_is_a_clock_searched():
    """A span that keeps a jump's width from it is quiet; one that touches or crosses is not."""
    pattern = CrontabPattern("30 2 * * *")
    clock = WallClock(pattern=pattern, zone=NEW_YORK, gap=SKIP, fold=FIRST)
    jump, hour = datetime(2027, 3, 14, 7, tzinfo=UTC), timedelta(hours=1)
    second = timedelta(seconds=1)
    assert clock.is_quiet(jump - 48 * hour, jump - hour - second)
    assert not clock.is_quiet(jump - 48 * hour, jump - hour)
    assert not clock.is_quiet(jump + hour - second, jump + 48 * hour)
    assert clock.is_quiet(jump + hour, jump + 48 * hour)
    assert not clock.is_quiet(jump - 48 * hour, jump + 48 * hour)
    new_year = datetime(2028, 1, 1, tzinfo=UTC)
    assert clock.is_quiet(new_year - hour, new_year + hour)


def test_after_the_calendar_nothing_is_left_out():
    """Beyond the last year looked at there are no void times."""
    span = (datetime(2200, 1, 1, tzinfo=UTC), datetime(2210, 1, 1, tzinfo=UTC))
    assert trigger_of("30 2 * * *", fold=FIRST).left_out(*span) == ()
