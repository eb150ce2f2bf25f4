"""What a schedule will do, as the API answers it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

from pydantic import BaseModel, Field

from app.domain.schedule import Schedule
from app.engine.occurrences import Dropped, NoteCode, Occurrence, Preview
from app.engine.simulation import Fate, SimulatedTransition, WallFate
from app.engine.transitions import TransitionKind
from app.engine.zones import load_zone
from app.schemas.bilingual import Words
from app.schemas.job_answer import wire_status
from app.schemas.words import describe_schedule
from app.schemas.words.notes import (
    Pair,
    describe_fate,
    describe_note,
    describe_state,
    describe_wait,
)
from app.services.schedule_service import JobPreview, JobTransitions


class OccurrenceAnswer(BaseModel):
    """One time at which the schedule fires."""

    scheduled_for_utc: str = Field(examples=["2026-03-08T07:00:00+00:00"])
    scheduled_for_local: str = Field(examples=["2026-03-08T03:00:00-04:00"])
    note: Words | None = Field(description="What the zone's clock did to it, if anything.")
    notes: list[NoteCode] = Field(description="The same, for programs.")


class DroppedAnswer(BaseModel):
    """A local time of the schedule that does not exist and does not run."""

    local: str = Field(examples=["2026-03-08T02:30:00"], description="Without an offset.")
    transition_utc: str = Field(examples=["2026-03-08T07:00:00+00:00"])
    note: Words
    code: NoteCode


class PreviewAnswer(BaseModel):
    """A schedule in words, and its next times."""

    schedule: Words = Field(description="The schedule in words.")
    timezone: str = Field(examples=["America/New_York"])
    first_fires_in: Words | None = Field(
        description="How far off the first occurrence is, from `from` on; null if there is none."
    )
    occurrences: list[OccurrenceAnswer]
    dropped: list[DroppedAnswer] = Field(
        description="Local times up to the last occurrence that the zone's clock jumps over and "
        "that therefore do not run; at most 100."
    )
    dropped_omitted: int = Field(description="How many more there are than are listed.")
    warnings: list[str] = Field(default_factory=list)


class JobNextAnswer(PreviewAnswer):
    """A stored job's next times. Of a job that does not run: what they would be."""

    job_id: str
    status: str = Field(examples=["running"], description="running, paused, completed or broken")
    status_note: Words | None = Field(description="Why none of this will run, if so.")


class WallAnswer(BaseModel):
    """A local time of the schedule at a transition, and what becomes of it."""

    local: str = Field(examples=["2026-03-08T02:30:00"], description="Without an offset.")
    outcome: Fate
    note: Words
    runs_at_utc: list[str]
    runs_at_local: list[str]


class TransitionAnswer(BaseModel):
    """One jump of the zone's clock."""

    at_utc: str = Field(examples=["2026-03-08T07:00:00+00:00"])
    offset_before: str = Field(examples=["-05:00"])
    offset_after: str = Field(examples=["-04:00"])
    kind: TransitionKind = Field(
        description="gap: local times that do not exist; fold: local times that exist twice."
    )
    first_local: str = Field(
        examples=["2026-03-08T02:00:00"], description="The first local time concerned."
    )
    end_local: str = Field(
        examples=["2026-03-08T03:00:00"], description="The first local time after those."
    )
    walls: list[WallAnswer] = Field(description="The schedule's times in between; at most 100.")
    walls_omitted: int = Field(description="How many more there are than are listed.")


class SimulationAnswer(BaseModel):
    """What a schedule does at each transition of its zone."""

    schedule: Words = Field(description="The schedule in words.")
    timezone: str = Field(examples=["America/New_York"])
    from_utc: str
    until_utc: str
    transitions: list[TransitionAnswer]
    warnings: list[str] = Field(default_factory=list)


class JobTransitionsAnswer(BaseModel):
    """One stored job in a report on transitions."""

    job_id: str
    status: str
    timezone: str | None
    schedule: Words | None
    problem: str | None = Field(description="Why nothing can be told.")
    transitions: list[TransitionAnswer]


def to_preview(preview: Preview, warnings: list[str]) -> PreviewAnswer:
    """Show a preview."""
    return PreviewAnswer(**_preview_fields(preview), warnings=warnings)


def to_job_next(found: JobPreview) -> JobNextAnswer:
    """Show a stored job's preview."""
    note = describe_state(found.job.state)
    return JobNextAnswer(
        **_preview_fields(found.preview),
        job_id=found.job.id,
        status=wire_status(found.job.state),
        status_note=None if note is None else _pair(note),
    )


def to_simulation(
    schedule: Schedule,
    transitions: Sequence[SimulatedTransition],
    *,
    begin: datetime,
    end: datetime,
    warnings: list[str],
) -> SimulationAnswer:
    """Show a simulation."""
    return SimulationAnswer(
        schedule=_words(schedule),
        timezone=schedule.timezone,
        from_utc=_utc(begin),
        until_utc=_utc(end),
        transitions=[_transition(found, schedule.timezone) for found in transitions],
        warnings=warnings,
    )


def to_job_transitions(found: JobTransitions) -> JobTransitionsAnswer:
    """Show one job of a report."""
    definition = found.job.definition
    schedule = None if definition is None else definition.schedule
    readable = schedule is not None and found.problem is None
    return JobTransitionsAnswer(
        job_id=found.job.id,
        status=wire_status(found.job.state),
        timezone=None if schedule is None else schedule.timezone,
        schedule=_words(schedule) if schedule is not None and readable else None,
        problem=found.problem,
        transitions=[
            _transition(transition, schedule.timezone)
            for transition in found.transitions
            if schedule is not None
        ],
    )


def _preview_fields(preview: Preview) -> dict[str, object]:
    zone = preview.schedule.timezone
    occurrences = preview.occurrences
    wait = describe_wait(occurrences[0].at - preview.begin) if occurrences else None
    return {
        "schedule": _words(preview.schedule),
        "timezone": zone,
        "first_fires_in": None if wait is None else _pair(wait),
        "occurrences": [_occurrence(occurrence, zone) for occurrence in occurrences],
        "dropped": [_dropped(dropped) for dropped in preview.dropped],
        "dropped_omitted": preview.dropped_omitted,
    }


def _occurrence(occurrence: Occurrence, zone: str) -> OccurrenceAnswer:
    notes = [describe_note(note.code, note.wall) for note in occurrence.notes]
    return OccurrenceAnswer(
        scheduled_for_utc=_utc(occurrence.at),
        scheduled_for_local=_local(occurrence.at, zone),
        note=_pair(notes[0]) if notes else None,
        notes=[note.code for note in occurrence.notes],
    )


def _dropped(dropped: Dropped) -> DroppedAnswer:
    return DroppedAnswer(
        local=dropped.wall.isoformat(),
        transition_utc=_utc(dropped.at),
        note=_pair(describe_note(dropped.code, dropped.wall)),
        code=dropped.code,
    )


def _transition(found: SimulatedTransition, zone: str) -> TransitionAnswer:
    transition = found.transition
    return TransitionAnswer(
        at_utc=_utc(transition.at),
        offset_before=_offset(transition.offset_before),
        offset_after=_offset(transition.offset_after),
        kind=transition.kind,
        first_local=transition.first_wall.isoformat(),
        end_local=transition.end_wall.isoformat(),
        walls=[_wall(wall, zone) for wall in found.walls],
        walls_omitted=found.omitted,
    )


def _wall(found: WallFate, zone: str) -> WallAnswer:
    return WallAnswer(
        local=found.wall.isoformat(),
        outcome=found.fate,
        note=_pair(describe_fate(found.fate)),
        runs_at_utc=[_utc(at) for at in found.runs_at],
        runs_at_local=[_local(at, zone) for at in found.runs_at],
    )


def _words(schedule: Schedule) -> Words:
    return Words(**describe_schedule(schedule))


def _pair(pair: Pair) -> Words:
    return Words(en=pair[0], ja=pair[1])


def _utc(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()


def _local(instant: datetime, zone: str) -> str:
    return instant.astimezone(load_zone(zone)).isoformat()


def _offset(offset: timedelta) -> str:
    """Write an offset as ISO 8601 does: -05:00."""
    return datetime(2000, 1, 1, tzinfo=timezone(offset)).isoformat()[19:]
