"""Schedules in English, as a page shows them."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.schedule import DstFold, DstGap
from app.schemas.words.english import describe_schedule, format_period
from tests.support.schedules import cron_of, crontab_of, date_of, interval_of

CRONTAB_LINES = [
    ("0 9 * * mon-fri", "At 09:00, Monday to Friday"),
    ("*/5 * * * *", "Every 5 minutes"),
    ("30 0 L * *", "At 00:30 on the last day of every month"),
    (
        "*/10 9-17 1,15 * 5",
        (
            "Every 10 minutes from 09:00 to 17:50, on the 1st and 15th of every month, and "
            "on every Friday"
        ),
    ),
    ("0 9 * * *", "At 09:00 every day"),
    ("* * * * *", "Every minute"),
    ("0 * * * *", "Every hour"),
    ("30 * * * *", "At 30 minutes past every hour"),
    ("1 * * * *", "At 1 minute past every hour"),
    ("5,17 * * * *", "At 5 and 17 minutes past every hour"),
    ("0 9,13,18 * * *", "At 09:00, 13:00 and 18:00 every day"),
    ("0 9-17 * * 1-5", "Every hour from 09:00 to 17:00, Monday to Friday"),
    ("*/15 9-17 * * 1-5", "Every 15 minutes from 09:00 to 17:45, Monday to Friday"),
    ("30 */6 * * *", "Every 6 hours from 00:30 to 18:30, every day"),
    ("0 22-2 * * *", "Every hour from 22:00 to 02:00, every day"),
    ("*/30 22-2 * * *", "Every 30 minutes from 22:00 to 02:30, every day"),
    ("0 22-2 * * mon", "Every hour from 00:00 to 02:00 and from 22:00 to 23:00, on Mondays"),
    ("@daily", "At 00:00 every day"),
    ("@hourly", "Every hour"),
    ("@weekly", "At 00:00 on Sundays"),
    ("@monthly", "At 00:00 on the 1st of every month"),
    ("@yearly", "At 00:00 on the 1st of January"),
    ("0 0 13 * 5", "At 00:00 on the 13th of every month, and on every Friday"),
    (
        "0 0 */2 * 1",
        "At 00:00 on odd-numbered days of every month, but only if the day falls on a Monday",
    ),
    ("0 0 2-31/2 * *", "At 00:00 on even-numbered days of every month"),
    ("0 0 1-31/3 * *", "At 00:00 on every 3rd day from the 1st to the 31st of every month"),
    ("0 0 1-7 * 1", "At 00:00 on the 1st to the 7th of every month, and on every Monday"),
    ("0 0 * * 5#2", "At 00:00 on the second Friday of every month"),
    ("0 0 * * 5L", "At 00:00 on the last Friday of every month"),
    ("0 0 LW * *", "At 00:00 on the last weekday (Monday to Friday) of every month"),
    ("0 0 31 * *", "At 00:00 on the 31st of every month that has one"),
    ("0 0 29 2 *", "At 00:00 on the 29th of February (leap years only)"),
    ("0 0 1 1,4,7,10 *", "At 00:00 on the 1st of January, April, July and October"),
    ("0 0 * 7,8 *", "At 00:00 every day in July and August"),
    ("0 9 * 1-3 mon", "At 09:00 on Mondays from January to March"),
    ("0 9 * * sat,sun", "At 09:00 on Saturdays and Sundays"),
    ("0 9 * * 1,3,5", "At 09:00 on Mondays, Wednesdays and Fridays"),
    ("0 9 * * fri-mon", "At 09:00, Friday to Monday"),
    ("0 9 * * 7", "At 09:00 on Sundays"),
    ("0 9 1,L * *", "At 09:00 on the 1st and the last day of every month"),
    ("*/7 * * * *", "Every 7 minutes from 0 to 56 minutes past every hour"),
    ("0-30/10 * * * *", "Every 10 minutes from 0 to 30 minutes past every hour"),
    ("5/10 * * * *", "Every 10 minutes from 5 to 55 minutes past every hour"),
    ("5/10 9-17 * * *", "Every 10 minutes from 09:05 to 17:55, every day"),
    ("* 9 * * *", "Every minute from 09:00 to 09:59, every day"),
    ("0 0-23 * * *", "Every hour"),
    ("*/40 9-10 * * *", "At 0 and 40 minutes past the hour, from 09:00 to 10:40, every day"),
    ("5,17 9-17 * * *", "At 5 and 17 minutes past the hour, from 09:05 to 17:17, every day"),
    (
        "0 1,2,5,9,12,13,17,20,22 * * *",
        "At 0 minutes past the hours 1, 2, 5, 9, 12, 13, 17, 20 and 22, every day",
    ),
    ("*/20 8-18/2 * * *", "Every 20 minutes in the hours 8, 10, 12, 14, 16 and 18, every day"),
    ("0 0 * * 5#5", "At 00:00 on the fifth Friday of every month that has one"),
    (
        "0 0 1-5,10,20-25 * *",
        "At 00:00 on the 1st to the 5th, the 10th and the 20th to the 25th of every month",
    ),
    ("0 0 1 1-3 *", "At 00:00 on the 1st of each month from January to March"),
    ("0 0 * 11-2 *", "At 00:00 every day from November to February"),
    ("0 12 13 6 5", "At 12:00 on the 13th of June, and on every Friday in June"),
    ("0 0 * * mon,5#2", "At 00:00 on the second Friday of every month, and on every Monday"),
    ("0 9-11,14-16 * * *", "Every hour from 09:00 to 11:00 and from 14:00 to 16:00, every day"),
    (
        "*/10 9-11,14-16 * * *",
        "Every 10 minutes from 09:00 to 11:50 and from 14:00 to 16:50, every day",
    ),
    ("0 12 1 * 1-5", "At 12:00 on the 1st of every month, and on every day from Monday to Friday"),
    ("0 0 1-31 * 1", "At 00:00 every day"),
    ("3-9,40 * * * *", "At 3 to 9 and 40 minutes past every hour"),
]
JUMPING_LINES = [
    ("*/5 * * * *", "Every 5 minutes"),
    ("0 0-23 * * *", "Every hour, at fixed local times"),
    (
        "*/40 9-10 * * *",
        "At 0 and 40 minutes past the hour, from 09:00 to 10:40, by elapsed time, every day",
    ),
    ("0-59/5 9-17 * * *", "Every 5 minutes from 09:00 to 17:55, at fixed local times, every day"),
    ("0 9 * * *", "At 09:00 every day"),
]
CRON_OBJECTS = [
    ({"hour": "10"}, "Every minute from 10:00 to 10:59, every day"),
    ({"hour": "9", "minute": "0"}, "At 09:00 every day"),
    ({"second": "*"}, "Every second"),
    ({"second": "*/15"}, "Every 15 seconds"),
    ({"second": "30"}, "At 30 seconds past every minute"),
    (
        {"second": "0,20,50", "minute": "0", "hour": "3"},
        "At 03:00:00, 03:00:20 and 03:00:50 every day",
    ),
    (
        {"second": "0,20,50", "hour": "3"},
        "At 0, 20 and 50 seconds past every minute from 03:00 to 03:59, every day",
    ),
    ({"second": "*/10", "minute": "0-5"}, "Every 10 seconds in minutes 0 to 5 of every hour"),
    (
        {"day": "13", "day_of_week": "fri", "hour": "0", "minute": "0"},
        "At 00:00 on the 13th of every month, but only if it falls on a Friday",
    ),
    (
        {"day": "2nd fri", "hour": "9", "minute": "0"},
        "At 09:00 on the second Friday of every month",
    ),
    ({"day": "last", "hour": "9", "minute": "0"}, "At 09:00 on the last day of every month"),
    (
        {"day": "last sun,1", "hour": "9", "minute": "0"},
        "At 09:00 on the 1st and the last Sunday of every month",
    ),
    (
        {"week": "1-10", "day_of_week": "mon", "hour": "9", "minute": "0"},
        "At 09:00 on Mondays in ISO weeks 1 to 10",
    ),
    (
        {"year": "2030", "month": "1", "day": "1", "hour": "0", "minute": "0"},
        "At 00:00 on the 1st of January in 2030",
    ),
    ({"year": "2099"}, "Every minute in 2099"),
    (
        {"year": "2026-2030/2", "hour": "9", "minute": "0"},
        "At 09:00 every day in 2026, 2028 and 2030",
    ),
    (
        {"year": "*/2", "hour": "9", "minute": "0"},
        "At 09:00 every day in every 2nd year from 1970 to 9998",
    ),
    ({"week": "*/2", "minute": "0"}, "Every hour in every 2nd ISO week from 1 to 53"),
    (
        {"day": "1-7", "day_of_week": "1-5", "hour": "0", "minute": "0"},
        (
            "At 00:00 on the 1st to the 7th of every month, but only if the day falls "
            "between Monday and Friday"
        ),
    ),
    (
        {"day": "1-7", "day_of_week": "mon,wed", "hour": "0", "minute": "0"},
        (
            "At 00:00 on the 1st to the 7th of every month, but only if the day falls on a "
            "Monday or on a Wednesday"
        ),
    ),
    (
        {"year": "2026-2028", "week": "5", "day_of_week": "mon-fri", "hour": "9", "minute": "0"},
        "At 09:00, Monday to Friday, in ISO week 5, from 2026 to 2028",
    ),
    ({"minute": "0"}, "Every hour"),
    (
        {"year": "2027,2029,2032,2034,2037,2039,2042,2044,2047,2049,2052,2054,2057", "minute": "0"},
        "Every hour in the years 2027,2029,2032,2034,2037,2039,2042,2044,2047,2049,2052,2054,2057",
    ),
    ({"second": "1"}, "At 1 second past every minute"),
]
WHOLE_TEXTS = [
    (
        interval_of(timedelta(minutes=10)),
        "Every 10 minutes, counted from when it was set (Asia/Tokyo)",
    ),
    (interval_of(timedelta(hours=1)), "Every hour, counted from when it was set (Asia/Tokyo)"),
    (interval_of(timedelta(days=1)), "Every 24 hours, counted from when it was set (Asia/Tokyo)"),
    (interval_of(timedelta(days=7)), "Every 7 days, counted from when it was set (Asia/Tokyo)"),
    (
        interval_of(timedelta(hours=26, seconds=1)),
        "Every 1 day, 2 hours and 1 second, counted from when it was set (Asia/Tokyo)",
    ),
    (
        interval_of(timedelta(hours=2), start_at=datetime(2026, 1, 1, tzinfo=UTC)),
        "Every 2 hours, starting on 1 January 2026 at 09:00 (Asia/Tokyo)",
    ),
    (
        date_of(datetime(2026, 6, 1, tzinfo=UTC)),
        "Once, on Monday, 1 June 2026 at 09:00 (Asia/Tokyo, UTC+09:00)",
    ),
    (
        date_of(datetime(2026, 6, 1, 0, 0, 1, 500000, tzinfo=UTC)),
        "Once, on Monday, 1 June 2026 at 09:00:01.5 (Asia/Tokyo, UTC+09:00)",
    ),
    (
        date_of(datetime(2026, 11, 1, 6, 30, tzinfo=UTC), timezone="America/New_York"),
        "Once, on Sunday, 1 November 2026 at 01:30 (America/New_York, UTC-05:00)",
    ),
    (
        crontab_of(
            "0 9 * * *",
            start_at=datetime(2026, 1, 1, tzinfo=UTC),
            end_at=datetime(2026, 12, 31, 9, tzinfo=UTC),
        ),
        (
            "At 09:00 every day (Asia/Tokyo), from 1 January 2026 at 09:00, until 31 "
            "December 2026 at 18:00"
        ),
    ),
    (
        crontab_of(
            "0 9 * * *",
            end_at=datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
            timezone="America/New_York",
        ),
        "At 09:00 every day (America/New_York), until 1 November 2026 at 01:30 UTC-05:00",
    ),
    (
        crontab_of("0 9 * * *", jitter=timedelta(seconds=30)),
        "At 09:00 every day (Asia/Tokyo); each start delayed by up to 30 seconds",
    ),
    (
        crontab_of("30 2 * * *", timezone="America/New_York", dst_gap=DstGap.SKIP),
        "At 02:30 every day (America/New_York); when the clock jumps over it, not run",
    ),
    (
        crontab_of(
            "30 2 * * *", timezone="America/New_York", dst_gap=DstGap.SHIFT, dst_fold=DstFold.BOTH
        ),
        (
            "At 02:30 every day (America/New_York); when the clock jumps over it, run as "
            "much later; when the clock repeats it, run both times"
        ),
    ),
    (
        crontab_of("30 2 * * *", timezone="America/New_York", dst_fold=DstFold.SECOND),
        ("At 02:30 every day (America/New_York); when the clock repeats it, run the second time"),
    ),
    (crontab_of("30 2 * * *", dst_gap=DstGap.SKIP), "At 02:30 every day (Asia/Tokyo)"),
]


@pytest.mark.parametrize(("line", "expected"), CRONTAB_LINES)
def test_crontab_lines(line, expected):
    """A crontab line is told by the times it means."""
    assert f"{expected} (Asia/Tokyo)" == describe_schedule(crontab_of(line))


@pytest.mark.parametrize(("line", "expected"), JUMPING_LINES)
def test_lines_in_a_zone_whose_clock_jumps(line, expected):
    """Where clocks jump, the text tells elapsed time from fixed times if its form does not."""
    schedule = crontab_of(line, timezone="America/New_York")
    assert f"{expected} (America/New_York)" == describe_schedule(schedule)


@pytest.mark.parametrize(("fields", "expected"), CRON_OBJECTS)
def test_cron_objects(fields, expected):
    """A cron object is told by the times it means, those of omitted fields too."""
    assert f"{expected} (Asia/Tokyo)" == describe_schedule(cron_of(**fields))


@pytest.mark.parametrize(("schedule", "expected"), WHOLE_TEXTS)
def test_whole_texts(schedule, expected):
    """Intervals, dates, bounds, jitter and policies stand in the text."""
    assert expected == describe_schedule(schedule)


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (timedelta(0), "0 seconds"),
        (timedelta(days=1, hours=2), "1 day and 2 hours"),
        (timedelta(seconds=1.5), "1 second and 500 milliseconds"),
    ],
)
def test_periods(period, expected):
    """A length of time is told in its units."""
    assert expected == format_period(period)
