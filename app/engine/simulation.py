"""Simulation: what a schedule does at every jump of its zone's clock.

Imports ``domain``, ``occurrences.py`` and ``transitions.py``; called by the services.
Work is bounded: at most ``WALLS_MAX`` local times are listed for a transition, more are counted.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.domain.schedule import DstFold, DstGap, Schedule
from app.engine.occurrences import dropped_by, is_within, pattern_of
from app.engine.transitions import Transition, TransitionKind, list_transitions, walls_inside
from app.engine.triggers import build_trigger
from app.engine.wall_clock import WallPattern
from app.engine.zones import load_zone

WALLS_MAX = 100


class Fate(StrEnum):
    """What becomes of one local time at a transition."""

    RUN_AFTER = "run_after"  # runs at the end of the gap
    SHIFTED = "shifted"  # runs as much later as the clock jumps
    SKIPPED = "skipped"
    FIRST = "once_first"  # runs once, at the first of two equal local times
    SECOND = "once_second"
    TWICE = "twice"
    OUTSIDE = "outside"  # before start_at or after end_at


@dataclass(frozen=True, slots=True, kw_only=True)
class WallFate:
    """A local time of the schedule, what becomes of it, and at which instants it runs."""

    wall: datetime
    fate: Fate
    runs_at: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTransition:
    """One transition with the local times of the schedule that it touches, in order.

    ``omitted`` more are only counted.
    """

    transition: Transition
    walls: tuple[WallFate, ...]
    omitted: int


def simulate_schedule(
    schedule: Schedule, *, begin: datetime, end: datetime
) -> list[SimulatedTransition]:
    """Tell what a schedule does at each of its zone's transitions between two aware instants.

    Intervals and one-off dates are instants by themselves, so that no transition touches them.
    Raises ``InvalidScheduleError`` for a malformed rule or an unknown zone.
    """
    build_trigger(schedule, anchor=begin)
    pattern = pattern_of(schedule)
    return [
        _simulate(schedule, pattern, transition)
        for transition in list_transitions(schedule.timezone, begin, end)
    ]


def simulate_year(schedule: Schedule, year: int) -> list[SimulatedTransition]:
    """Tell what a schedule does at each transition of a year of its zone's calendar.

    Raises as ``simulate_schedule`` does.
    """
    zone = load_zone(schedule.timezone)
    begin = datetime(year, 1, 1, tzinfo=zone).astimezone(UTC)
    end = datetime(year + 1, 1, 1, tzinfo=zone).astimezone(UTC) - timedelta(microseconds=1)
    return simulate_schedule(schedule, begin=begin, end=end)


def _simulate(
    schedule: Schedule, pattern: WallPattern | None, transition: Transition
) -> SimulatedTransition:
    if pattern is None:
        return SimulatedTransition(transition=transition, walls=(), omitted=0)
    walls, omitted = walls_inside(pattern, transition, limit=WALLS_MAX)
    settle = _settle_gap if transition.kind is TransitionKind.GAP else _settle_fold
    fates = (settle(schedule, pattern, transition, wall) for wall in walls)
    return SimulatedTransition(transition=transition, walls=tuple(fates), omitted=omitted)


def _settle_gap(
    schedule: Schedule, pattern: WallPattern, transition: Transition, wall: datetime
) -> WallFate:
    if dropped_by(schedule, pattern) is not None:
        inside = is_within(schedule, transition.at)
        return WallFate(wall=wall, fate=Fate.SKIPPED if inside else Fate.OUTSIDE, runs_at=())
    if schedule.dst_gap is DstGap.SHIFT:
        fate, at = Fate.SHIFTED, _instant(wall, transition.offset_before)
    else:
        fate, at = Fate.RUN_AFTER, transition.at
    if not is_within(schedule, at):
        return WallFate(wall=wall, fate=Fate.OUTSIDE, runs_at=())
    return WallFate(wall=wall, fate=fate, runs_at=(at,))


def _settle_fold(
    schedule: Schedule, pattern: WallPattern, transition: Transition, wall: datetime
) -> WallFate:
    fold = DstFold.BOTH if pattern.follows_elapsed_time else schedule.dst_fold
    passes = {
        Fate.FIRST: _instant(wall, transition.offset_before),
        Fate.SECOND: _instant(wall, transition.offset_after),
    }
    if fold is not DstFold.BOTH:
        del passes[Fate.SECOND if fold is DstFold.FIRST else Fate.FIRST]
    runs = {fate: at for fate, at in passes.items() if is_within(schedule, at)}
    match list(runs):
        case []:
            fate = Fate.OUTSIDE
        case [only]:
            fate = only
        case _:
            fate = Fate.TWICE
    return WallFate(wall=wall, fate=fate, runs_at=tuple(runs.values()))


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)
