"""Occurrences: the next instants of a schedule, and what the zone's clock does to each.

What runs and when is asked of the trigger alone; this module only explains it. Imports ``domain``,
``triggers.py`` and ``transitions.py``; called by the services and the command line.

Instants are aware and in UTC; a ``wall`` is naive, what the zone's clocks show.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Schedule
from app.engine.crontab import CrontabPattern
from app.engine.transitions import Transition, TransitionKind, list_transitions, walls_inside
from app.engine.triggers import CronPattern, ScheduleTrigger, build_trigger, check_fires
from app.engine.wall_clock import LAST_YEAR, WallPattern

# Dropped local times listed in one preview; more are counted.
DROPPED_MAX = 100
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(LAST_YEAR, 12, 31, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)


class NoteCode(StrEnum):
    """What the zone's clock did to an occurrence, or to a local time that has none."""

    GAP_RUN_AFTER = "gap_run_after"  # moved to the end of the gap
    GAP_SHIFT = "gap_shift"  # moved as far as the clock jumped
    GAP_SKIP = "gap_skip"  # dropped, as dst_gap=skip says
    GAP_ELAPSED = "gap_elapsed"  # dropped, because the rule follows elapsed time
    FOLD_FIRST = "fold_first"  # the first of two equal local times
    FOLD_SECOND = "fold_second"
    FOLD_BOTH_FIRST = "fold_both_first"  # the first of two that both run
    FOLD_BOTH_SECOND = "fold_both_second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A remark on one occurrence; ``wall`` is the local time the rule names."""

    code: NoteCode
    wall: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One instant of a schedule."""

    at: datetime
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A local time of the rule that does not exist and does not run; the clock jumps at ``at``."""

    wall: datetime
    at: datetime
    code: NoteCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a schedule does next.

    ``begin`` is where one began to look. ``dropped`` lie between ``begin`` and the last occurrence,
    ``dropped_omitted`` more are only counted.
    """

    schedule: Schedule
    begin: datetime
    occurrences: tuple[Occurrence, ...]
    dropped: tuple[Dropped, ...]
    dropped_omitted: int


def preview_schedule(schedule: Schedule, *, begin: datetime, count: int) -> Preview:
    """Preview a schedule set at ``begin`` (aware): its first ``count`` instants from there on.

    Raises ``InvalidScheduleError`` where creating a job would.
    """
    check_calendar(begin)
    trigger = build_trigger(schedule, anchor=begin)
    check_fires(trigger, after=begin - _INSTANT)
    return preview_trigger(trigger, begin=begin, count=count)


def check_calendar(instant: datetime) -> None:
    """Refuse an aware instant outside the years that are looked at (``InvalidScheduleError``)."""
    if not EARLIEST <= instant <= LATEST:
        raise InvalidScheduleError(
            f"from and until must lie between the years {EARLIEST.year} and {LATEST.year}; "
            "calendars beyond are guesses"
        )


def preview_trigger(trigger: ScheduleTrigger, *, begin: datetime, count: int) -> Preview:
    """Preview a trigger from an aware instant on; there may be fewer instants, or none."""
    instants: list[datetime] = []
    at = trigger.next_from(begin)
    while at is not None and len(instants) < count:
        instants.append(at)
        at = trigger.next_after(at)
    return _explain(trigger.schedule, begin=begin, instants=instants)


def pattern_of(schedule: Schedule) -> WallPattern | None:
    """Return the wall clock times of a schedule's rule; None for a rule that has none."""
    match schedule.rule:
        case CronRule(fields=fields):
            return CronPattern(fields)
        case CrontabRule(expression=expression):
            return CrontabPattern(expression)
        case _:
            return None


def dropped_by(schedule: Schedule, pattern: WallPattern) -> NoteCode | None:
    """Tell why the schedule drops local times that do not exist; None if it moves them."""
    if pattern.follows_elapsed_time:
        return NoteCode.GAP_ELAPSED
    return NoteCode.GAP_SKIP if schedule.dst_gap is DstGap.SKIP else None


def _explain(schedule: Schedule, *, begin: datetime, instants: list[datetime]) -> Preview:
    pattern = pattern_of(schedule)
    occurrences = tuple(Occurrence(at=at) for at in instants)
    dropped: list[Dropped] = []
    omitted = 0
    if pattern is not None and instants:
        # The first pass of a fold lies before its jump: the jumps just behind the end matter too.
        margin = timedelta(days=1)
        jumps = list_transitions(schedule.timezone, begin - margin, instants[-1] + margin)
        occurrences = _annotate(schedule, pattern, instants, jumps)
        crossed = [jump for jump in jumps if begin <= jump.at <= instants[-1]]
        dropped, omitted = _drop(schedule, pattern, crossed)
    return Preview(
        schedule=schedule,
        begin=begin,
        occurrences=occurrences,
        dropped=tuple(dropped),
        dropped_omitted=omitted,
    )


def _annotate(
    schedule: Schedule,
    pattern: WallPattern,
    instants: list[datetime],
    jumps: list[Transition],
) -> tuple[Occurrence, ...]:
    """Note at each instant what the jumps next to it did; both lists are in order."""
    annotated: list[Occurrence] = []
    passed = 0
    for at in instants:
        while passed < len(jumps) and jumps[passed].at + jumps[passed].width <= at:
            passed += 1
        near = []
        for jump in jumps[passed:]:
            if at < jump.at - jump.width:
                break
            near.append(jump)
        notes = (_note(schedule, pattern, at, jump) for jump in near)
        annotated.append(Occurrence(at=at, notes=tuple(note for note in notes if note)))
    return tuple(annotated)


def _note(schedule: Schedule, pattern: WallPattern, at: datetime, jump: Transition) -> Note | None:
    if jump.kind is TransitionKind.GAP:
        return _note_gap(schedule, pattern, at, jump)
    return _note_fold(schedule, pattern, at, jump)


def _note_gap(
    schedule: Schedule, pattern: WallPattern, at: datetime, jump: Transition
) -> Note | None:
    if at < jump.at or dropped_by(schedule, pattern) is not None:
        return None
    if schedule.dst_gap is DstGap.RUN_AFTER:
        if at > jump.at:
            return None
        wall = pattern.first_from(jump.first_wall)
        code = NoteCode.GAP_RUN_AFTER
        return Note(code=code, wall=wall) if wall is not None and wall < jump.end_wall else None
    meant = at.replace(tzinfo=None) + jump.offset_before
    if pattern.first_from(meant) != meant:
        return None
    return Note(code=NoteCode.GAP_SHIFT, wall=meant)


def _note_fold(
    schedule: Schedule, pattern: WallPattern, at: datetime, jump: Transition
) -> Note | None:
    is_first = at < jump.at
    offset = jump.offset_before if is_first else jump.offset_after
    wall = at.replace(tzinfo=None) + offset
    if not jump.first_wall <= wall < jump.end_wall:
        return None
    if pattern.follows_elapsed_time or schedule.dst_fold is DstFold.BOTH:
        code = NoteCode.FOLD_BOTH_FIRST if is_first else NoteCode.FOLD_BOTH_SECOND
    else:
        code = NoteCode.FOLD_FIRST if is_first else NoteCode.FOLD_SECOND
    return Note(code=code, wall=wall)


def _drop(
    schedule: Schedule, pattern: WallPattern, jumps: Iterable[Transition]
) -> tuple[list[Dropped], int]:
    code = dropped_by(schedule, pattern)
    dropped: list[Dropped] = []
    omitted = 0
    if code is None:
        return dropped, omitted
    for jump in jumps:
        if jump.kind is TransitionKind.FOLD or not is_within(schedule, jump.at):
            continue
        walls, more = walls_inside(pattern, jump, limit=DROPPED_MAX - len(dropped))
        dropped += (Dropped(wall=wall, at=jump.at, code=code) for wall in walls)
        omitted += more
    return dropped, omitted


def is_within(schedule: Schedule, at: datetime) -> bool:
    """Tell whether an instant lies between a schedule's ``start_at`` and ``end_at``."""
    after_start = schedule.start_at is None or schedule.start_at <= at
    return after_start and (schedule.end_at is None or at <= schedule.end_at)
