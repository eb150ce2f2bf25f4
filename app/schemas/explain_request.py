"""The time that an explanation is asked for, as text: a second, a minute or a day's beginning.

Imports the wire's times; called by the API and the command line.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import DstFold, DstGap, Schedule
from app.engine.rule_match import Asked
from app.schemas.job_request import Time
from app.schemas.times import (
    JumpRule,
    LocalTimeKind,
    classify_local,
    read_instant,
    wall_time,
)
from app.schemas.words.story import usable_zone

_TIMES: TypeAdapter[datetime | date] = TypeAdapter(Time)
# In a query a plus sign that is not escaped arrives as a space.
_LOST_PLUS = re.compile(r"(:[0-9.,:]+) ([0-9]{2}:?[0-9]{2})$")
_SECONDS = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}")
# The years that the rules are followed in, less one at either end for the zones.
_YEARS = range(1971, 2199)
_SECOND, _MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def _check(text: str) -> str:
    """Refuse what is no time of the years that are known; return it with its plus sign."""
    text = _LOST_PLUS.sub(r"\1+\2", text)
    try:
        value = _TIMES.validate_python(text)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    if value.year not in _YEARS:
        raise ValueError(f"must lie between the years {_YEARS[0]} and {_YEARS[-1]}")
    return text


AskedText = Annotated[
    str,
    Field(
        max_length=64,
        examples=["2026-11-22T09:00"],
        description="ISO 8601; without an offset in the job's timezone; without seconds the whole "
        "minute is meant. Now, if it is not given.",
    ),
    AfterValidator(_check),
]
_ASKED: TypeAdapter[str] = TypeAdapter(AskedText)


def check_asked(text: str) -> str:
    """Check a time that was not checked on its way in. Raises ``InvalidScheduleError``."""
    try:
        return _ASKED.validate_python(text)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidScheduleError(f"--at {message}") from error


def read_asked(text: str | None, schedule: Schedule | None, *, now: datetime) -> Asked:
    """Read a checked time in a schedule's zone (None: UTC); None is the second of ``now``.

    A local time that a jump of the zone's clock makes void or double is read as the schedule
    would: what it asks about is the run that this time stands for.
    """
    if text is None:
        return Asked(begin=now.replace(microsecond=0), grain=_SECOND)
    grain = _SECOND if _SECONDS.search(text) else _MINUTE
    moment = wall_time(_TIMES.validate_python(text)).replace(microsecond=0)
    if moment.tzinfo is not None:
        return Asked(begin=moment.astimezone(UTC), grain=grain)
    zone = usable_zone(schedule)
    kind = classify_local(moment, zone)
    return Asked(
        begin=read_instant(moment, zone, rule=_jump_rule(schedule)),
        grain=grain,
        wall=moment,
        missing=kind is LocalTimeKind.MISSING,
        double=kind is LocalTimeKind.DOUBLE,
    )


def _jump_rule(schedule: Schedule | None) -> JumpRule:
    if schedule is None:
        return JumpRule()
    # A time that is skipped is kept where the clock would have shown it had it not jumped.
    gap = DstGap.RUN_AFTER if schedule.dst_gap is DstGap.RUN_AFTER else DstGap.SHIFT
    fold = DstFold.SECOND if schedule.dst_fold is DstFold.SECOND else DstFold.FIRST
    return JumpRule(gap=gap, fold=fold)
