"""Rules taken apart: the sets of times that a rule on the wall clock means.

Both dialects come out in one form, which the writers of texts put into words. Imports ``domain``
and the engine's grammar of cron; called by ``english.py`` and ``japanese.py``.
"""

import re
from dataclasses import dataclass

from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Schedule
from app.engine.cron_fields import follows_elapsed_time, listed_values, normalise_cron_fields
from app.engine.crontab import normalise_crontab
from app.engine.transitions import clock_jumps

ODD_DAYS, EVEN_DAYS = tuple(range(1, 32, 2)), tuple(range(2, 32, 2))
LAST = 0  # as the position of a weekday in its month
_ALL_DAYS = 31
_ALL_MONTHS = 12
_ALL_WEEKDAYS = 7
_ALL_WEEKS = 53
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_POSITIONS = ("last", "1st", "2nd", "3rd", "4th", "5th")
_CRONTAB_NTH = re.compile(r"(?P<weekday>[0-7])(?:L|#(?P<nth>[1-5]))")
_CRON_NTH = re.compile(r"(?P<position>[0-9a-z]+) (?P<weekday>[a-z]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTerms:
    """Alternatives for a day, at least one of them given.

    Sunday is 0; ``nth`` holds pairs of a position in the month and a weekday.
    """

    days: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    last_day: bool = False
    last_workday: bool = False
    nth: tuple[tuple[int, int], ...] = ()

    @property
    def one_day(self) -> bool:
        """Tell whether the terms name a single day of the month."""
        alternatives = len(self.days) + len(self.nth) + self.last_day + self.last_workday
        return not self.weekdays and alternatives == 1

    @property
    def dated(self) -> bool:
        """Tell whether some alternative depends on the month."""
        return bool(self.days or self.last_day or self.last_workday or self.nth)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRule:
    """A rule on the wall clock: every combination of these numbers, which are sorted.

    ``terms`` holds what a day must be, none: any day. Each of them must hold. ``months``,
    ``weeks`` and ``years`` are None for any; ``years_text`` is the field as it was given.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    terms: tuple[DayTerms, ...]
    months: tuple[int, ...] | None
    weeks: tuple[int, ...] | None = None
    years: tuple[int, ...] | None = None
    years_text: str = "*"
    elapsed: bool

    @property
    def any_day(self) -> bool:
        """Tell whether the rule holds on every day."""
        return not self.terms and self.months is None and self.weeks is None

    @property
    def all_hours(self) -> bool:
        """Tell whether the rule holds in every hour of a day."""
        return len(self.hours) == 24  # noqa: PLR2004 - hours of a day

    @property
    def every_minute(self) -> bool:
        """Tell whether the rule holds in every minute of its hours."""
        return len(self.minutes) == 60  # noqa: PLR2004 - minutes of an hour

    @property
    def whole_minutes(self) -> bool:
        """Tell whether the rule names no seconds."""
        return self.seconds == (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpPolicy:
    """What a reader must know about jumps of the clock; all empty where there are none.

    ``gap`` and ``fold`` are given where a rule of fixed times departs from the default.
    """

    jumps: bool = False
    gap: DstGap | None = None
    fold: DstFold | None = None


def read_rule(rule: CronRule | CrontabRule) -> ClockRule:
    """Take a valid rule apart."""
    return _read_cron(rule) if isinstance(rule, CronRule) else _read_crontab(rule)


def read_policy(schedule: Schedule, clock: ClockRule) -> JumpPolicy:
    """Tell what to say about the jumps of the schedule's clock."""
    if not clock_jumps(schedule.timezone):
        return JumpPolicy()
    if clock.elapsed:
        return JumpPolicy(jumps=True)
    return JumpPolicy(
        jumps=True,
        gap=None if schedule.dst_gap is DstGap.RUN_AFTER else schedule.dst_gap,
        fold=None if schedule.dst_fold is DstFold.FIRST else schedule.dst_fold,
    )


def _read_cron(rule: CronRule) -> ClockRule:
    fields = normalise_cron_fields(rule.fields)
    texts = dict(fields)
    by_date = _terms(_cron_terms(texts.get("day", "*")))
    by_weekday = _terms(DayTerms(weekdays=_values("day_of_week", texts.get("day_of_week", "*"))))
    return ClockRule(
        seconds=_values("second", texts.get("second", "*")),
        minutes=_values("minute", texts.get("minute", "*")),
        hours=_values("hour", texts.get("hour", "*")),
        terms=tuple(term for term in (by_date, by_weekday) if term is not None),
        months=_restricted(_values("month", texts.get("month", "*")), _ALL_MONTHS),
        weeks=_restricted(_values("week", texts.get("week", "*")), _ALL_WEEKS),
        years=None if texts.get("year", "*") == "*" else _values("year", texts["year"]),
        years_text=texts.get("year", "*"),
        elapsed=follows_elapsed_time(fields),
    )


def _read_crontab(rule: CrontabRule) -> ClockRule:
    minute, hour, day, month, weekday = normalise_crontab(rule.expression).split()
    by_date = _terms(_crontab_dates(day))
    by_weekday = _terms(_crontab_weekdays(weekday))
    return ClockRule(
        seconds=(0,),
        minutes=_values("minute", minute),
        hours=_values("hour", hour),
        terms=_join(by_date, by_weekday, both=day.startswith("*") or weekday.startswith("*")),
        months=_restricted(_values("month", month), _ALL_MONTHS),
        elapsed=follows_elapsed_time((("hour", hour), ("minute", minute))),
    )


def _join(
    by_date: DayTerms | None, by_weekday: DayTerms | None, *, both: bool
) -> tuple[DayTerms, ...]:
    """Join day of month and day of week as cron does: both must hold, or either."""
    if both:
        return tuple(term for term in (by_date, by_weekday) if term is not None)
    if by_date is None or by_weekday is None:
        return ()
    return (
        DayTerms(
            days=by_date.days,
            weekdays=by_weekday.weekdays,
            last_day=by_date.last_day,
            last_workday=by_date.last_workday,
            nth=by_weekday.nth,
        ),
    )


def _crontab_dates(text: str) -> DayTerms:
    items = text.split(",")
    plain = [item for item in items if item not in {"L", "LW"}]
    return DayTerms(
        days=_values("day", ",".join(plain)), last_day="L" in items, last_workday="LW" in items
    )


def _crontab_weekdays(text: str) -> DayTerms:
    plain: list[str] = []
    nth: list[tuple[int, int]] = []
    for item in text.split(","):
        match = _CRONTAB_NTH.fullmatch(item)
        if match is None:
            plain.append(item)
        else:
            nth.append((int(match["nth"] or LAST), int(match["weekday"]) % _ALL_WEEKDAYS))
    return DayTerms(
        weekdays=_values("day_of_week", ",".join(plain)), nth=tuple(sorted(set(nth), key=_order))
    )


def _cron_terms(text: str) -> DayTerms:
    plain: list[str] = []
    nth: list[tuple[int, int]] = []
    for item in text.split(","):
        match = _CRON_NTH.fullmatch(item)
        if match is not None:
            weekday = _WEEKDAYS.index(match["weekday"])
            nth.append((_POSITIONS.index(match["position"]), weekday))
        elif item != "last":
            plain.append(item)
    return DayTerms(
        days=_values("day", ",".join(plain)),
        last_day="last" in text.split(","),
        nth=tuple(sorted(set(nth), key=_order)),
    )


def _order(nth: tuple[int, int]) -> tuple[int, int]:
    """Put the last weekday of a month behind the fifth, and Monday before Sunday."""
    position, weekday = nth
    return (position or len(_POSITIONS), (weekday - 1) % _ALL_WEEKDAYS)


def _terms(terms: DayTerms) -> DayTerms | None:
    """Return the terms, or None if they hold on every day."""
    if len(terms.days) == _ALL_DAYS or len(terms.weekdays) == _ALL_WEEKDAYS:
        return None
    return terms


def _restricted(values: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    return None if len(values) == count else values


def _values(name: str, text: str) -> tuple[int, ...]:
    if not text:
        return ()
    values = listed_values(((name, text),), name)
    assert values is not None, "items that depend on the month were taken out"
    return tuple(sorted(values))
