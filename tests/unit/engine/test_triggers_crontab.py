"""The dialect of crontab lines: what each form means, and how it is refused."""

from datetime import UTC, datetime

import pytest

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import CrontabRule, Schedule
from app.engine.crontab import CrontabPattern, normalise_crontab
from app.engine.triggers import build_trigger

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def fires(line: str, *, begin: str = "2026-11-21", count: int = 3) -> list[str]:
    """List fires in UTC as ``weekday month-day hour:minute``."""
    schedule = Schedule(rule=CrontabRule(expression=line), timezone="UTC")
    trigger = build_trigger(schedule, anchor=ANCHOR)
    at = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        following = trigger.next_after(at)
        assert following is not None
        at = following
        found.append(at.strftime("%a %m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 9 * * 1-5", ["Mon 11-23 09:00", "Tue 11-24 09:00", "Wed 11-25 09:00"]),
        ("0 9 * * 0", ["Sun 11-22 09:00", "Sun 11-29 09:00", "Sun 12-06 09:00"]),
        ("0 9 * * 7", ["Sun 11-22 09:00", "Sun 11-29 09:00", "Sun 12-06 09:00"]),
        ("0 9 * * 5-7", ["Sat 11-21 09:00", "Sun 11-22 09:00", "Fri 11-27 09:00"]),
        ("0 9 * * fri-mon", ["Sat 11-21 09:00", "Sun 11-22 09:00", "Mon 11-23 09:00"]),
        ("0 22-2 * * *", ["Sat 11-21 01:00", "Sat 11-21 02:00", "Sat 11-21 22:00"]),
        ("0 9 1 nov-feb *", ["Tue 12-01 09:00", "Fri 01-01 09:00", "Mon 02-01 09:00"]),
        ("*/20 9 * * *", ["Sat 11-21 09:00", "Sat 11-21 09:20", "Sat 11-21 09:40"]),
        ("5/20 9 * * *", ["Sat 11-21 09:05", "Sat 11-21 09:25", "Sat 11-21 09:45"]),
        ("0-0/20 9 * * *", ["Sat 11-21 09:00", "Sun 11-22 09:00", "Mon 11-23 09:00"]),
        ("*/90 9 * * *", ["Sat 11-21 09:00", "Sun 11-22 09:00", "Mon 11-23 09:00"]),
        ("0 9 L * *", ["Mon 11-30 09:00", "Thu 12-31 09:00", "Sun 01-31 09:00"]),
        ("0 9 LW * *", ["Mon 11-30 09:00", "Thu 12-31 09:00", "Fri 01-29 09:00"]),
        ("0 9 * * 5L", ["Fri 11-27 09:00", "Fri 12-25 09:00", "Fri 01-29 09:00"]),
        ("0 9 * * friL", ["Fri 11-27 09:00", "Fri 12-25 09:00", "Fri 01-29 09:00"]),
        ("0 9 * * 5#2", ["Fri 12-11 09:00", "Fri 01-08 09:00", "Fri 02-12 09:00"]),
        ("0 9 * * FRI#2", ["Fri 12-11 09:00", "Fri 01-08 09:00", "Fri 02-12 09:00"]),
        ("0 9 * Jan,JUL Mon", ["Mon 01-04 09:00", "Mon 01-11 09:00", "Mon 01-18 09:00"]),
    ],
)
def test_a_line_means_what_cron_says(line, expected):
    """Weekdays, ranges, steps, names, L and # mean what they mean in crontab."""
    assert fires(line) == expected


def test_day_of_month_or_day_of_week():
    """With both given either is enough: the 13th and every Friday."""
    assert fires("0 9 13 * 5", begin="2026-12-05") == [
        "Fri 12-11 09:00",
        "Sun 12-13 09:00",
        "Fri 12-18 09:00",
    ]


def test_day_of_month_and_a_step_of_weekdays():
    """Where one of the two begins with * both must match: Debian cron's rule."""
    assert fires("0 9 13 * */5") == ["Sun 12-13 09:00", "Sun 06-13 09:00", "Fri 08-13 09:00"]


@pytest.mark.parametrize(
    ("macro", "line"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        (" @Daily ", "0 0 * * *"),
    ],
)
def test_macros(macro, line):
    """A macro means its line."""
    assert normalise_crontab(macro) == line


@pytest.mark.parametrize(
    ("line", "elapsed"),
    [
        ("0 9 * * *", False),
        ("0-59 1-5 * * *", False),
        ("5/10 9 * * *", False),
        ("* 9 * * *", True),
        ("0 */2 * * *", True),
        ("3,*/20 9 * * *", True),
    ],
)
def test_only_a_star_in_hour_or_minute_follows_elapsed_time(line, elapsed):
    """A * or */n in hour or minute makes a rule of elapsed time, ranges do not."""
    assert CrontabPattern(line).follows_elapsed_time is elapsed


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0 9 * * *", "five fields and this one has six; seconds belong to a cron object"),
        (
            "0 9 * *",
            "exactly five fields (minute, hour, day of month, month, day of week)",
        ),
        ("", "and this one has 0"),
        ("@reboot", "@reboot names no time"),
        ("@every 5m", "unknown crontab macro; use @yearly"),
        ("60 9 * * *", "crontab field 1 (minute), item 1: a number lies outside 0-59"),
        ("0 9,24 * * *", "crontab field 2 (hour), item 2: a number lies outside 0-23"),
        ("0 9 0 * *", "crontab field 3 (day of month), item 1: a number lies outside 1-31"),
        ("0 9 ? * *", "crontab field 3 (day of month), item 1: ? is not understood; write *"),
        ("0 9 15W * *", "crontab field 3 (day of month), item 1: not understood"),
        ("0 9 * 13 *", "crontab field 4 (month), item 1: a number lies outside 1-12"),
        ("0 9 * * 8", "crontab field 5 (day of week), item 1: a number lies outside 0-7"),
        ("0 9 * * L", "crontab field 5 (day of week), item 1: unknown name; use sun, mon"),
        ("0 9 * * 8L", "crontab field 5 (day of week), item 1: a number lies outside 0-7"),
        ("0 9 * * 1#6", "crontab field 5 (day of week), item 1: the number after # must be 1-5"),
        ("0 9 * * foo#1", "crontab field 5 (day of week), item 1: unknown name"),
        ("*/0 9 * * *", "crontab field 1 (minute), item 1: the step after / must be at least 1"),
        ("0 9 , * *", "crontab field 3 (day of month), item 1 of the list is empty"),
        ("0 9 30 2 *", "crontab fields 3 (day of month) and 4 (month) never meet on one date"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(line, sentence):
    """A refusal names the field and the item, and says what to write instead."""
    with pytest.raises(InvalidScheduleError) as caught:
        CrontabPattern(line)
    assert sentence in str(caught.value)
