"""From wall clock times to instants: what a schedule means where a zone's clock jumps.

A zone's time line is cut into segments of one offset. Inside a segment a wall clock time is one
instant; between two segments lies a gap (times that do not exist) or a fold (times that exist
twice), and the policy says what they mean. Every instant is found in the segment it belongs to,
so that nothing is lost or doubled.

::

    gap:   ── segment (+1) ──┤ 02:00‥03:00 do not exist ├── segment (+2) ──
    fold:  ── segment (+2), 02:00‥03:00 ├── 02:00‥03:00 again, segment (+1) ──

Imports ``domain``, ``day_times.py`` and ``zones.py``; called by ``triggers.py``, ``left_out.py``
and ``transitions.py``. All datetimes here are naive: an ``at`` is in UTC, a ``wall`` is what the
zone's clocks show; both are whole seconds.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from app.domain.clock import EPOCH, to_us
from app.domain.schedule import DstFold, DstGap
from app.engine.day_times import DayTimes
from app.engine.zones import load_zone

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)  # no offset, and no jump of a clock, is longer (Samoa skipped one day)
# A year's segments are known with this much of its neighbours, so that no jump is cut in two.
_MARGIN = timedelta(days=2)
# No zone changes its offset twice in less (the sweep compares with the zones' own tables).
_PROBE_STEP = timedelta(hours=12)
# Past this year nothing is looked for: calendars beyond it are guesses.
LAST_YEAR = 2199
LAST_AT = datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC)
_EPOCH_DAY = EPOCH.toordinal()
_DAY_US = 86_400_000_000


class WallPattern(Protocol):
    """A rule of times on a clock without a zone."""

    @property
    def follows_elapsed_time(self) -> bool:
        """Tell whether it means "every so often" rather than fixed times of day."""
        ...

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first matching whole second at or after ``wall``."""
        ...

    @property
    def times(self) -> DayTimes:
        """Return the times of every matching day."""
        ...

    def days_between(self, first: date, end: date) -> list[date]:
        """List the matching days from ``first`` to before ``end``."""
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

    @property
    def quiet_from(self) -> datetime:
        """Tell since when the jump before is at least as far as it is wide and touches nothing."""
        return self.start + abs(self.offset - self.offset_before)

    @property
    def quiet_until(self) -> datetime:
        """Tell until when the jump after is farther than it is wide; may precede the other."""
        return self.end - abs(self.offset_after - self.offset)


class _Piece(NamedTuple):
    """A span with one meaning: ``offset`` is None near a jump."""

    begin: datetime
    end: datetime
    offset: timedelta | None


class WallClock:
    """Finds the instants of a pattern in one zone."""

    def __init__(self, *, pattern: WallPattern, zone: str, gap: DstGap, fold: DstFold) -> None:
        load_zone(zone)
        self.pattern = pattern
        self.zone = zone
        elapsed = pattern.follows_elapsed_time
        self._gap = Gap.NOTHING if elapsed else _GAPS[gap]
        self.fold = DstFold.BOTH if elapsed else fold
        self.skips_gaps = gap is DstGap.SKIP and not elapsed

    def first_from(self, instant: datetime) -> datetime | None:
        """Return the first instant of the pattern at or after an aware UTC one, in UTC."""
        at = ceil_second(instant)
        while at.year <= LAST_YEAR:
            segment = _segment(self.zone, at)
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
        return sum(
            sum(1 for _ in self._walk(piece))
            if piece.offset is None
            else count_walls(self.pattern, piece.begin + piece.offset, piece.end + piece.offset)
            for piece in self._pieces(begin, end)
        )

    def list_us(self, begin: datetime, end: datetime) -> list[int]:
        """List the instants that ``count`` counts, in order, in microseconds since 1970 UTC."""
        listed: list[int] = []
        for piece in self._pieces(begin, end):
            if piece.offset is None:
                listed += map(to_us, self._walk(piece))
            else:
                first, last = piece.begin + piece.offset, piece.end + piece.offset
                listed += list_walls_us(self.pattern, first, last, offset=piece.offset)
        return listed

    def _pieces(self, begin: datetime, end: datetime) -> Iterator[_Piece]:
        """Cut the span between two aware instants, both included, into plain pieces and others."""
        at = ceil_second(begin)
        stop = min(end, LAST_AT).replace(tzinfo=None, microsecond=0) + _SECOND
        while at < stop:
            segment = _segment(self.zone, at)
            plain_from, plain_until = self._plain_span(segment)
            if plain_from <= at < plain_until:
                until = min(plain_until, segment.until, stop)
                yield _Piece(at, until, segment.offset)
            else:
                until = min(plain_from if at < plain_from else segment.until, stop)
                yield _Piece(at, until, None)
            at = until

    def _plain_span(self, segment: Segment) -> tuple[datetime, datetime]:
        """Return since when and until when each local time of a segment is one instant."""
        if self._gap is Gap.NOTHING and self.fold is DstFold.BOTH:
            return segment.start, segment.end
        return segment.quiet_from, segment.quiet_until

    def _walk(self, piece: _Piece) -> Iterator[datetime]:
        found = self.first_from(piece.begin.replace(tzinfo=UTC))
        while found is not None and found.replace(tzinfo=None) < piece.end:
            yield found
            found = self.first_from(found + _SECOND)

    @property
    def leaves_out(self) -> bool:
        """Tell whether a jump may make local times of the pattern void.

        Those of a gap if ``skips_gaps``, and one of two equal ones unless ``fold`` is ``BOTH``.
        """
        return self.skips_gaps or self.fold is not DstFold.BOTH

    def is_quiet(self, begin: datetime, end: datetime) -> bool:
        """Tell whether two aware instants, and all between, are too far from a jump to feel it.

        That is farther than the jump is wide. Costs a microsecond; in doubt the answer is no.
        """
        first = begin.astimezone(UTC)
        for quiet_from, quiet_until in _quiet_spans(self.zone, first.year):
            if quiet_from <= first and end < quiet_until:
                return True
        return False

    def wall_at(self, instant: datetime) -> datetime:
        """Return what the zone's clocks show at an aware instant."""
        return instant.astimezone(load_zone(self.zone)).replace(tzinfo=None, microsecond=0)

    def _regular_from(self, segment: Segment, at: datetime) -> datetime:
        """Return the first wall clock time at or after ``at`` that the segment may answer for."""
        low = at + segment.offset
        if self.fold is DstFold.FIRST and segment.offset < segment.offset_before:
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
        if self.fold is DstFold.SECOND and segment.offset_after < segment.offset:
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


def ceil_second(instant: datetime) -> datetime:
    """Return the first whole second at or after an aware UTC instant, naive."""
    at = instant.replace(tzinfo=None)
    return at.replace(microsecond=0) + _SECOND if at.microsecond else at


def count_walls(pattern: WallPattern, begin: datetime, end: datetime) -> int:
    """Count the pattern's times from one local time to before another."""
    return sum(
        len(pattern.days_between(days.first, days.end)) * pattern.times.count(days.low, days.high)
        for days in _days(begin, end)
    )


def list_walls_us(
    pattern: WallPattern, begin: datetime, end: datetime, *, offset: timedelta
) -> list[int]:
    """List those times in order, as instants in microseconds by clocks of one offset."""
    listed: list[int] = []
    shift = offset // timedelta(microseconds=1)
    for days in _days(begin, end):
        times = pattern.times.list_us(days.low, days.high)
        if not times:
            continue
        midnights = [
            (day.toordinal() - _EPOCH_DAY) * _DAY_US - shift
            for day in pattern.days_between(days.first, days.end)
        ]
        listed += [midnight + time_us for midnight in midnights for time_us in times]
    return listed


class _Days(NamedTuple):
    """Days from ``first`` to before ``end``, each from ``low`` to before ``high``."""

    first: date
    end: date
    low: time
    high: time | None


def _days(begin: datetime, end: datetime) -> list[_Days]:
    """Cut the time from one local time to before another into a day's rest, days, and a piece."""
    first, last = begin.date(), end.date()
    if first == last:
        return [_Days(first, first + _DAY, begin.time(), end.time())]
    return [
        _Days(first, first + _DAY, begin.time(), None),
        _Days(first + _DAY, last, time.min, None),
        _Days(last, last + _DAY, time.min, end.time()),
    ]


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


@lru_cache(maxsize=4096)  # as many as there are segments
def _quiet_spans(zone: str, year: int) -> tuple[tuple[datetime, datetime], ...]:
    """Return the quiet times of a year's segments, as aware instants in UTC."""
    return tuple(
        (segment.quiet_from.replace(tzinfo=UTC), segment.quiet_until.replace(tzinfo=UTC))
        for segment in zone_segments(zone, year)
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
