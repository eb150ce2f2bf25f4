"""Schedules of every kind, and the slow way through their instants: one step after another."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.domain.schedule import CronRule, CrontabRule, DateRule, IntervalRule, Rule
from app.engine.triggers import ScheduleTrigger

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = [
    "Asia/Tokyo",
    "America/New_York",
    "Europe/Berlin",
    "Europe/Dublin",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "America/Havana",
    "Pacific/Apia",
]
FIXED_TIMES: list[Rule] = [
    CrontabRule(expression="30 1,2,3 * * *"),
    CrontabRule(expression="0 0 * * *"),
    CrontabRule(expression="0,15 0-3 * * sun"),
    CrontabRule(expression="0,20,40 0,2 * * *"),
    CrontabRule(expression="10,50 1 * * *"),
    CrontabRule(expression="0-59 0-3 * * *"),
    CronRule(fields=(("day", "last"), ("hour", "0"), ("minute", "0"), ("second", "0"))),
    CronRule(fields=(("hour", "1-3"), ("minute", "0,30"), ("second", "0,59"))),
    CronRule(fields=(("week", "10-13"), ("hour", "2"), ("minute", "30"), ("second", "0"))),
    CronRule(fields=(("hour", "2"), ("minute", "10"), ("second", "*"))),
]
RULES: list[Rule] = [
    *FIXED_TIMES,
    CrontabRule(expression="*/7 * * * *"),
    CrontabRule(expression="15 */5 1,15 * fri"),
    CronRule(fields=(("minute", "*/20"), ("second", "0"))),
    CronRule(fields=(("minute", "3-59/8"), ("second", "5,35,50"))),
    CronRule(fields=(("day", "2nd sun"), ("minute", "7"), ("second", "*/25"))),
    IntervalRule(period=timedelta(minutes=17), parts=()),
    DateRule(run_at=datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
]


def walk(trigger: ScheduleTrigger, after: datetime, until: datetime) -> Iterator[datetime]:
    """Step from one instant of a trigger to the next, in (after, until]."""
    instant = trigger.next_after(after)
    while instant is not None and instant <= until:
        yield instant
        instant = trigger.next_after(instant)
