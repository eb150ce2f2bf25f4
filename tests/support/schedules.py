"""Schedules as the tests of their texts name them."""

from datetime import datetime, timedelta
from typing import Any

from app.domain.schedule import CronRule, CrontabRule, DateRule, IntervalRule, Schedule


def crontab_of(expression: str, **options: Any) -> Schedule:
    """Make the schedule of a crontab line, in Tokyo."""
    values: dict[str, Any] = {"timezone": "Asia/Tokyo", **options}
    return Schedule(rule=CrontabRule(expression=expression), **values)


def cron_of(**fields: str) -> Schedule:
    """Make the schedule of a cron object, in Tokyo."""
    pairs = {"second": "0", **fields}
    return Schedule(rule=CronRule(fields=tuple(pairs.items())), timezone="Asia/Tokyo")


def interval_of(period: timedelta, **options: Any) -> Schedule:
    """Make the schedule of an interval, in Tokyo."""
    return Schedule(rule=IntervalRule(period=period, parts=()), timezone="Asia/Tokyo", **options)


def date_of(run_at: datetime, **options: Any) -> Schedule:
    """Make the schedule of a date, in Tokyo."""
    values: dict[str, Any] = {"timezone": "Asia/Tokyo", **options}
    return Schedule(rule=DateRule(run_at=run_at), **values)
