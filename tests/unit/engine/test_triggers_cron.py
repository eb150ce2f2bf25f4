"""The dialect of cron objects: what each form means, and how it is refused."""

from datetime import UTC, datetime

import pytest

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import CronRule, Schedule
from app.engine.triggers import CronPattern, build_trigger, normalise_cron_fields

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def fires(count: int = 3, *, begin: str = "2026-11-21", **fields: str) -> list[str]:
    """List fires in UTC as ``weekday month-day hour:minute:second``, at second 0 unless given."""
    rule = CronRule(fields=tuple({"second": "0", **fields}.items()))
    trigger = build_trigger(Schedule(rule=rule, timezone="UTC"), anchor=ANCHOR)
    at = trigger.next_from(datetime.fromisoformat(begin).replace(tzinfo=UTC))
    found: list[str] = []
    while at is not None and len(found) < count:
        found.append(at.strftime("%a %m-%d %H:%M:%S"))
        at = trigger.next_after(at)
    return found


def refusal(fields: tuple[tuple[str, str], ...]) -> str:
    """Return the sentence with which fields are refused."""
    with pytest.raises(InvalidScheduleError) as caught:
        CronPattern(fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1", "mon"),
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon-fri"),
        ("5-7", "fri-sun"),
        ("0-2", "sun,mon,tue"),
        ("0-6", "mon-sun"),
        ("1-7", "mon-sun"),
        ("0-7", "mon-sun"),
        ("7-2", "sun,mon,tue"),
        ("6-0", "sat-sun"),
        ("*", "*"),
        ("*/1", "*"),
        ("*/2", "sun,tue,thu,sat"),
        ("1-5/2", "mon,wed,fri"),
        ("5/2", "fri,sun"),
        ("7/2", "sun"),
        ("mon-fri", "mon-fri"),
        ("MON-Fri", "mon-fri"),
        ("mon-fri/2", "mon,wed,fri"),
        ("fri-mon", "fri,sat,sun,mon"),
        ("fri-mon/2", "fri,sun"),
        ("sat,sun", "sat,sun"),
        ("1, 3 ,5", "mon,wed,fri"),
        ("1-3,6", "mon-wed,sat"),
    ],
)
def test_weekdays_are_counted_as_crontab_does(written, meant):
    """Digits of day_of_week are crontab's, and come back as names."""
    assert normalise_cron_fields((("day_of_week", written),)) == (("day_of_week", meant),)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("hour", "22-2", "22,23,0,1,2"),
        ("hour", "22-2/2", "22,0,2"),
        ("hour", "09", "9"),
        ("minute", "50-10/10", "50,0,10"),
        ("minute", "*/15", "*/15"),
        ("minute", "5/15", "5/15"),
        ("minute", "59/1", "59"),
        ("second", "7-7/1", "7"),
        ("month", "11-2", "11,12,1,2"),
        ("month", "nov-feb", "11,12,1,2"),
        ("month", "Jan,JUL", "1,7"),
        ("month", "jan-jun/2", "1-6/2"),
        ("day", "30-2", "30,31,1,2"),
        ("day", "last", "last"),
        ("day", "LAST", "last"),
        ("day", "2nd fri", "2nd fri"),
        ("day", "Last  Sun", "last sun"),
        ("day", "1st 1,3rd 7", "1st mon,3rd sun"),
        ("week", "52-1", "52,53,1"),
        ("year", "2026-2030/2", "2026-2030/2"),
    ],
)
def test_other_fields_become_what_apscheduler_accepts(name, written, meant):
    """Wrapped ranges and names become lists of numbers; the rest stays what it was."""
    assert normalise_cron_fields(((name, written),)) == ((name, meant),)


def test_fields_come_in_their_own_order():
    """Fields are returned largest unit first, and only those given."""
    given = (("second", "0"), ("hour", "9"), ("day_of_week", "1"), ("year", "*"))
    assert normalise_cron_fields(given) == (
        ("year", "*"),
        ("day_of_week", "mon"),
        ("hour", "9"),
        ("second", "0"),
    )


def test_a_client_splitting_a_crontab_line_gets_monday():
    """Weekly on Monday, "0 0 * * 1", sent as fields, runs on Mondays."""
    assert fires(2, minute="0", hour="0", day_of_week="1") == [
        "Mon 11-23 00:00:00",
        "Mon 11-30 00:00:00",
    ]


def test_an_omitted_field_means_every_value():
    """Hour alone fires every minute of that hour, not once in it."""
    assert fires(hour="10") == ["Sat 11-21 10:00:00", "Sat 11-21 10:01:00", "Sat 11-21 10:02:00"]
    assert fires(2, day="24") == ["Tue 11-24 00:00:00", "Tue 11-24 00:01:00"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"day": "last"}, ["Mon 11-30 09:00:00", "Thu 12-31 09:00:00", "Sun 01-31 09:00:00"]),
        ({"day": "2nd fri"}, ["Fri 12-11 09:00:00", "Fri 01-08 09:00:00", "Fri 02-12 09:00:00"]),
        ({"day": "last sun"}, ["Sun 11-29 09:00:00", "Sun 12-27 09:00:00", "Sun 01-31 09:00:00"]),
        ({"week": "53"}, ["Mon 12-28 09:00:00", "Tue 12-29 09:00:00", "Wed 12-30 09:00:00"]),
        ({"day": "31"}, ["Thu 12-31 09:00:00", "Sun 01-31 09:00:00", "Wed 03-31 09:00:00"]),
        ({"day": "13", "day_of_week": "5"}, ["Fri 08-13 09:00:00"]),
        ({"day": "5th mon", "month": "11-12"}, ["Mon 11-30 09:00:00"]),
        ({"year": "2027", "day": "1", "month": "1"}, ["Fri 01-01 09:00:00"]),
        ({"hour": "22-2"}, ["Sat 11-21 00:00:00", "Sat 11-21 01:00:00", "Sat 11-21 02:00:00"]),
        ({"second": "*/25"}, ["Sat 11-21 09:00:00", "Sat 11-21 09:00:25", "Sat 11-21 09:00:50"]),
    ],
)
def test_fields_together(fields, expected):
    """All fields must match, weekday and day of month included."""
    assert fires(len(expected), **{"hour": "9", "minute": "0", **fields}) == expected


def test_a_year_that_ends_has_a_last_instant():
    """A rule of one year has nothing after it."""
    assert fires(5, year="2026", month="12", day="30-31", hour="9", minute="0") == [
        "Wed 12-30 09:00:00",
        "Thu 12-31 09:00:00",
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ((), "cron has no field"),
        ((("hour", "1"), ("hour", "2")), "cron names a field twice"),
        ((("hours", "1"),), "cron has a field it does not know; its fields are year, month, day"),
        ((("hour", ""),), "cron.hour is empty; write * for every value"),
        ((("hour", "1,,2"),), "cron.hour, item 2 of the list is empty; remove the extra comma"),
        ((("hour", "24"),), "cron.hour, item 1: a number lies outside 0-23"),
        ((("hour", "1,2,25-3"),), "cron.hour, item 3: a number lies outside 0-23"),
        ((("hour", "-5"),), "cron.hour, item 1: not understood; write a value 0-23"),
        ((("hour", "?"),), "cron.hour, item 1: ? is not understood; write * for every value"),
        ((("hour", "nine"),), "cron.hour, item 1: hour takes numbers 0-23, not names"),
        ((("hour", "*-5"),), "cron.hour, item 1: a range cannot start with *; write * alone"),
        ((("minute", "*/0"),), "cron.minute, item 1: the step after / must be at least 1"),
        ((("minute", "*/60"),), "cron.minute, item 1: the step is larger than the range it steps"),
        ((("minute", "1-5/9"),), "cron.minute, item 1: the step is larger than the range"),
        ((("minute", "٣"),), "cron.minute, item 1: not understood"),
        ((("year", "2030-2026"),), "cron.year, item 1: the range ends before it begins"),
        ((("year", "1969"),), "cron.year, item 1: a number lies outside 1970-9999"),
        ((("month", "january"),), "cron.month, item 1: unknown name; did you mean jan?"),
        ((("month", "foo"),), "cron.month, item 1: unknown name; use jan, feb"),
        ((("day_of_week", "8"),), "cron.day_of_week, item 1: a number lies outside 0-7"),
        ((("day_of_week", "monday"),), "cron.day_of_week, item 1: unknown name; did you mean mon?"),
        ((("day_of_week", "2nd fri"),), "position in the month, such as '2nd fri', belongs to day"),
        ((("day", "6th fri"),), "cron.day, item 1: unknown position; use 1st, 2nd, 3rd, 4th, 5th"),
        ((("day", "2nd day"),), "cron.day, item 1: unknown name; use sun, mon"),
        ((("day", "lastly"),), "cron.day, item 1: day takes numbers 1-31, not names"),
        ((("day", "31"), ("month", "4,6,9,11")), "cron's month and day never meet on one date"),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(fields, sentence):
    """A refusal names the field and the item, and says what to write instead."""
    assert sentence in refusal(fields)
