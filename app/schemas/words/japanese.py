"""Schedules in Japanese: 「毎週月〜金曜日の9時00分（Asia/Tokyo）」.

First the days, then the times of day, then what bounds the schedule. Imports ``domain``, the
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
from app.schemas.words.japanese_days import WEEKDAYS, days_phrase
from app.schemas.words.japanese_times import times_phrase
from app.schemas.words.local import LocalTime, local_time, offset_text
from app.schemas.words.reading import JumpPolicy, read_policy, read_rule

_GAPS = {
    DstGap.SKIP: "時計が進んで存在しない時刻には実行しない",
    DstGap.SHIFT: "時計が進んで存在しない時刻は、進んだ分だけ遅らせて実行する",
}
_FOLDS = {
    DstFold.SECOND: "時計が戻って2度ある時刻は、2度目に実行する",
    DstFold.BOTH: "時計が戻って2度ある時刻は、2度とも実行する",
}
_UNITS = ((86_400, "日"), (3600, "時間"), (60, "分"), (1, "秒"))


def describe_schedule(schedule: Schedule) -> str:
    """Describe a valid schedule in one line, without a full stop."""
    rule = schedule.rule
    match rule:
        case DateRule():
            return _describe_date(schedule, rule)
        case IntervalRule():
            text = f"{_interval(schedule, rule)}（{schedule.timezone}）"
            return text + _bounds(schedule, start=False) + _jitter(schedule)
        case CronRule() | CrontabRule():
            text, policy = _clock(schedule, rule)
            text = f"{text}（{schedule.timezone}）"
            return text + _bounds(schedule, start=True) + _jitter(schedule) + _policy(policy)


def format_period(period: timedelta) -> str:
    """Write a length of time: 「1日2時間」."""
    rest = int(period.total_seconds())
    parts: list[str] = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    if period.microseconds:
        parts.append(f"{period.microseconds // 1000}ミリ秒")
    return "".join(parts) or "0秒"


def format_wall(wall: datetime) -> str:
    """Write a local time: 「2026年3月8日2時30分」."""
    return f"{_date(wall)}{_time(wall)}"


def _clock(schedule: Schedule, rule: CronRule | CrontabRule) -> tuple[str, JumpPolicy]:
    clock = read_rule(rule)
    policy = read_policy(schedule, clock)
    times, begins_with_time = times_phrase(clock, jumps=policy.jumps)
    days = days_phrase(clock, plain=not begins_with_time)
    return f"{days}{_joint(days, begins_with_time=begins_with_time)}{times}", policy


def _joint(days: str, *, begins_with_time: bool) -> str:
    """Return what stands between the days and the times of day."""
    if not days:
        return ""
    if not begins_with_time:
        return "、"
    return "" if days.endswith("毎日") else "の"


def _policy(policy: JumpPolicy) -> str:
    text = ""
    if policy.gap is not None:
        text += f"。{_GAPS[policy.gap]}"
    if policy.fold is not None:
        text += f"。{_FOLDS[policy.fold]}"
    return text


def _describe_date(schedule: Schedule, rule: DateRule) -> str:
    local = local_time(rule.run_at, schedule.timezone)
    weekday = WEEKDAYS[local.wall.isoweekday() % 7]
    place = f"{schedule.timezone}、{offset_text(local.offset)}"
    text = f"{_date(local.wall)}（{weekday}）{_time(local.wall)}に1回だけ（{place}）"
    return text + _bounds(schedule, start=True) + _jitter(schedule)


def _interval(schedule: Schedule, rule: IntervalRule) -> str:
    day = timedelta(days=1)
    every = "24時間ごと" if rule.period == day else f"{format_period(rule.period)}ごと"
    if schedule.start_at is None:
        return f"設定した時点から{every}"
    return f"{_moment(local_time(schedule.start_at, schedule.timezone))}から{every}"


def _bounds(schedule: Schedule, *, start: bool) -> str:
    text = ""
    if start and schedule.start_at is not None:
        text += f"{_moment(local_time(schedule.start_at, schedule.timezone))}から"
    if schedule.end_at is not None:
        text += f"{_moment(local_time(schedule.end_at, schedule.timezone))}まで"
    return text and f"、{text}"


def _jitter(schedule: Schedule) -> str:
    if not schedule.jitter:
        return ""
    return f"。毎回の開始を最大{format_period(schedule.jitter)}遅らせる"


def _moment(local: LocalTime) -> str:
    text = f"{_date(local.wall)}{_time(local.wall)}"
    return f"{text}（{offset_text(local.offset)}）" if local.ambiguous else text


def _date(wall: datetime) -> str:
    return f"{wall.year}年{wall.month}月{wall.day}日"


def _time(wall: datetime) -> str:
    text = f"{wall.hour}時{wall.minute:02}分"
    if wall.microsecond:
        return f"{text}{wall.second:02}.{wall.microsecond:06}".rstrip("0") + "秒"
    return f"{text}{wall.second:02}秒" if wall.second else text
