"""Wall clock patterns as days and times of day: the fast path of both cron dialects.

Most rules match one of the next eight days, and then the next time is two look-ups away: a tenth of
what the libraries' step-by-step search costs. The libraries stay the judges of everything
else, and of this path in the tests.

Imports nothing of the program; called by ``crontab.py``, ``triggers.py`` and ``wall_clock.py``.
Datetimes are naive.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta

_ONE_DAY = timedelta(days=1)
# A week and a day: every rule of weekdays alone is answered without a search.
_NEAR_DAYS = 8
_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
_HOUR_US = 60 * _MINUTE_US
_DAY_US = 24 * _HOUR_US


class DayTimes:
    """The times of one day: every combination of the hours, minutes and seconds given."""

    __slots__ = ("_hours", "_minutes", "_seconds", "earliest")

    def __init__(
        self, *, hours: Iterable[int], minutes: Iterable[int], seconds: Iterable[int]
    ) -> None:
        self._hours = sorted(hours)
        self._minutes = sorted(minutes)
        self._seconds = sorted(seconds)
        self.earliest = time(self._hours[0], self._minutes[0], self._seconds[0])

    def count(self, begin: time, end: time | None) -> int:
        """Count the times from ``begin`` to before ``end`` (None: to the end of the day)."""
        all_of_them = len(self._hours) * len(self._minutes) * len(self._seconds)
        return (all_of_them if end is None else self._count_before(end)) - self._count_before(begin)

    def list_us(self, begin: time, end: time | None) -> list[int]:
        """List the times ``count`` counts in order, in microseconds since midnight."""
        low, high = _us_of(begin), _DAY_US if end is None else _us_of(end)
        minutes = [
            hour * _HOUR_US + minute * _MINUTE_US
            for hour in self._hours
            if low - _HOUR_US < hour * _HOUR_US < high
            for minute in self._minutes
        ]
        near = minutes[bisect_right(minutes, low - _MINUTE_US) : bisect_left(minutes, high)]
        seconds = [second * _SECOND_US for second in self._seconds]
        found = [minute + second for minute in near for second in seconds]
        return found[bisect_left(found, low) : bisect_left(found, high)]

    def _count_before(self, moment: time) -> int:
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        hour_at = bisect_left(hours, moment.hour)
        count = hour_at * len(minutes) * len(seconds)
        if hour_at == len(hours) or hours[hour_at] != moment.hour:
            return count
        minute_at = bisect_left(minutes, moment.minute)
        count += minute_at * len(seconds)
        if minute_at == len(minutes) or minutes[minute_at] != moment.minute:
            return count
        return count + bisect_left(seconds, moment.second)

    def first_from(self, moment: datetime) -> time | None:
        """Return the first time of day at or after that of ``moment``."""
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        hour_at = bisect_left(hours, moment.hour)
        if hour_at < len(hours) and hours[hour_at] == moment.hour:
            minute_at = bisect_left(minutes, moment.minute)
            if minute_at < len(minutes) and minutes[minute_at] == moment.minute:
                second_at = bisect_left(seconds, moment.second)
                if second_at < len(seconds):
                    return time(moment.hour, moment.minute, seconds[second_at])
                minute_at += 1
            if minute_at < len(minutes):
                return time(moment.hour, minutes[minute_at], seconds[0])
            hour_at += 1
        if hour_at < len(hours):
            return time(hours[hour_at], minutes[0], seconds[0])
        return None


def _us_of(moment: time) -> int:
    return moment.hour * _HOUR_US + moment.minute * _MINUTE_US + moment.second * _SECOND_US


def first_on_days(
    wall: datetime,
    *,
    matches: Callable[[date], bool],
    times: DayTimes,
    search: Callable[[datetime], datetime | None],
) -> datetime | None:
    """Return the first matching time at or after ``wall``.

    ``matches`` judges a day, ``times`` are those of every matching day, and ``search`` does the
    same as this function, slowly, however far ahead the day lies.
    """
    day = wall.date()
    if matches(day) and (at := times.first_from(wall)) is not None:
        return datetime.combine(day, at)
    for _ in range(_NEAR_DAYS):
        day += _ONE_DAY
        if matches(day):
            return datetime.combine(day, times.earliest)
    return search(datetime.combine(day, time()))


def days_in(first: date, end: date, *, matches: Callable[[date], bool]) -> list[date]:
    """List the days from ``first`` to before ``end`` that ``matches`` accepts."""
    days = map(date.fromordinal, range(first.toordinal(), end.toordinal()))
    return [day for day in days if matches(day)]
