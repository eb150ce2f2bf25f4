"""Triggers: what turns a schedule into UTC instants, as APScheduler and the rest of the engine ask.

Imports ``domain``, the dialects (``cron_fields.py``, ``crontab.py``), ``wall_clock.py``,
``left_out.py`` and APScheduler's base class and cron evaluator. Called by the services (is a
schedule valid, when does it fire next), by the read-ahead, by the job store and by the ledger.

All instants are aware and in UTC. A trigger never changes after it is made and may be shared
between jobs and threads. Jitter delays a start; it never moves a fire time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol, assert_never

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from app.domain.clock import to_us
from app.domain.errors import InvalidScheduleError
from app.domain.schedule import (
    CRON_FIELD_NAMES,
    CronRule,
    CrontabRule,
    DateRule,
    IntervalRule,
    Schedule,
)
from app.engine.cron_fields import follows_elapsed_time, listed_values, normalise_cron_fields
from app.engine.crontab import CrontabPattern
from app.engine.day_times import DayTimes, days_in, first_on_days
from app.engine.left_out import LeftOut, find_left_out
from app.engine.wall_clock import LAST_YEAR, WallClock, WallPattern
from app.engine.zones import load_zone

__all__ = [
    "ScheduleTrigger",
    "TriggerCache",
    "TriggerCacheOptions",
    "build_trigger",
    "check_fires",
    "jitter_delay",
    "normalise_cron_fields",
]

PERIOD_MIN = timedelta(seconds=1)
PERIOD_MAX = timedelta(days=3660)  # ten years, whichever leap days they hold
_ONE_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)  # the grain of time here: strictly after = at or after + this


class _Source(Protocol):
    """A rule without its bounds."""

    def first_from(self, instant: datetime) -> datetime | None:
        """Return the rule's first instant at or after ``instant``."""
        ...

    def count(self, begin: datetime, end: datetime) -> int:
        """Count the rule's instants from ``begin`` to ``end``, both included."""
        ...

    def list_us(self, begin: datetime, end: datetime) -> list[int]:
        """List those instants in order, in microseconds since 1970 UTC."""
        ...


class ScheduleTrigger(BaseTrigger):
    """The instants of one schedule, in order, each once."""

    __slots__ = ("_clock", "_end_at", "_source", "_start_at", "schedule")

    def __init__(self, *, schedule: Schedule, source: _Source) -> None:
        self.schedule = schedule
        self._source = source
        self._clock = source if isinstance(source, WallClock) and source.leaves_out else None
        self._start_at = schedule.start_at and schedule.start_at.astimezone(UTC)
        self._end_at = schedule.end_at and schedule.end_at.astimezone(UTC)

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        """Answer APScheduler: the instant after the previous one, else the first from ``now``.

        ``now`` is ignored when there is a previous one, so that missed instants are seen.
        """
        if previous_fire_time is None:
            return self.next_from(now)
        return self.next_after(previous_fire_time)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after an aware one; None when there is no more."""
        following = self.next_from(instant + _INSTANT)
        assert following is None or following > instant, "a schedule only goes forward"
        return following

    def next_from(self, instant: datetime) -> datetime | None:
        """Return the first instant at or after an aware one; None when there is no more."""
        end_at = self._end_at
        if end_at is not None and instant > end_at:
            return None
        found = self.endless_from(instant)
        return None if found is None or (end_at is not None and found > end_at) else found

    def count(self, after: datetime, until: datetime) -> int:
        """Count the instants after one aware instant up to and including another.

        Whole days far from the zone's jumps are counted at once: a month of seconds takes a
        millisecond.
        """
        begin, end = self._bound(after, until)
        return self._source.count(begin, end) if begin <= end else 0

    def list_us(self, after: datetime, until: datetime) -> list[int]:
        """List the instants that ``count`` counts, in order, in microseconds since 1970 UTC.

        Whole days far from the zone's jumps are listed at once: a day of seconds takes some
        milliseconds. Nothing bounds the list but the span; ``count`` tells its length first.
        """
        begin, end = self._bound(after, until)
        return self._source.list_us(begin, end) if begin <= end else []

    def left_out(self, after: datetime, until: datetime) -> tuple[LeftOut, ...]:
        """List the local times that the zone's clock makes void, in the order of their ``at``.

        Those after one aware instant up to and including another. Only fixed times can be void,
        by ``dst_gap=skip`` and by a ``dst_fold`` other than ``both``. ``at`` is no instant of the
        trigger. Far from a jump of the zone the answer costs a microsecond.
        """
        clock = self._clock
        if clock is None or clock.is_quiet(after, until):
            return ()
        begin, end = self._bound(after, until)
        return find_left_out(clock, begin, end)

    def _bound(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        """Return the first and last moment, in UTC, that lie in a span and in the schedule."""
        begin, end = (after + _INSTANT).astimezone(UTC), until.astimezone(UTC)
        if self._start_at is not None:
            begin = max(begin, self._start_at)
        if self._end_at is not None:
            end = min(end, self._end_at)
        return begin, end

    def endless_from(self, instant: datetime) -> datetime | None:
        """Return what ``next_from`` would if the schedule had no ``end_at``."""
        begin = instant.astimezone(UTC)
        if self._start_at is not None and self._start_at > begin:
            begin = self._start_at
        found = self._source.first_from(begin)
        assert found is None or found >= begin, "a schedule only goes forward"
        return found

    def explain_silence(self, instant: datetime) -> str:
        """Name in a sentence what keeps the rule from ever firing after ``instant``."""
        starts_later = self._start_at is not None and self._start_at > instant
        if starts_later and self._source.first_from(instant.astimezone(UTC)) is not None:
            return (
                "start_at lies after the schedule's last instant, so nothing is left to run; "
                "move start_at before it"
            )
        return _explain_silence(self.schedule, self._source, instant)


def build_trigger(schedule: Schedule, *, anchor: datetime) -> ScheduleTrigger:
    """Make the trigger of a schedule.

    ``anchor`` (aware) is when the schedule was set: intervals without ``start_at`` are counted
    from it. Raises ``InvalidScheduleError``; whether it ever fires is asked by ``check_fires``.
    """
    load_zone(schedule.timezone)
    return ScheduleTrigger(schedule=schedule, source=_build_source(schedule, anchor))


def check_fires(trigger: ScheduleTrigger, *, after: datetime) -> datetime:
    """Return the first instant after an aware one.

    Raises ``InvalidScheduleError`` naming the field that leaves none. Costs at most some
    milliseconds for a rule that fires, and some tens for one that never does.
    """
    schedule = trigger.schedule
    start_at, end_at = schedule.start_at, schedule.end_at
    if start_at is not None and end_at is not None and start_at > end_at:
        raise InvalidScheduleError("end_at lies before start_at; swap them or move one")
    if end_at is not None and end_at <= after:
        raise InvalidScheduleError("end_at lies in the past, so nothing is left to run; move it")
    first = trigger.endless_from(after + _INSTANT)
    if first is None:
        raise InvalidScheduleError(trigger.explain_silence(after))
    if end_at is not None and first > end_at:
        raise InvalidScheduleError(
            f"end_at lies before the first instant, {first.isoformat()}; move end_at behind it"
        )
    return first


def jitter_delay(schedule: Schedule, job_id: str, scheduled_for: datetime) -> timedelta:
    """Return how long this start waits after its instant: 0 … ``schedule.jitter``.

    The same for one job and instant on every replica and after every restart.
    """
    if schedule.jitter <= timedelta(0):
        return timedelta(0)
    seed = f"{job_id}|{to_us(scheduled_for)}".encode()
    number = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
    return number % (schedule.jitter // _INSTANT + 1) * _INSTANT


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerCacheOptions:
    """Bounds of the cache."""

    # How many are kept, 6 to 8 KiB each: 80 MiB when 10,000 differ. The least used goes first.
    triggers_max: int = 10_000
    # Of those that fire once so many: what comes due at one instant shares one, and no other job of
    # a steady stream of them ever needs it again.
    dates_max: int = 256

    def __post_init__(self) -> None:
        if self.triggers_max < 1 or self.dates_max < 1:
            raise ValueError("triggers_max and dates_max must be at least 1")


class TriggerCache:
    """Shares one trigger between all jobs of equal schedule; safe between threads."""

    def __init__(self, options: TriggerCacheOptions) -> None:
        self._build = lru_cache(maxsize=options.triggers_max)(_build_shared)
        self._build_once = lru_cache(maxsize=options.dates_max)(_build_shared)

    def get(self, schedule: Schedule, *, anchor: datetime) -> ScheduleTrigger:
        """Return the trigger of a schedule, made at most once while it is in the cache.

        Raises what ``build_trigger`` raises, every time.
        """
        if isinstance(schedule.rule, DateRule):
            return self._build_once(schedule, None)
        counted = isinstance(schedule.rule, IntervalRule) and schedule.start_at is None
        return self._build(schedule, anchor if counted else None)


def _build_shared(schedule: Schedule, anchor: datetime | None) -> ScheduleTrigger:
    return build_trigger(schedule, anchor=anchor or _NO_ANCHOR)


_NO_ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)


def _build_source(schedule: Schedule, anchor: datetime) -> _Source:
    match schedule.rule:
        case DateRule(run_at=run_at):
            return _Once(run_at.astimezone(UTC))
        case IntervalRule(period=period):
            return _build_every(period, start_at=schedule.start_at, anchor=anchor)
        case CronRule(fields=fields):
            return _on_clock(schedule, CronPattern(fields))
        case CrontabRule(expression=expression):
            return _on_clock(schedule, CrontabPattern(expression))
        case _:
            assert_never(schedule.rule)


def _build_every(period: timedelta, *, start_at: datetime | None, anchor: datetime) -> "_Every":
    if period < PERIOD_MIN:
        raise InvalidScheduleError("interval must add up to at least 1 second")
    if period > PERIOD_MAX:
        raise InvalidScheduleError("interval must not be longer than 10 years")
    first = anchor + period if start_at is None else start_at
    return _Every(first.astimezone(UTC), period)


def _on_clock(schedule: Schedule, pattern: WallPattern) -> WallClock:
    return WallClock(
        pattern=pattern, zone=schedule.timezone, gap=schedule.dst_gap, fold=schedule.dst_fold
    )


@dataclass(frozen=True, slots=True)
class _Once:
    run_at: datetime

    def first_from(self, instant: datetime) -> datetime | None:
        return self.run_at if self.run_at >= instant else None

    def count(self, begin: datetime, end: datetime) -> int:
        return int(begin <= self.run_at <= end)

    def list_us(self, begin: datetime, end: datetime) -> list[int]:
        return [to_us(self.run_at)] if begin <= self.run_at <= end else []


@dataclass(frozen=True, slots=True)
class _Every:
    first: datetime
    period: timedelta

    def first_from(self, instant: datetime) -> datetime | None:
        if instant <= self.first:
            return self.first
        periods = -((self.first - instant) // self.period)
        try:
            return self.first + periods * self.period
        except OverflowError:  # beyond the year 9999: there is no such instant
            return None

    def count(self, begin: datetime, end: datetime) -> int:
        first = self.first_from(begin)
        return 0 if first is None or first > end else (end - first) // self.period + 1

    def list_us(self, begin: datetime, end: datetime) -> list[int]:
        first = self.first_from(begin)
        if first is None:
            return []
        return list(range(to_us(first), to_us(end) + 1, self.period // _INSTANT))


class CronPattern:
    """The wall clock times of a ``cron`` object, without a zone.

    APScheduler's CronTrigger in UTC serves as a naive clock. Given a zone it loses and doubles
    runs where the zone's clock jumps.
    """

    def __init__(self, fields: tuple[tuple[str, str], ...]) -> None:
        self.fields = normalise_cron_fields(fields)
        self.follows_elapsed_time = follows_elapsed_time(self.fields)
        _refuse_impossible_dates(self.fields)
        self._trigger = _cron_trigger(self.fields, until=_LAST_WALL)
        self._days = _plain_days(self.fields)
        self.times = DayTimes(
            hours=listed_values(self.fields, "hour") or (),
            minutes=listed_values(self.fields, "minute") or (),
            seconds=listed_values(self.fields, "second") or (),
        )

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first matching whole second at or after a naive one; None if there is none."""
        if self._days is None:
            return self.search(wall)
        return first_on_days(wall, matches=self._days.match, times=self.times, search=self.search)

    def search(self, wall: datetime) -> datetime | None:
        """Do the same by APScheduler alone."""
        return _first_wall(self._trigger, wall)

    def days_between(self, first: date, end: date) -> list[date]:
        """List the matching days from ``first`` to before ``end``."""
        if self._days is not None:
            return days_in(first, end, matches=self._days.match)
        days = []
        found = self.search(datetime.combine(first, time()))
        while found is not None and found.date() < end:
            days.append(found.date())
            found = self.search(datetime.combine(found.date() + _ONE_DAY, time()))
        return days

    def blocking_fields(self, wall: datetime) -> tuple[str, ...]:
        """Name the fewest fields that together leave no time from ``wall`` on, when none is left.

        With any one of them freed there would be a time.
        """
        kept = self.fields
        for name in _FREED_IN_ORDER:
            fewer = tuple(field for field in kept if field[0] != name)
            if _first_wall(_cron_trigger(fewer, until=_LAST_WALL), wall) is None:
                kept = fewer
        return tuple(name for name, _ in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """Days told by their month, number and weekday."""

    months: frozenset[int]
    days: frozenset[int]
    weekdays: frozenset[int]

    def match(self, day: date) -> bool:
        return (
            day.day in self.days
            and day.isoweekday() % 7 in self.weekdays
            and day.month in self.months
        )


def _plain_days(fields: tuple[tuple[str, str], ...]) -> _Days | None:
    """Return the days of fields that need no year, week or end of month to be told."""
    days = listed_values(fields, "day")
    months, weekdays = listed_values(fields, "month"), listed_values(fields, "day_of_week")
    if days is None or months is None or weekdays is None:
        return None
    if any(text != "*" for name, text in fields if name in {"year", "week"}):
        return None
    return _Days(months=months, days=days, weekdays=weekdays)


# 2000-2049 holds every kind of year in every position to a leap year, so that a date which does
# not occur there occurs in no year.
_SPECIMEN_START = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock time
_SPECIMEN_END = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
_LAST_WALL = datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC)
# The date's fields last: they are what usually contradict each other.
_FREED_IN_ORDER = ("second", "minute", "hour", "week", "day_of_week", "day", "month", "year")


def _refuse_impossible_dates(fields: tuple[tuple[str, str], ...]) -> None:
    """Refuse a date that no calendar has, like 31 February, in 2 ms (40 where weeks are named)."""
    dates = [field for field in fields if field[0] in _DATE_FIELDS and field[1] != "*"]
    if len(dates) < _CONTRADICTION_MIN or _specimen_date(dates) is not None:
        return
    for name in _DATE_FIELDS:
        fewer = [field for field in dates if field[0] != name]
        if _specimen_date(fewer) is None:
            dates = fewer
    names = _listed([name for name, _ in dates])
    raise InvalidScheduleError(
        f"the schedule never fires: cron's {names} never meet on one date; change one of them"
    )


def _specimen_date(fields: Sequence[tuple[str, str]]) -> datetime | None:
    midnight = (("hour", "0"), ("minute", "0"), ("second", "0"))
    return _first_wall(_cron_trigger((*fields, *midnight), until=_SPECIMEN_END), _SPECIMEN_START)


_CONTRADICTION_MIN = 2  # each date field alone has dates
_DATE_FIELDS = ("week", "day_of_week", "day", "month")


def _cron_trigger(fields: tuple[tuple[str, str], ...], *, until: datetime) -> CronTrigger:
    # Every field is passed: APScheduler gives fields below the last one named their lowest value.
    # The end bounds the search, which would go to the year 9999.
    every = {**dict.fromkeys(CRON_FIELD_NAMES, "*"), **dict(fields)}
    return CronTrigger(  # type: ignore[no-untyped-call]  # APScheduler has no annotations
        **every, timezone=UTC, end_date=until
    )


def _first_wall(trigger: CronTrigger, wall: datetime) -> datetime | None:
    found: datetime | None = trigger.get_next_fire_time(  # type: ignore[no-untyped-call]
        None, wall.replace(tzinfo=UTC)
    )
    return None if found is None else found.replace(tzinfo=None)


def _explain_silence(schedule: Schedule, source: _Source, instant: datetime) -> str:
    match schedule.rule:
        case DateRule():
            return "run_at lies in the past; give a time to come"
        case IntervalRule():
            return "interval has its next instant beyond the calendar's end; choose a shorter one"
        case CronRule() | CrontabRule():
            assert isinstance(source, WallClock)
            return _explain_silent_clock(schedule, source, instant)
        case _:
            assert_never(schedule.rule)


def _explain_silent_clock(schedule: Schedule, clock: WallClock, instant: datetime) -> str:
    wall = clock.wall_at(instant)
    if clock.pattern.first_from(wall) is not None:
        return (
            "the schedule never fires: whenever it matches, the zone's clock jumps over that "
            "time, which dst_gap=skip, or * in hour or minute, leaves out; choose another time"
        )
    assert isinstance(schedule.rule, CronRule), "only cron has years, the rest recurs"
    names = CronPattern(schedule.rule.fields).blocking_fields(wall)
    verb = "leaves" if len(names) == 1 else "leave"
    return (
        f"the schedule never fires: cron's {_listed(names)} {verb} no time between now and the "
        f"end of {LAST_YEAR}; change what lies in the past or never meets"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
