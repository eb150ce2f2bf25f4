"""Schedules as the command line takes them: a crontab line, an ``@macro``, or a period.

They pass through the same request and the same mapping as the API's. Called by ``__main__``.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from app.domain.errors import InvalidScheduleError
from app.engine.occurrences import preview_schedule
from app.schemas.job_mapping import to_instant, to_schedule
from app.schemas.schedule_answer import PreviewAnswer, to_preview
from app.schemas.schedule_request import PreviewRequest

_PERIOD = re.compile(r"(?:[0-9]{1,9}[wdhms])+")
_PART = re.compile(r"([0-9]+)([wdhms])")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_FLAGS = {"from": "--from", "timezone": "--tz", "crontab": "the schedule"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleLine:
    """What was asked: a ``line`` or a period ``every``, and where to begin (None: now)."""

    line: str | None
    every: str | None
    zone: str
    begin: str | None


def preview_line(asked: ScheduleLine, *, count: int, now: datetime) -> PreviewAnswer:
    """Preview what was asked. Raises ``InvalidScheduleError`` for all that cannot be used."""
    fields = {**_rule(asked), "timezone": asked.zone, "count": count, "from": asked.begin}
    try:
        request = PreviewRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidScheduleError(_sentence(error)) from error
    schedule = to_schedule(request, default_zone=asked.zone)
    begin = to_instant(request.from_, schedule.timezone, field="from")
    preview = preview_schedule(schedule, begin=now if begin is None else begin, count=count)
    return to_preview(preview, [])


def _rule(asked: ScheduleLine) -> dict[str, Any]:
    if (asked.line is None) == (asked.every is None):
        raise InvalidScheduleError(
            'give either a schedule, such as "0 9 * * mon-fri", or --every with a period'
        )
    if asked.every is None:
        return {"schedule_type": "crontab", "crontab": asked.line}
    text = asked.every.strip().lower()
    if not _PERIOD.fullmatch(text):
        raise InvalidScheduleError(
            "--every takes numbers with w, d, h, m or s, such as 10m or 1h30m"
        )
    parts: dict[str, int] = {}
    for number, unit in _PART.findall(text):
        name = _UNITS[unit]
        parts[name] = parts.get(name, 0) + int(number)
    return {"schedule_type": "interval", "interval": parts}


def _sentence(error: ValidationError) -> str:
    clauses = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(found["loc"][0])
        clauses.append(f"{_FLAGS.get(field, field)} {found['msg'].removeprefix('Value error, ')}")
    return "; ".join(clauses)
