"""From wall clock times to instants: what a schedule means where a zone's clock jumps.

A zone's time line is cut into segments of one offset. Inside a segment a wall clock time is one
instant; between two segments lies a gap (times that do not exist) or a fold (times that exist
twice), and the policy says what they mean. Every instant is found in the segment it belongs to,
so that nothing is lost or doubled.

::

    gap:   ── segment (+1) ──┤ 02:00‥03:00 do not exist ├── segment (+2) ──
    fold:  ── segment (+2), 02:00‥03:00 ├── 02:00‥03:00 again, segment (+1) ──

Imports ``domain`` and ``zones.py``; called by ``triggers.py``. All datetimes here are naive: an
``at`` is in UTC, a ``wall`` is what the zone's clocks show; both are whole seconds.
"""

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from app.domain.schedule import DstFold, DstGap
from app.engine.zones import load_zone

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)  # no offset, and no jump of a clock, is longer (Samoa skipped one day)
# A year's segments are known with this much of its neighbours, so that no jump is cut in two.
_MARGIN = timedelta(days=2)
# No zone changes its offset twice in less (the sweep compares with the zones' own tables).
_PROBE_STEP = timedelta(hours=12)
# Past this year nothing is looked for: calendars beyond it are guesses.
LAST_YEAR = 2199


class WallPattern(Protocol):
    """A rule of times on a clock without a zone."""

    @property
    def follows_elapsed_time(self) -> bool:
        """Tell whether it means "every so often" rather than fixed times of day."""
        ...

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first matching whole second at or after ``wall``."""
        ...

    def times_on(self, day: date, begin: time, end: time | None) -> int:
        """Count a day's matching times from ``begin`` to before ``end`` (None: to its end)."""
        ...


class Gap(Enum):
    """What a wall clock time that does not exist means."""

    RUN_AFTER = auto()
    SHIFT = auto()
    NOTHING = auto()


class Segment(NamedTuple):
    """A stretch of time with one offset.

    From ``start`` until ``end``; answers may be taken from it for instants before ``until`` (the
    end of its year, if that comes first). ``offset_before`` and ``offset_after`` are those of its
    neighbours.
    """

    start: datetime
    end: datetime
    until: datetime
    offset_before: timedelta
    offset: timedelta
    offset_after: timedelta


class WallClock:
    """Finds the instants of a pattern in one zone."""

    def __init__(self, *, pattern: WallPattern, zone: str, gap: DstGap, fold: DstFold) -> None:
        load_zone(zone)
        self.pattern = pattern
        self._zone = zone
        elapsed = pattern.follows_elapsed_time
        self._gap = Gap.NOTHING if elapsed else _GAPS[gap]
        self._fold = DstFold.BOTH if elapsed else fold

    def first_from(self, instant: datetime) -> datetime | None:
        """Return the first instant of the pattern at or after an aware UTC one, in UTC."""
        at = instant.replace(tzinfo=None)
        if at.microsecond:
            at = at.replace(microsecond=0) + _SECOND
        while at.year <= LAST_YEAR:
            segment = _segment(self._zone, at)
            wall = self.pattern.first_from(self._regular_from(segment, at))
            found = self._earliest(segment, at=at, wall=wall)
            if found is not None and found < segment.until:
                return found.replace(tzinfo=UTC)
            if wall is None and segment.offset_after >= segment.offset:
                return None
            at = _resume(segment, wall)
        return None

    def count(self, begin: datetime, end: datetime) -> int:
        """Count the instants from ``begin`` to ``end``, aware UTC ones, both included.

        Where no jump of the zone is near, whole days are counted by their pattern; around a jump
        the instants are walked through.
        """
        at = begin.replace(tzinfo=None)
        if at.microsecond:
            at = at.replace(microsecond=0) + _SECOND
        stop = end.replace(tzinfo=None, microsecond=0) + _SECOND
        total = 0
        while at < stop:
            segment = _segment(self._zone, at)
            plain_from = segment.start + abs(segment.offset - segment.offset_before)
            plain_until = min(
                segment.until, segment.end - abs(segment.offset_after - segment.offset)
            )
            if plain_from <= at < plain_until:
                until = min(plain_until, stop)
                total += self._count_walls(at + segment.offset, until + segment.offset)
            else:
                until = min(plain_from if at < plain_from else segment.until, stop)
                total += self._count_walking(at, until)
            at = until
        return total

    def _count_walls(self, begin: datetime, end: datetime) -> int:
        """Count the pattern's times from one wall clock time to before another."""
        day, last = begin.date(), end.date()
        if day == last:
            return self.pattern.times_on(day, begin.time(), end.time())
        total = self.pattern.times_on(day, begin.time(), None)
        day += _DAY
        while day < last:
            total += self.pattern.times_on(day, time.min, None)
            day += _DAY
        return total + self.pattern.times_on(last, time.min, end.time())

    def _count_walking(self, begin: datetime, end: datetime) -> int:
        total = 0
        found = self.first_from(begin.replace(tzinfo=UTC))
        while found is not None and found.replace(tzinfo=None) < end:
            total += 1
            found = self.first_from(found + _SECOND)
        return total

    def wall_at(self, instant: datetime) -> datetime:
        """Return what the zone's clocks show at an aware instant."""
        return instant.astimezone(load_zone(self._zone)).replace(tzinfo=None, microsecond=0)

    def _regular_from(self, segment: Segment, at: datetime) -> datetime:
        """Return the first wall clock time at or after ``at`` that the segment may answer for."""
        low = at + segment.offset
        if self._fold is DstFold.FIRST and segment.offset < segment.offset_before:
            return max(low, segment.start + segment.offset_before)
        return low

    def _earliest(
        self, segment: Segment, *, at: datetime, wall: datetime | None
    ) -> datetime | None:
        regular = None if wall is None else self._regular(segment, wall)
        if segment.offset <= segment.offset_before or self._gap is Gap.NOTHING:
            return regular
        extra = self._from_gap(segment, at)
        if regular is None or extra is None:
            return regular or extra
        return min(regular, extra)

    def _regular(self, segment: Segment, wall: datetime) -> datetime | None:
        """Map a wall clock time that is not before the segment."""
        high = segment.end + segment.offset
        if self._fold is DstFold.SECOND and segment.offset_after < segment.offset:
            high = segment.end + segment.offset_after
        return wall - segment.offset if wall < high else None

    def _from_gap(self, segment: Segment, at: datetime) -> datetime | None:
        """Map the first wall clock time of the gap before the segment that still counts."""
        first = segment.start + segment.offset_before
        end = segment.start + segment.offset
        if self._gap is Gap.SHIFT:
            first = max(first, at + segment.offset_before)
        elif at > segment.start:
            return None
        if first >= end:
            return None
        wall = self.pattern.first_from(first)
        if wall is None or wall >= end:
            return None
        return wall - segment.offset_before if self._gap is Gap.SHIFT else segment.start


_GAPS = {
    DstGap.RUN_AFTER: Gap.RUN_AFTER,
    DstGap.SHIFT: Gap.SHIFT,
    DstGap.SKIP: Gap.NOTHING,
}


def _resume(segment: Segment, wall: datetime | None) -> datetime:
    """Return where to look next: nothing matches between the segment and the day before ``wall``.

    Times of a fold at the segment's end come once more and must not be jumped over.
    """
    next_at = min(segment.until, segment.end)
    if wall is None or segment.offset_after < segment.offset:
        return next_at
    return max(next_at, wall - _DAY)


def _segment(zone: str, at: datetime) -> Segment:
    segments = zone_segments(zone, at.year)
    for segment in segments[:-1]:
        if at < segment.until:
            return segment
    return segments[-1]


@lru_cache(maxsize=4096)  # a few per zone and year in use; each is well under 1 KiB
def zone_segments(zone: str, year: int) -> tuple[Segment, ...]:
    """Return the segments that touch a year (in UTC), in order."""
    year_start = datetime(year, 1, 1)  # noqa: DTZ001 - naive by this module's convention
    year_end = datetime(year + 1, 1, 1)  # noqa: DTZ001 - naive by this module's convention
    known_from, known_until = year_start - _MARGIN, year_end + _MARGIN
    changes = _offset_changes(load_zone(zone), known_from, known_until)
    edges = [known_from, *(change.at for change in changes), known_until]
    offsets = [_offset_at(zone, known_from), *(change.offset for change in changes)]
    around = [offsets[0], *offsets, offsets[-1]]
    return tuple(
        Segment(
            start=edges[i],
            end=edges[i + 1],
            until=min(edges[i + 1], year_end),
            offset_before=around[i],
            offset=around[i + 1],
            offset_after=around[i + 2],
        )
        for i in range(len(offsets))
        if edges[i + 1] > year_start and edges[i] < year_end
    )


def _offset_at(zone: str, at: datetime) -> timedelta:
    info = load_zone(zone)
    return _known(info.fromutc(at.replace(tzinfo=info)).utcoffset())


class _Change(NamedTuple):
    at: datetime
    offset: timedelta


def _offset_changes(zone: ZoneInfo, begin: datetime, end: datetime) -> list[_Change]:
    """Find the instants strictly inside the bounds at which the offset becomes another.

    Probes the wall clock, which is ten times as fast as probing instants. Asked for the first of
    two equal times, a zone goes over to its new offset after the gap or after the fold's first
    pass: at the change's instant read in the larger of both offsets.
    """
    changes = []
    wall, offset = begin - _DAY, _known(zone.utcoffset(begin - _DAY))
    while wall < end + _DAY:
        next_wall = wall + _PROBE_STEP
        next_offset = _known(zone.utcoffset(next_wall))
        if next_offset != offset:
            at = _changed_wall(zone, wall, next_wall) - max(offset, next_offset)
            if begin < at < end:
                changes.append(_Change(at, next_offset))
        wall, offset = next_wall, next_offset
    return changes


def _changed_wall(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Find the first second at which the wall clock has the offset of ``after``."""
    target = zone.utcoffset(after)
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if zone.utcoffset(middle) == target:
            after = middle
        else:
            before = middle
    return after


def _known(offset: timedelta | None) -> timedelta:
    assert offset is not None, "an IANA zone always has an offset"
    return offset
