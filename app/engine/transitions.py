"""Transitions: where a zone's clock jumps, and which wall clock times each jump touches.

Imports ``wall_clock.py`` and the standard library. Called by ``occurrences.py``, ``left_out.py``
and ``simulation.py``, and by the texts of schedules, which speak of jumps only where there are any.

Instants are aware and in UTC; a ``wall`` is naive, what the zone's clocks show.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache

from app.engine.wall_clock import WallPattern, count_walls, zone_segments
from app.engine.zones import load_zone

_SECOND = timedelta(seconds=1)
# Years looked at to tell whether a zone's clock jumps at all: rules have been known to pause a
# year or two, not ten.
_SPECIMEN_YEARS = range(2026, 2036)


class TransitionKind(StrEnum):
    """Which way the clock jumps."""

    GAP = "gap"  # forward: local times that do not exist
    FOLD = "fold"  # back: local times that exist twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One jump: at ``at`` the zone's offset from UTC changes."""

    at: datetime
    offset_before: timedelta
    offset_after: timedelta

    @property
    def kind(self) -> TransitionKind:
        """Tell which way the clock jumps."""
        forward = self.offset_after > self.offset_before
        return TransitionKind.GAP if forward else TransitionKind.FOLD

    @property
    def width(self) -> timedelta:
        """Tell how far the clock jumps."""
        return abs(self.offset_after - self.offset_before)

    @property
    def first_wall(self) -> datetime:
        """Return the first local time that does not exist, or exists twice.

        The missing times begin at the old offset's reading, the doubled ones at the new one's: the
        smaller offset either way.
        """
        return self.at.replace(tzinfo=None) + min(self.offset_before, self.offset_after)

    @property
    def end_wall(self) -> datetime:
        """Return the first local time after those."""
        return self.first_wall + self.width


def list_transitions(zone: str, begin: datetime, end: datetime) -> list[Transition]:
    """List a zone's transitions from one aware instant to another, both included, in order.

    Raises ``InvalidScheduleError`` for an unknown zone.
    """
    load_zone(zone)
    first, last = begin.astimezone(UTC), end.astimezone(UTC)
    return [
        transition
        for year in range(first.year, last.year + 1)
        for transition in _of_year(zone, year)
        if first <= transition.at <= last
    ]


@cache  # bounded by the number of zones
def clock_jumps(zone: str) -> bool:
    """Tell whether a zone's clock jumps nowadays."""
    return any(True for year in _SPECIMEN_YEARS for _ in _of_year(zone, year))


def walls_inside(
    pattern: WallPattern, transition: Transition, *, limit: int
) -> tuple[list[datetime], int]:
    """List the pattern's local times that a transition touches, and count those beyond ``limit``.

    The listing costs at most ``limit`` searches; the count looks at whole days.
    """
    listed: list[datetime] = []
    for wall in _walls(pattern, transition.first_wall, transition.end_wall):
        if len(listed) == limit:
            break
        listed.append(wall)
    else:
        return listed, 0
    total = count_walls(pattern, transition.first_wall, transition.end_wall)
    return listed, total - len(listed)


def _of_year(zone: str, year: int) -> Iterator[Transition]:
    for segment in zone_segments(zone, year):
        if segment.start.year == year and segment.offset != segment.offset_before:
            yield Transition(
                at=segment.start.replace(tzinfo=UTC),
                offset_before=segment.offset_before,
                offset_after=segment.offset,
            )


def _walls(pattern: WallPattern, begin: datetime, end: datetime) -> Iterator[datetime]:
    wall = pattern.first_from(begin)
    while wall is not None and wall < end:
        yield wall
        wall = pattern.first_from(wall + _SECOND)
