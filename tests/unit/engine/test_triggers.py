"""Triggers as the rest of the engine uses them: protocol, bounds, intervals, dates, refusals."""

import zoneinfo
from datetime import UTC, datetime, timedelta, timezone

import pytest
from apscheduler.triggers.base import BaseTrigger

from app.domain.clock import to_us
from app.domain.errors import InvalidScheduleError
from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    DstGap,
    IntervalRule,
    Rule,
    Schedule,
)
from app.engine.triggers import (
    ScheduleTrigger,
    TriggerCache,
    TriggerCacheOptions,
    build_trigger,
    check_fires,
    jitter_delay,
)
from app.engine.zones import load_zone, zone_names
from tests.support.cron_oracles import zone_file

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAILY = CrontabRule(expression="0 9 * * *")


def at(*numbers: int) -> datetime:
    """Make an instant."""
    return datetime(*numbers, tzinfo=UTC)  # type: ignore[misc,arg-type]  # year, month, day, ...


def schedule_of(rule: Rule, **options) -> Schedule:
    """Make a schedule, in UTC unless told otherwise."""
    return Schedule(rule=rule, **{"timezone": "UTC", **options})


def trigger_of(rule: Rule, *, anchor: datetime = NOW, **options) -> ScheduleTrigger:
    """Build the trigger of a rule."""
    return build_trigger(schedule_of(rule, **options), anchor=anchor)


def every(**parts: float) -> IntervalRule:
    """Make an interval rule."""
    return IntervalRule(period=timedelta(**parts), parts=())


def cron(**fields: str) -> CronRule:
    """Make a cron rule at second 0."""
    return CronRule(fields=tuple({"second": "0", **fields}.items()))


def refusal(rule: Rule, *, after: datetime = NOW, **options) -> str:
    """Return the sentence with which a schedule is refused."""
    with pytest.raises(InvalidScheduleError) as caught:
        check_fires(trigger_of(rule, **options), after=after)
    return str(caught.value)


def test_is_a_trigger_for_apscheduler():
    """APScheduler accepts the trigger as one of its own."""
    assert isinstance(trigger_of(DAILY), BaseTrigger)


def test_apscheduler_asks_for_the_first_instant_from_now():
    """Without a previous instant the first one at or after now is given."""
    assert at(2026, 11, 21, 9) == trigger_of(DAILY).get_next_fire_time(None, at(2026, 11, 21, 9))


def test_apscheduler_sees_missed_instants():
    """With a previous instant the one after it is given, however late it is now."""
    trigger = trigger_of(DAILY)
    assert at(2026, 11, 2, 9) == trigger.get_next_fire_time(at(2026, 11, 1, 9), at(2026, 12, 1))
    assert at(2026, 11, 2, 9) == trigger.get_next_fire_time(at(2026, 11, 1, 9), at(2020, 1, 1))


def test_next_after_is_strict_and_next_from_is_inclusive():
    """An instant of the schedule follows from itself, but does not come after itself."""
    trigger = trigger_of(DAILY)
    assert at(2026, 11, 22, 9) == trigger.next_after(at(2026, 11, 21, 9))
    assert at(2026, 11, 21, 9) == trigger.next_from(at(2026, 11, 21, 9))
    assert at(2026, 11, 22, 9) == trigger.next_from(at(2026, 11, 21, 9, 0, 0, 1))


def test_instants_are_in_utc_whatever_zone_is_asked_in():
    """An argument in another zone means its instant; the answer is in UTC."""
    jst = timezone(timedelta(hours=9))
    found = trigger_of(DAILY).next_after(datetime(2026, 11, 21, 18, 0, tzinfo=jst))
    assert at(2026, 11, 22, 9) == found
    assert found is not None
    assert found.tzinfo is UTC


def test_a_broken_source_is_noticed():
    """A source that goes back in time fails an assertion instead of looping for ever."""

    class Backward:
        def first_from(self, instant: datetime) -> datetime:
            return instant - MINUTE

        def count(self, begin: datetime, end: datetime) -> int:
            return 0

        def list_us(self, begin: datetime, end: datetime) -> list[int]:
            return []

    trigger = ScheduleTrigger(schedule=schedule_of(DAILY), source=Backward())
    with pytest.raises(AssertionError, match="forward"):
        trigger.next_after(NOW)


def test_an_interval_first_runs_one_period_after_its_anchor():
    """Without start_at instants are counted from the anchor, which is none itself."""
    trigger = trigger_of(every(minutes=10), anchor=at(2026, 11, 21, 6, 3, 7))
    assert at(2026, 11, 21, 6, 13, 7) == trigger.next_from(at(2026, 1, 1))
    assert at(2026, 11, 21, 6, 23, 7) == trigger.next_after(at(2026, 11, 21, 6, 13, 7))


def test_an_interval_with_a_start_first_runs_at_it():
    """With start_at the first instant is start_at, and the anchor plays no part."""
    start_at = at(2026, 11, 22, 0, 0, 30)
    trigger = trigger_of(every(minutes=10), start_at=start_at)
    assert start_at == trigger.next_after(NOW)
    assert start_at + 10 * MINUTE == trigger.next_after(start_at)


def test_an_interval_does_not_drift():
    """After a million periods an interval still fires at whole periods from its anchor."""
    trigger = trigger_of(every(seconds=7), anchor=at(2026, 1, 1))
    late = at(2026, 1, 1) + 7_000_003 * timedelta(seconds=1)
    assert at(2026, 1, 1) + 7_000_007 * timedelta(seconds=1) == trigger.next_after(late)


def test_an_interval_keeps_elapsed_time_over_a_jump_of_the_clock():
    """Intervals know no zone: 24 hours are 24 hours on the day the clock changes."""
    trigger = trigger_of(every(hours=24), anchor=at(2027, 3, 13, 14), timezone="America/New_York")
    assert at(2027, 3, 14, 14) == trigger.next_after(at(2027, 3, 13, 14))


@pytest.mark.parametrize("period", [timedelta(0), timedelta(seconds=-5), timedelta(seconds=0.9)])
def test_an_interval_under_a_second_is_refused(period):
    """Periods below one second, zero and negative ones are refused."""
    assert (
        refusal(IntervalRule(period=period, parts=()))
        == "interval must add up to at least 1 second"
    )


def test_an_interval_over_ten_years_is_refused():
    """A period longer than ten years is refused, ten years are not."""
    assert refusal(every(days=3661)) == "interval must not be longer than 10 years"
    assert at(2026, 11, 21, 6, 30) + timedelta(days=3660) == check_fires(
        trigger_of(every(days=3660)), after=NOW
    )


def test_an_interval_ends_with_the_calendar():
    """Beyond the year 9999 there is no next instant, and no error."""
    assert trigger_of(every(days=3660)).next_after(at(9999, 1, 1)) is None
    assert "beyond the calendar" in refusal(every(days=3660), after=at(9999, 1, 1))


def test_a_date_runs_once():
    """A date rule has one instant, run_at."""
    trigger = trigger_of(DateRule(run_at=at(2027, 1, 1, 9)))
    assert at(2027, 1, 1, 9) == trigger.next_after(NOW)
    assert trigger.next_after(at(2027, 1, 1, 9)) is None


def test_bounds_are_inclusive():
    """start_at and end_at may themselves be instants of the schedule."""
    trigger = trigger_of(DAILY, start_at=at(2026, 12, 1, 9), end_at=at(2026, 12, 2, 9))
    assert at(2026, 12, 1, 9) == trigger.next_after(NOW)
    assert at(2026, 12, 2, 9) == trigger.next_after(at(2026, 12, 1, 9))
    assert trigger.next_after(at(2026, 12, 2, 9)) is None


@pytest.mark.parametrize("rule", [DAILY, every(hours=24), DateRule(run_at=at(2026, 11, 22, 9))])
def test_a_list_excludes_its_begin_and_includes_its_end(rule):
    """An instant is listed in the span that ends at it, in any zone, and not where one begins."""
    nine, jst = at(2026, 11, 22, 9), timezone(9 * 60 * MINUTE)
    microsecond = timedelta(microseconds=1)
    trigger = trigger_of(rule, anchor=at(2026, 11, 21, 9))
    expected = [to_us(nine)]
    assert expected == trigger.list_us(nine - MINUTE, nine)
    assert expected == trigger.list_us(nine - microsecond, nine)
    assert expected == trigger.list_us((nine - MINUTE).astimezone(jst), nine.astimezone(jst))
    assert trigger.list_us(nine, nine + MINUTE) == []
    assert trigger.list_us(nine - MINUTE, nine - microsecond) == []
    assert trigger.list_us(nine, nine - MINUTE) == []


def test_bounds_hold_for_dates_and_intervals():
    """A date outside the bounds never runs; an interval stops at end_at."""
    assert (
        trigger_of(DateRule(run_at=at(2027, 1, 1)), end_at=at(2026, 12, 1)).next_after(NOW) is None
    )
    trigger = trigger_of(every(hours=1), start_at=NOW, end_at=NOW + 90 * MINUTE)
    assert trigger.next_after(NOW) == NOW + 60 * MINUTE
    assert trigger.next_after(NOW + 60 * MINUTE) is None


def test_check_fires_returns_the_first_instant():
    """A schedule that fires is answered with its first instant after the given one."""
    assert at(2026, 11, 21, 9) == check_fires(trigger_of(DAILY), after=NOW)
    assert at(2026, 11, 22, 9) == check_fires(trigger_of(DAILY), after=at(2026, 11, 21, 9))


def test_a_rare_schedule_is_accepted():
    """29 February on a Monday first comes in years and is not refused."""
    rule = cron(day="29", month="2", day_of_week="mon", hour="9", minute="0")
    assert at(2044, 2, 29, 9) == check_fires(trigger_of(rule), after=NOW)


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        (DAILY, {"start_at": at(2027, 2, 1), "end_at": at(2027, 1, 1)}, "end_at lies before start"),
        (DAILY, {"end_at": at(2026, 1, 1)}, "end_at lies in the past"),
        (
            DAILY,
            {"end_at": at(2026, 11, 21, 8)},
            "end_at lies before the first instant, 2026-11-21T09:00",
        ),
        (every(days=2), {"end_at": at(2026, 11, 22)}, "end_at lies before the first instant"),
        (DateRule(run_at=at(2026, 1, 1)), {}, "run_at lies in the past"),
        (DateRule(run_at=at(2027, 1, 1)), {"start_at": at(2027, 2, 1)}, "start_at lies after"),
        (
            cron(year="2027"),
            {"start_at": at(2028, 1, 1)},
            "start_at lies after",
        ),
        (
            DateRule(run_at=at(2027, 2, 1)),
            {"end_at": at(2027, 1, 1)},
            "end_at lies before the first",
        ),
        (CrontabRule(expression="0 9 31 2 *"), {}, "3 (day of month) and 4 (month) never meet"),
        (CrontabRule(expression="0 9 */40 * 1#2"), {}, "and 5 (day of week) never meet"),
        (cron(day="31", month="2"), {}, "month and day never meet"),
        (cron(day="30,31", month="feb", day_of_week="mon"), {}, "month and day never meet"),
        (cron(week="53", month="6"), {}, "month and week never meet"),
        (cron(day="2nd fri", day_of_week="mon"), {}, "day and day_of_week never meet"),
        (cron(year="2020"), {}, "cron's year leaves no time"),
        (cron(year="2027", month="2", day="29"), {}, "cron's year, month and day leave no time"),
        (cron(year="2026", month="11", day="21", hour="5"), {}, "year, month, day and hour leave"),
        (cron(year="*/4", month="2", day="29"), {}, "year, month and day leave no time"),
        (cron(year="2300"), {}, "end of 2199"),
    ],
)
def test_a_schedule_that_never_fires_is_refused_by_the_field_that_excludes_all(
    rule, options, named
):
    """What leaves no instant is refused with a sentence that names it."""
    assert named in refusal(rule, **options)


def test_a_schedule_whose_every_time_is_skipped_is_refused():
    """A time that only ever falls into the gap, which is to be skipped, is refused as such."""
    rule = cron(day="2nd sun", month="3", hour="2", minute="30")
    sentence = refusal(rule, timezone="America/New_York", dst_gap=DstGap.SKIP)
    assert "the zone's clock jumps over that time, which dst_gap=skip" in sentence


def test_what_is_past_is_judged_by_the_zones_clock():
    """10:00 of today has passed in Tokyo, where it is 15:30, though not in UTC."""
    rule = cron(year="2026", month="11", day="21", hour="10", minute="0")
    sentence = refusal(rule, timezone="Asia/Tokyo")
    assert "cron's year, month, day and hour leave no time" in sentence
    assert check_fires(trigger_of(rule), after=NOW) == at(2026, 11, 21, 10)


def test_check_fires_takes_an_instant_in_any_zone():
    """An argument in another zone means its instant, for the check and for the bounds."""
    jst = timezone(timedelta(hours=9))
    assert check_fires(trigger_of(DAILY), after=NOW.astimezone(jst)) == at(2026, 11, 21, 9)
    trigger = trigger_of(DAILY, start_at=at(2026, 12, 1, 8).astimezone(jst))
    assert trigger.next_after(NOW) == at(2026, 12, 1, 9)


def test_refusals_repeat_nothing_of_the_expression():
    """A sentence about a bad expression does not echo it."""
    for rule in (CrontabRule(expression="0 9 * * hunter2"), cron(hour="hunter2")):
        assert "hunter2" not in refusal(rule)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Asia/Tokio", "Asia/Tokyo"),
        ("asia/tokyo", "Asia/Tokyo"),
        ("Tokyo", "Asia/Tokyo"),
        ("JST", "Asia/Tokyo"),
        ("America/New York", "America/New_York"),
        ("Europe/Kyev", "Europe/Kyiv"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_name(name, nearest):
    """A misspelt zone is answered with the one most likely meant."""
    assert f"unknown time zone '{name}'; did you mean '{nearest}'?" == refusal(DAILY, timezone=name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/localtime", "zzzzqqqq"])
def test_a_zone_like_no_other_is_refused_with_an_example(name):
    """What resembles no zone, a path of the host included, is refused with an example."""
    assert f"unknown time zone '{name}'; use an IANA name such as 'Asia/Tokyo'" == refusal(
        DAILY, timezone=name
    )


def test_a_zone_name_is_shown_without_control_characters_and_not_at_length():
    """A hostile zone name is cut and cleaned before it is shown."""
    assert "unknown time zone 'a?b';" in refusal(DAILY, timezone="a\nb")
    assert len(refusal(DAILY, timezone="x" * 10_000)) < 200


def test_zones_do_not_come_from_the_host(tmp_path):
    """A host whose Asia/Tokyo is wrong, or that has no zones, changes nothing."""
    (tmp_path / "Asia").mkdir()
    (tmp_path / "Asia" / "Tokyo").write_bytes(zone_file("Etc/UTC").read_bytes())
    zoneinfo.reset_tzpath(to=[tmp_path])
    load_zone.cache_clear()
    try:
        assert at(2026, 11, 22) == trigger_of(DAILY, timezone="Asia/Tokyo").next_after(NOW)
    finally:
        zoneinfo.reset_tzpath()
        load_zone.cache_clear()


def test_every_zone_loads():
    """Each of the IANA names has its zone, under its own name."""
    assert list(zone_names()) == [load_zone(name).key for name in zone_names()]
    assert len(zone_names()) > 590


def test_jitter_moves_no_fire_time():
    """A schedule with jitter fires at the same instants as one without."""
    assert at(2026, 11, 21, 9) == trigger_of(DAILY, jitter=timedelta(hours=1)).next_after(NOW)


def test_jitter_differs_between_jobs_and_instants():
    """Jobs due at one instant start at different times, and so do the instants of one job."""
    schedule = schedule_of(DAILY, jitter=timedelta(minutes=10))
    delays = {jitter_delay(schedule, f"job{number}", NOW) for number in range(100)}
    assert len(delays) == 100
    assert jitter_delay(schedule, "job1", NOW) != jitter_delay(schedule, "job1", NOW + MINUTE)


def test_without_jitter_nothing_is_delayed():
    """No jitter is no delay."""
    assert timedelta(0) == jitter_delay(schedule_of(DAILY), "job1", NOW)


def test_equal_schedules_share_a_trigger():
    """Two jobs of equal cron schedule get one trigger, whenever they were set."""
    cache = TriggerCache(TriggerCacheOptions())
    first = cache.get(schedule_of(DAILY), anchor=NOW)
    assert first is cache.get(schedule_of(DAILY), anchor=NOW + MINUTE)
    assert first is not cache.get(schedule_of(DAILY, timezone="Asia/Tokyo"), anchor=NOW)


def test_intervals_share_a_trigger_only_from_one_anchor():
    """Intervals counted from different instants do not share; with a start_at they do."""
    cache = TriggerCache(TriggerCacheOptions())
    plain, started = schedule_of(every(hours=1)), schedule_of(every(hours=1), start_at=NOW)
    assert cache.get(plain, anchor=NOW) is cache.get(plain, anchor=NOW)
    assert cache.get(plain, anchor=NOW) is not cache.get(plain, anchor=NOW + MINUTE)
    assert cache.get(started, anchor=NOW) is cache.get(started, anchor=NOW + MINUTE)


def test_the_cache_is_bounded_and_forgets_the_least_used():
    """With room for two, the third trigger displaces the one not asked for longest."""
    cache = TriggerCache(TriggerCacheOptions(triggers_max=2))
    schedules = [schedule_of(CrontabRule(expression=f"{n} 9 * * *")) for n in range(3)]
    kept, displaced = (cache.get(schedule, anchor=NOW) for schedule in schedules[:2])
    cache.get(schedules[0], anchor=NOW)
    cache.get(schedules[2], anchor=NOW)
    assert kept is cache.get(schedules[0], anchor=NOW)
    assert displaced is not cache.get(schedules[1], anchor=NOW)


def test_dates_displace_nothing():
    """Jobs that fire once share a trigger where they are due at one instant, and no more room."""
    cache = TriggerCache(TriggerCacheOptions(triggers_max=1, dates_max=2))
    daily = cache.get(schedule_of(DAILY), anchor=NOW)
    dates = [schedule_of(DateRule(run_at=NOW + number * MINUTE)) for number in range(3)]
    first, second, _ = (cache.get(schedule, anchor=NOW) for schedule in dates)
    assert daily is cache.get(schedule_of(DAILY), anchor=NOW)
    assert second is cache.get(dates[1], anchor=NOW + MINUTE)
    assert first is not cache.get(dates[0], anchor=NOW)


def test_the_cache_repeats_a_refusal():
    """A schedule that cannot be built is refused each time it is asked for."""
    cache = TriggerCache(TriggerCacheOptions())
    for _ in range(2):
        with pytest.raises(InvalidScheduleError):
            cache.get(schedule_of(every(seconds=0)), anchor=NOW)


def test_a_cache_without_room_is_refused():
    """A cache of no triggers is a mistake in the settings."""
    with pytest.raises(ValueError, match="at least 1"):
        TriggerCacheOptions(triggers_max=0)
    with pytest.raises(ValueError, match="at least 1"):
        TriggerCacheOptions(dates_max=0)


@pytest.mark.parametrize("rule", [DAILY, cron(hour="9", minute="0"), cron(day="last")])
def test_nothing_is_looked_for_beyond_the_last_year(rule):
    """After 2199 there is no next instant, and no error or endless search."""
    assert trigger_of(rule).next_after(at(2199, 12, 31, 23, 59)) is None
    assert trigger_of(rule).next_after(at(9998, 1, 1)) is None
