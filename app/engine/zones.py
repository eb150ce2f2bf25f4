"""IANA time zones by name, from the ``tzdata`` package and never from the host.

Imports ``domain`` and the standard library. Called by ``triggers.py``, and by everything that shows
an instant in a job's zone.
"""

from difflib import get_close_matches
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from app.domain.errors import InvalidScheduleError

# Abbreviations people write as zones; by spelling alone the nearest name would be a wrong one.
_MEANT = {"jst": "Asia/Tokyo", "kst": "Asia/Seoul", "pst": "America/Los_Angeles"}


@cache
def zone_names() -> tuple[str, ...]:
    """Return every IANA name that the zone data knows, links included, in its own order."""
    listing = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return tuple(listing.split())


@cache  # bounded by the number of names: only known ones get past the check
def load_zone(name: str) -> ZoneInfo:
    """Return the zone of this exact name.

    Raises ``InvalidScheduleError`` for any other name; its sentence offers the nearest one.
    """
    if name not in _known_names():
        raise InvalidScheduleError(_unknown_zone(name))
    path = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _known_names() -> frozenset[str]:
    return frozenset(zone_names())


def _unknown_zone(name: str) -> str:
    nearest = _nearest_name(name[:64])
    hint = f"did you mean '{nearest}'?" if nearest else "use an IANA name such as 'Asia/Tokyo'"
    return f"unknown time zone '{_printable(name)}'; {hint}"


def _nearest_name(name: str) -> str | None:
    folded = name.strip().replace(" ", "_").casefold()
    if folded in _MEANT:
        return _MEANT[folded]
    by_folded: dict[str, str] = {}
    for known in zone_names():
        by_folded[known.casefold()] = known
        by_folded.setdefault(known.rpartition("/")[2].casefold(), known)
    matches = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def _printable(name: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in name[:64])
    return shown if len(name) <= len(shown) else f"{shown}…"
