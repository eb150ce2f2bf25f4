"""What a rule says of an asked time: due or not, the nearest instants, and what does not fit.

Pure, but takes milliseconds: called in a thread. Imports ``domain``, the triggers and what explains
their instants; called by ``services/explain_service.py``, its types by ``explanation.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from app.domain.errors import InvalidScheduleError
from app.domain.ids import JobId
from app.domain.revision import Revision
from app.domain.schedule import CronRule, CrontabRule, Schedule
from app.engine.catch_up import find_newest
from app.engine.cron_fields import normalise_cron_fields
from app.engine.crontab import CrontabPattern, normalise_crontab
from app.engine.left_out import LeftOut
from app.engine.occurrences import Note, pattern_of, preview_trigger
from app.engine.triggers import CronPattern, ScheduleTrigger, build_trigger, jitter_delay
from app.engine.wall_clock import LAST_AT, WallPattern
from app.engine.zones import load_zone

_INSTANT = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_DATE_FIELDS = ("year", "month", "week", "day", "day_of_week")
_CRONTAB_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# The instant before a time is looked for in ever wider spans, so that a rule of seconds is not
# counted over years; together they reach back four centuries.
_SPANS = tuple(timedelta(seconds=60 * 12**n) for n in range(9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The time asked about: from ``begin`` (aware, UTC) for ``grain``, a second or a minute.

    ``wall`` is the local time as it was asked (None: it had an offset); ``missing`` if the zone's
    clock jumps over it, ``double`` if it shows it twice.
    """

    begin: datetime
    grain: timedelta
    wall: datetime | None = None
    missing: bool = False
    double: bool = False

    @property
    def end(self) -> datetime:
        """Tell the first instant after it."""
        return self.begin + self.grain


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A field of a rule that the asked local time does not fit: what it wants, what was found.

    ``field`` is one of the cron fields, ``start_at`` or ``end_at``; ``wanted`` is the field as it
    is stored.
    """

    field: str
    wanted: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMatch:
    """What a revision's rule says of an asked time.

    ``due`` is its instant there (None: none), ``too_early`` one there that lies before the
    revision's time; ``void`` a local time there that a jump of the clock
    takes away; ``previous`` and ``following`` are its nearest instants; ``start_delay`` is how long
    the start at ``due`` waits by jitter.
    """

    due: datetime | None = None
    too_early: bool = False
    void: LeftOut | None = None
    previous: datetime | None = None
    following: datetime | None = None
    notes: tuple[Note, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    start_delay: timedelta = timedelta(0)


def match_rule(
    revision: Revision, asked: Asked, *, job_id: JobId, floor: datetime
) -> RuleMatch | None:
    """Hold a revision's rule against an asked time; None if the rule cannot be followed.

    An instant at or before the revision's beginning belongs to the one before. ``previous`` is not
    looked for before ``floor``.
    """
    schedule = revision.schedule
    if schedule is None:
        return None
    try:
        trigger = build_trigger(schedule, anchor=revision.anchor)
    except InvalidScheduleError:
        return None
    begin = max(asked.begin, revision.since + _INSTANT)
    due = trigger.next_from(begin)
    if due is not None and due >= asked.end:
        due = None
    first = trigger.next_from(asked.begin)
    void = trigger.left_out(begin - _INSTANT, asked.end - _INSTANT) if asked.end > begin else ()
    centre = asked.begin if due is None else due
    notes = () if due is None else preview_trigger(trigger, begin=due, count=1).occurrences[0].notes
    return RuleMatch(
        due=due,
        too_early=due is None and first is not None and first < min(begin, asked.end),
        void=void[0] if void else None,
        previous=find_previous(trigger, centre, floor=floor),
        following=trigger.next_after(max(centre, floor)),
        notes=notes,
        mismatches=()
        if due is not None or void or begin >= asked.end
        else tuple(_mismatches(schedule, asked)),
        start_delay=timedelta(0) if due is None else jitter_delay(schedule, job_id, due),
    )


def find_previous(
    trigger: ScheduleTrigger, instant: datetime, *, floor: datetime
) -> datetime | None:
    """Find a trigger's last instant before one instant and after another; None if there is none."""
    until = min(instant - _INSTANT, LAST_AT)
    for span in _SPANS:
        after = max(floor, until - span) if until - floor > span else floor
        if after >= until:
            return None
        if trigger.count(after, until):
            return trigger.next_after(find_newest(trigger, 1, after=after, until=until))
        if after == floor:
            return None
    return None


def _mismatches(schedule: Schedule, asked: Asked) -> Iterator[Mismatch]:
    """Name what keeps an asked time from being an instant, as far as that is told by looking."""
    start_at, end_at = schedule.start_at, schedule.end_at
    if start_at is not None and asked.end <= start_at:
        yield Mismatch(field="start_at", wanted=_text(start_at), found=_text(asked.begin))
    if end_at is not None and asked.begin > end_at:
        yield Mismatch(field="end_at", wanted=_text(end_at), found=_text(asked.begin))
    pattern = pattern_of(schedule)
    if pattern is not None:
        yield from _field_mismatches(schedule, pattern, asked)


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()


def _field_mismatches(schedule: Schedule, pattern: WallPattern, asked: Asked) -> Iterator[Mismatch]:
    wall = asked.wall or asked.begin.astimezone(load_zone(schedule.timezone)).replace(tzinfo=None)
    wanted = dict(_fields(schedule))
    if not _has_day(pattern, wall.date()):
        for field in _DATE_FIELDS:
            text = wanted.get(field, "*")
            if text != "*" and not _has_day(_alone(schedule, field, text), wall.date()):
                yield Mismatch(field=field, wanted=text, found=_found(field, wall))
    times = ("hour", "minute", "second") if asked.grain == _SECOND else ("hour", "minute")
    for field in times:
        text = wanted.get(field, "*")
        if text != "*" and not _fits_time(field, text, schedule, wall):
            yield Mismatch(field=field, wanted=text, found=_found(field, wall))


def _fields(schedule: Schedule) -> tuple[tuple[str, str], ...]:
    """Return the fields of a rule by name, in one form."""
    if isinstance(schedule.rule, CronRule):
        return normalise_cron_fields(schedule.rule.fields)
    assert isinstance(schedule.rule, CrontabRule), "only rules on the wall clock have fields"
    texts = normalise_crontab(schedule.rule.expression).split()
    return (*zip(_CRONTAB_FIELDS, texts, strict=True), ("second", "0"))


def _alone(schedule: Schedule, field: str, text: str) -> WallPattern:
    """Build a rule of one field, the others being free."""
    if isinstance(schedule.rule, CronRule):
        return CronPattern(((field, text),))
    texts = [text if name == field else "*" for name in _CRONTAB_FIELDS]
    return CrontabPattern(" ".join(texts))


def _has_day(pattern: WallPattern, day: date) -> bool:
    return bool(pattern.days_between(day, day + _DAY))


def _fits_time(field: str, text: str, schedule: Schedule, wall: datetime) -> bool:
    if field == "second" and isinstance(schedule.rule, CrontabRule):
        return wall.second == 0
    times = _alone(schedule, field, text).times
    if field == "hour":
        low, high = wall.replace(minute=0, second=0), wall.replace(minute=59, second=59)
    elif field == "minute":
        low, high = wall.replace(second=0), wall.replace(second=59)
    else:
        low = high = wall
    # The last second of a day has none after it to stop before.
    stop = high.replace(microsecond=0) + _SECOND
    end = None if stop.date() > high.date() else stop.time()
    return times.count(low.replace(microsecond=0).time(), end) > 0


def _found(field: str, wall: datetime) -> str:
    match field:
        case "day_of_week":
            return _WEEKDAYS[wall.isoweekday() % 7]
        case "week":
            return str(wall.isocalendar().week)
        case _:
            return str(getattr(wall, field))
