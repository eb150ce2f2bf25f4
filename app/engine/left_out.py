"""Local times that a rule names and the zone's clock makes void: why nothing ran.

Imports ``domain``, ``wall_clock.py`` and ``transitions.py``; called by ``triggers.py``, and its
types by ``tick.py``.

::

    dst_gap=skip:      ── 01:59:59 ┤├ 03:00:00 ──           02:30 is void, as if at 03:30
    dst_fold=first:    ── 01:00 … 01:59:59 ┤├ 01:00 … ──    the second 01:30 is void
    dst_fold=second:   the first 01:30 is void
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.clock import from_us
from app.domain.schedule import DstFold
from app.engine.transitions import Transition, TransitionKind, list_transitions
from app.engine.wall_clock import LAST_AT, WallClock, ceil_second, list_walls_us

# No jump of a clock is wider, so no void time lies farther from its jump. And no two jumps of a
# zone since 1970 are nearer to each other than both are wide, so their void times do not mix.
_REACH = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)


class LeftOutKind(StrEnum):
    """Why a local time is void."""

    GAP = "gap"  # it does not exist, and dst_gap=skip
    FOLD = "fold"  # it is the one of two equal times that dst_fold does not choose


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A void local time: ``wall`` is naive, what the zone's clocks would show or do show.

    ``at`` (aware, UTC) is its place in time. In a fold, the instant at which the clocks show
    ``wall``; in a gap, the one at which they would have shown it had they not jumped, which is as
    far after the jump as ``wall`` lies behind the gap's beginning.
    """

    at: datetime
    wall: datetime
    kind: LeftOutKind


def find_left_out(clock: WallClock, begin: datetime, end: datetime) -> tuple[LeftOut, ...]:
    """List a clock's void times from one aware UTC instant to another, both included, by ``at``.

    A void time whose ``at`` is also an instant of the clock is not listed: that instant has its
    run.
    """
    end = min(end, LAST_AT)
    return tuple(
        left_out
        for jump in list_transitions(clock.zone, begin - _REACH, end + _REACH)
        for left_out in _at_jump(clock, jump, begin=begin, end=end)
    )


def _at_jump(
    clock: WallClock, jump: Transition, *, begin: datetime, end: datetime
) -> Iterator[LeftOut]:
    offset = _void_offset(clock, jump)
    if offset is None:
        return
    for at_us in _void_us(clock, jump, offset=offset, begin=begin, end=end):
        at = from_us(at_us)
        wall = at.replace(tzinfo=None) + offset
        yield LeftOut(at=at, wall=wall, kind=LeftOutKind(jump.kind))


def _void_us(
    clock: WallClock, jump: Transition, *, offset: timedelta, begin: datetime, end: datetime
) -> list[int]:
    """List where a jump's local times lie by clocks of ``offset``, without the clock's instants."""
    low = max(jump.first_wall, ceil_second(begin) + offset)
    high = min(jump.end_wall, ceil_second(end + _INSTANT) + offset)
    if low >= high:
        return []
    void = list_walls_us(clock.pattern, low, high, offset=offset)
    if not void:
        return []
    taken = set(clock.list_us(from_us(void[0]), from_us(void[-1])))
    return [at_us for at_us in void if at_us not in taken]


def _void_offset(clock: WallClock, jump: Transition) -> timedelta | None:
    """Return the offset at which a jump's local times are void; None if all of them run."""
    if jump.kind is TransitionKind.GAP:
        return jump.offset_before if clock.skips_gaps else None
    match clock.fold:
        case DstFold.FIRST:
            return jump.offset_after
        case DstFold.SECOND:
            return jump.offset_before
        case _:
            return None
