"""Schedules in English: "At 09:00, Monday to Friday (Asia/Tokyo)".

First the times of day, then the days, then what bounds the schedule. Imports ``domain``, the
readings and the zones; called by ``describe_schedule`` of the package.
"""

from datetime import datetime, timedelta

from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    DstFold,
    DstGap,
    IntervalRule,
    Schedule,
)
from app.schemas.words.english_days import MONTHS, WEEKDAYS, days_phrase, listed
from app.schemas.words.english_times import times_phrase
from app.schemas.words.local import LocalTime, local_time, offset_text
from app.schemas.words.reading import JumpPolicy, read_policy, read_rule

_GAPS = {
    DstGap.SKIP: "when the clock jumps over it, not run",
    DstGap.SHIFT: "when the clock jumps over it, run as much later",
}
_FOLDS = {
    DstFold.SECOND: "when the clock repeats it, run the second time",
    DstFold.BOTH: "when the clock repeats it, run both times",
}
_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def describe_schedule(schedule: Schedule) -> str:
    """Describe a valid schedule in one line, without a full stop."""
    rule = schedule.rule
    match rule:
        case DateRule():
            return _describe_date(schedule, rule)
        case IntervalRule():
            text = f"{_interval(schedule, rule)} ({schedule.timezone})"
            return text + _bounds(schedule, start=False) + _jitter(schedule)
        case CronRule() | CrontabRule():
            text, policy = _clock(schedule, rule)
            text = f"{text} ({schedule.timezone})"
            return text + _bounds(schedule, start=True) + _jitter(schedule) + _policy(policy)


def format_period(period: timedelta) -> str:
    """Write a length of time: "1 day and 2 hours"."""
    rest = int(period.total_seconds())
    parts: list[str] = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count:,} {unit}{'' if count == 1 else 's'}")
    fraction = period.microseconds
    if fraction or not parts:
        parts.append(f"{fraction // 1000} milliseconds" if fraction else "0 seconds")
    return listed(parts)


def format_wall(wall: datetime) -> str:
    """Write a local time: "8 March 2026, 02:30"."""
    return f"{_date(wall)}, {_time(wall)}"


def _clock(schedule: Schedule, rule: CronRule | CrontabRule) -> tuple[str, JumpPolicy]:
    clock = read_rule(rule)
    policy = read_policy(schedule, clock)
    times, at_times = times_phrase(clock, jumps=policy.jumps)
    return times + days_phrase(clock, at_times=at_times), policy


def _policy(policy: JumpPolicy) -> str:
    notes = []
    if policy.gap is not None:
        notes.append(_GAPS[policy.gap])
    if policy.fold is not None:
        notes.append(_FOLDS[policy.fold])
    return "".join(f"; {note}" for note in notes)


def _describe_date(schedule: Schedule, rule: DateRule) -> str:
    local = local_time(rule.run_at, schedule.timezone)
    weekday = WEEKDAYS[local.wall.isoweekday() % 7]
    place = f"{schedule.timezone}, {offset_text(local.offset)}"
    text = f"Once, on {weekday}, {_date(local.wall)} at {_time(local.wall)} ({place})"
    return text + _bounds(schedule, start=True) + _jitter(schedule)


def _interval(schedule: Schedule, rule: IntervalRule) -> str:
    every = _every(rule.period)
    if schedule.start_at is None:
        return f"{every}, counted from when it was set"
    start = _moment(local_time(schedule.start_at, schedule.timezone))
    return f"{every}, starting on {start}"


def _every(period: timedelta) -> str:
    if period == timedelta(days=1):
        return "Every 24 hours"  # a day of the calendar may be longer or shorter
    text = format_period(period)
    return f"Every {text.removeprefix('1 ') if text.count(' ') == 1 else text}"


def _bounds(schedule: Schedule, *, start: bool) -> str:
    text = ""
    if start and schedule.start_at is not None:
        text += f", from {_moment(local_time(schedule.start_at, schedule.timezone))}"
    if schedule.end_at is not None:
        text += f", until {_moment(local_time(schedule.end_at, schedule.timezone))}"
    return text


def _jitter(schedule: Schedule) -> str:
    if not schedule.jitter:
        return ""
    return f"; each start delayed by up to {format_period(schedule.jitter)}"


def _moment(local: LocalTime) -> str:
    text = f"{_date(local.wall)} at {_time(local.wall)}"
    return f"{text} {offset_text(local.offset)}" if local.ambiguous else text


def _date(wall: datetime) -> str:
    return f"{wall.day} {MONTHS[wall.month - 1]} {wall.year}"


def _time(wall: datetime) -> str:
    if wall.microsecond:
        return f"{wall:%H:%M:%S}.{wall.microsecond:06}".rstrip("0")
    return f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"
