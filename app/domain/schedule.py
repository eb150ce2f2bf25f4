"""Schedules: the rule of times a job follows, as data.

What a rule means in instants is computed by ``engine/triggers.py``; its text form on the wire is
made in ``schemas/``. Rules are validated when a trigger is built from them, not here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

CRON_FIELD_NAMES = (
    "year",
    "month",
    "day",
    "week",
    "day_of_week",
    "hour",
    "minute",
    "second",
)


class DstGap(StrEnum):
    """What a fixed time does on the day the clock jumps over it."""

    RUN_AFTER = "run_after"  # at the first instant that exists after the gap
    SKIP = "skip"
    SHIFT = "shift"  # as far after the gap as it lay behind its beginning


class DstFold(StrEnum):
    """Which of two equal local times a fixed time means on the day the clock goes back."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronRule:
    """APScheduler-style fields, as ``(name, expression)`` in the order of ``CRON_FIELD_NAMES``.

    A field that is not named means ``*`` (``second``: the caller puts its default "0").
    Digits in ``day_of_week`` are crontab's (0 and 7 are Sunday).
    """

    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrontabRule:
    """One line: five fields as crontab reads them, or an ``@macro``."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRule:
    """Every ``period``, counted from the anchor (``start_at``, else when the schedule was set).

    ``parts`` keeps the words the user chose (``minutes: 10``), for answers.
    """

    period: timedelta
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRule:
    """Once, at ``run_at`` (aware, UTC)."""

    run_at: datetime


Rule = CronRule | CrontabRule | IntervalRule | DateRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A rule in a zone, optionally bounded.

    ``timezone`` is an IANA name. ``start_at`` and ``end_at`` are aware UTC instants, inclusive.
    ``jitter`` delays each start by up to itself, the same for one job and instant every time.
    """

    rule: Rule
    timezone: str
    start_at: datetime | None = None
    end_at: datetime | None = None
    jitter: timedelta = timedelta(0)
    dst_gap: DstGap = DstGap.RUN_AFTER
    dst_fold: DstFold = DstFold.FIRST
