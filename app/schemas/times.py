"""Instants as text: ISO 8601 with an offset, in a job's zone; and back."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import DstFold, DstGap
from app.engine.zones import load_zone


def show_instant(instant: datetime | None, zone: str) -> str | None:
    """Write an instant in a zone; None stays None."""
    return None if instant is None else instant.astimezone(_zone(zone)).isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpRule:
    """How a local time is read that a jump of the zone's clock makes void or double."""

    gap: DstGap = DstGap.RUN_AFTER
    fold: DstFold = DstFold.FIRST


class LocalTimeKind(StrEnum):
    """What a zone's clock makes of a local time."""

    PLAIN = "plain"
    MISSING = "missing"
    DOUBLE = "double"


_DEFAULT_RULE = JumpRule()


def read_instant(value: datetime | date, zone: str, *, rule: JumpRule = _DEFAULT_RULE) -> datetime:
    """Read a time of the wire as an aware UTC instant.

    Without an offset it is a local time in ``zone``; a bare date is midnight there. A local time
    that the clock jumps over is read as the first moment after the jump, or as far after it as it
    lies behind its beginning (``shift``); an ambiguous one as the first of the two, or the second.
    Raises ``InvalidScheduleError`` for an unknown zone and for a missing time under ``skip``,
    ``OverflowError`` for a time beyond the calendar.
    """
    moment = wall_time(value)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    info = load_zone(zone)
    match classify_local(moment, zone):
        case LocalTimeKind.PLAIN:
            return moment.replace(tzinfo=info, fold=0).astimezone(UTC)
        case LocalTimeKind.DOUBLE:
            fold = int(rule.fold is DstFold.SECOND)
            return moment.replace(tzinfo=info, fold=fold).astimezone(UTC)
        case LocalTimeKind.MISSING:
            return _read_missing(moment, info, rule)


def classify_local(value: datetime | date, zone: str) -> LocalTimeKind:
    """Tell whether a time without an offset exists once in ``zone``; one with it is plain."""
    moment = wall_time(value)
    if moment.tzinfo is not None:
        return LocalTimeKind.PLAIN
    info = load_zone(zone)
    first, second = (moment.replace(tzinfo=info, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(info).replace(tzinfo=None) != moment:
        return LocalTimeKind.MISSING
    return LocalTimeKind.PLAIN if first == second else LocalTimeKind.DOUBLE


def wall_time(value: datetime | date) -> datetime:
    """Read a bare date as its midnight; a time stays as it is."""
    return value if isinstance(value, datetime) else datetime.combine(value, time.min)


def _read_missing(moment: datetime, zone: ZoneInfo, rule: JumpRule) -> datetime:
    match rule.gap:
        case DstGap.RUN_AFTER:
            return _after_gap(moment, zone)
        case DstGap.SHIFT:
            return moment.replace(tzinfo=zone, fold=0).astimezone(UTC)
        case DstGap.SKIP:
            raise InvalidScheduleError(
                f"{moment.isoformat()} does not exist in {zone.key}, whose clocks go forward over "
                "it, and dst_gap=skip drops such times; give a time that exists, one with an "
                "offset, or another dst_gap"
            )


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
