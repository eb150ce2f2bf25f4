"""The dialect of ``crontab`` lines: five fields or an ``@macro``, with cron's own meaning.

Day-of-month and day-of-week are alternatives (either matches) unless one of them begins with ``*``:
Debian cron's rule, evaluated by cronsim. Checked and rewritten here first, so that refusals
say where, ranges may wrap, and names may stand before ``L`` and ``#``.

Imports ``domain``, the shared grammar and cronsim; called by ``triggers.py``.
"""

import copy
import re
from datetime import date, datetime, timedelta

from cronsim import CronSim, CronSimError

from app.domain.errors import InvalidScheduleError
from app.engine.cron_items import (
    MONTHS,
    WEEKDAYS,
    FieldRange,
    parse_item,
    parse_value,
    split_items,
)
from app.engine.day_times import DayTimes, days_in, first_on_days

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DAY = FieldRange(label="day of month", lowest=1, highest=31, cycle=31)
_WEEKDAY = FieldRange(label="day of week", lowest=0, highest=7, cycle=7, names=WEEKDAYS)
_FIELDS = (
    FieldRange(label="minute", lowest=0, highest=59, cycle=60),
    FieldRange(label="hour", lowest=0, highest=23, cycle=24),
    _DAY,
    FieldRange(label="month", lowest=1, highest=12, cycle=12, names=MONTHS, names_from=1),
    _WEEKDAY,
)
_LAST_WEEKDAY = re.compile(r"(?P<weekday>[0-9]|[a-z]{3})l")
_NTH_WEEKDAY = re.compile(r"(?P<weekday>[0-9]|[a-z]+)#(?P<nth>[0-9]+)")
_SECOND = timedelta(seconds=1)
_ANY_WALL = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock time; cronsim wants one to start at


class CrontabPattern:
    """The wall clock times of one crontab line, without a zone.

    May be shared between threads: nothing in it changes after it is made.
    """

    def __init__(self, expression: str) -> None:
        normalised = normalise_crontab(expression)
        minute, hour, *_ = normalised.split()
        self.follows_elapsed_time = any(
            item.startswith("*") for item in f"{minute},{hour}".split(",")
        )
        self._template = _compile(normalised)
        self.times = DayTimes(
            hours=self._template.hours, minutes=self._template.minutes, seconds=(0,)
        )

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first matching whole second at or after ``wall``; None if 50 years have none.

        ``wall`` is naive, without a fraction.
        """
        return first_on_days(wall, matches=self._matches, times=self.times, search=self.search)

    def search(self, wall: datetime) -> datetime | None:
        """Do the same by cronsim alone."""
        search = copy.copy(self._template)
        search.dt = wall - _SECOND
        return next(search, None)

    def days_between(self, first: date, end: date) -> list[date]:
        """List the matching days from ``first`` to before ``end``."""
        return days_in(first, end, matches=self._matches)

    def _matches(self, day: date) -> bool:
        return day.month in self._template.months and self._template.match_day(day)


def _compile(normalised: str) -> CronSim:
    """Parse checked fields; what can still be wrong with them is a date that never comes."""
    try:
        template = CronSim(normalised, _ANY_WALL)
    except CronSimError as error:
        raise InvalidScheduleError(
            "the schedule never fires: crontab fields 3 (day of month) and 4 (month) never meet "
            "on one date; change one of them"
        ) from error
    if next(copy.copy(template), None) is None:
        raise InvalidScheduleError(
            "the schedule never fires: crontab fields 3 (day of month), 4 (month) and "
            "5 (day of week) never meet on one date; change one of them"
        )
    return template


def normalise_crontab(expression: str) -> str:
    """Rewrite a line as five fields in digits that cronsim reads as cron would.

    Raises ``InvalidScheduleError`` naming the field and the item.
    """
    texts = _expand_macro(expression).split()
    if len(texts) != len(_FIELDS):
        raise InvalidScheduleError(_wrong_count(len(texts)))
    return " ".join(
        _normalise_field(text, field=field, where=f"crontab field {number} ({field.label})")
        for number, (text, field) in enumerate(zip(texts, _FIELDS, strict=True), start=1)
    )


def _expand_macro(expression: str) -> str:
    macro = expression.strip().lower()
    if not macro.startswith("@"):
        return expression
    if macro == "@reboot":
        raise InvalidScheduleError(
            "@reboot names no time, and this service's starts are not events of a schedule; "
            "use a time, or trigger the job by the API when your system starts"
        )
    if macro not in _MACROS:
        raise InvalidScheduleError(
            f"unknown crontab macro; use {', '.join(_MACROS)}, five fields, "
            "or an interval schedule for 'every n'"
        )
    return _MACROS[macro]


def _wrong_count(count: int) -> str:
    if count == len(_FIELDS) + 1:
        return (
            "a crontab line has five fields and this one has six; "
            "seconds belong to a cron object (its field second), and a command to no schedule"
        )
    return (
        "a crontab line has exactly five fields (minute, hour, day of month, month, day of week) "
        f"and this one has {count}"
    )


def _normalise_field(text: str, *, field: FieldRange, where: str) -> str:
    return ",".join(
        _normalise_item(item, field=field, where=f"{where}, item {position}")
        for position, item in enumerate(split_items(text, where=where), start=1)
    )


def _normalise_item(text: str, *, field: FieldRange, where: str) -> str:
    if field is _DAY and text in {"l", "lw"}:
        return text.upper()
    if field is _WEEKDAY and (match := _LAST_WEEKDAY.fullmatch(text)):
        return f"{parse_value(match['weekday'], field=field, where=where)}L"
    if field is _WEEKDAY and (match := _NTH_WEEKDAY.fullmatch(text)):
        if match["nth"] not in {"1", "2", "3", "4", "5"}:
            raise InvalidScheduleError(f"{where}: the number after # must be 1-5")
        return f"{parse_value(match['weekday'], field=field, where=where)}#{match['nth']}"
    return parse_item(text, field=field, where=where).text()
