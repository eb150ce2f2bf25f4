"""Instants as text: ISO 8601 with an offset, in a job's zone; and back."""

from datetime import UTC, date, datetime, time, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.domain.errors import InvalidScheduleError
from app.engine.zones import load_zone


def show_instant(instant: datetime | None, zone: str) -> str | None:
    """Write an instant in a zone; None stays None."""
    return None if instant is None else instant.astimezone(_zone(zone)).isoformat()


def read_instant(value: datetime | date, zone: str) -> datetime:
    """Read a time of the wire as an aware UTC instant.

    Without an offset it is a local time in ``zone``; a bare date is midnight there. A local time
    that the clock jumps over is read as the first moment after the jump, an ambiguous one as the
    first of the two. Raises ``InvalidScheduleError`` for an unknown zone, ``OverflowError`` for a
    time beyond the calendar.
    """
    moment = value if isinstance(value, datetime) else datetime.combine(value, time.min)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    local = moment.replace(tzinfo=load_zone(zone), fold=0)
    instant = local.astimezone(UTC)
    if instant.astimezone(local.tzinfo).replace(tzinfo=None) == moment:
        return instant
    return _after_gap(moment, load_zone(zone))


def zone_abbreviation(instant: datetime, zone: str) -> str:
    """Tell what a zone calls its time at an instant (JST)."""
    return instant.astimezone(_zone(zone)).tzname() or zone


def _after_gap(moment: datetime, zone: ZoneInfo) -> datetime:
    """Find the first instant after the jump that skips a local time, to the second."""
    before = moment.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = moment.replace(tzinfo=zone, fold=0).astimezone(UTC)
    old_offset = before.astimezone(zone).utcoffset()
    while (after - before).total_seconds() > 1:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == old_offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    """Load a stored zone; of one that this version's zone data lacks, times are shown in UTC."""
    try:
        return load_zone(name)
    except InvalidScheduleError:
        return UTC
