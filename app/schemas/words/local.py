"""Instants as a zone's clocks show them, with what makes them exact.

Imports ``times.py`` and the engine's zones; called by the writers of texts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.engine.zones import load_zone


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTime:
    """A local time; ``ambiguous`` if the clock shows it twice, so that only the offset tells."""

    wall: datetime
    offset: timedelta
    ambiguous: bool


def local_time(instant: datetime, zone: str) -> LocalTime:
    """Read the zone's clocks at an aware instant."""
    local = instant.astimezone(load_zone(zone))
    offset, other = local.utcoffset(), local.replace(fold=1 - local.fold).utcoffset()
    assert offset is not None, "an IANA zone always has an offset"
    return LocalTime(
        wall=local.replace(tzinfo=None, fold=0), offset=offset, ambiguous=offset != other
    )


def offset_text(offset: timedelta) -> str:
    """Write an offset from UTC: "UTC+09:00"."""
    seconds = int(offset.total_seconds())
    sign = "-" if seconds < 0 else "+"
    hours, rest = divmod(abs(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"UTC{sign}{hours:02}:{minutes:02}"
    return f"{text}:{seconds:02}" if seconds else text
