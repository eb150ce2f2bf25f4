"""The times of a day: listed and counted alike, wherever the day is cut."""

from datetime import time

import pytest

from app.engine.day_times import DayTimes

SECOND_US = 1_000_000
TIMES = DayTimes(hours=(23, 0, 7), minutes=(59, 0, 30), seconds=(15, 0, 59))
WHOLE_DAY = [
    (hour * 3600 + minute * 60 + second) * SECOND_US
    for hour in (0, 7, 23)
    for minute in (0, 30, 59)
    for second in (0, 15, 59)
]
CUTS = [
    time(hour, minute, second)
    for hour in (0, 6, 7, 8, 23)
    for minute in (0, 29, 30, 59)
    for second in (0, 1, 15, 59)
]


def us_of(moment: time) -> int:
    """Return the microseconds since midnight."""
    return (moment.hour * 3600 + moment.minute * 60 + moment.second) * SECOND_US


def test_a_whole_day_lists_every_combination():
    """From midnight to the day's end every time is listed, in order."""
    assert TIMES.list_us(time.min, None) == WHOLE_DAY


@pytest.mark.parametrize("begin", CUTS, ids=str)
def test_a_part_of_a_day_is_the_whole_day_cut(begin: time):
    """The begin belongs to the part and the end does not, to the second; the count agrees."""
    rest = [us for us in WHOLE_DAY if us_of(begin) <= us]
    assert rest == TIMES.list_us(begin, None)
    for end in (end for end in CUTS if end >= begin):
        part = [us for us in rest if us < us_of(end)]
        assert part == TIMES.list_us(begin, end)
        assert len(part) == TIMES.count(begin, end)
