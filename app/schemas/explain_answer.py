"""Why a job did, did not, will or will not run at a time, as the API answers it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from app.domain.catalogue import reason_entry
from app.domain.execution import Reason
from app.domain.job import Change
from app.domain.revision import Revision
from app.domain.schedule import Schedule
from app.engine.explanation import DowntimeKind, Explanation, Verdict, WaitKind
from app.engine.left_out import LeftOutKind
from app.engine.occurrences import NoteCode
from app.schemas.bilingual import Words
from app.schemas.execution_answer import ExecutionAnswer, to_execution
from app.schemas.reason_answer import Explanation as ReasonExplanation
from app.schemas.reason_answer import to_explanation
from app.schemas.times import show_instant
from app.schemas.words import describe_schedule
from app.schemas.words.explaining import tell_story
from app.schemas.words.notes import describe_note
from app.schemas.words.story import Story, make_story

_MILLISECOND = timedelta(milliseconds=1)


class RevisionFact(BaseModel):
    """A change of the job, and who asked for it."""

    number: int
    change: Change
    changed_at: str = Field(examples=["2026-11-21T18:00:00+09:00"])
    actor: str | None = Field(description="Null if nobody asked: the service did it by itself.")


class PauseFact(BaseModel):
    """A pause of the job."""

    paused_at: str
    paused_by: str | None
    resumed_at: str | None = Field(description="Null while the job is paused.")
    resumed_by: str | None


class DowntimeFact(BaseModel):
    """A span in which the service could do nothing."""

    kind: DowntimeKind = Field(
        description="stopped: the service did not run; clock_set_forward: the machine's clock "
        "jumped over the span."
    )
    from_: str = Field(alias="from", description="The last sign of life before.")
    until: str = Field(description="The next start.")


class WaitFact(BaseModel):
    """What a queued execution waits for."""

    kind: WaitKind
    until: str | None
    behind: str | None = Field(description="The execution that has the slot.")


class MismatchFact(BaseModel):
    """A field of the schedule that the time asked about does not fit."""

    field: str = Field(examples=["hour"])
    wanted: str = Field(examples=["9"])
    found: str = Field(examples=["10"])


class DstFact(BaseModel):
    """What a jump of the zone's clock has to do with it."""

    kind: LeftOutKind = Field(description="gap: a local time does not exist; fold: it comes twice.")
    local: str = Field(examples=["2026-03-08T02:30:00"], description="Without an offset.")
    code: NoteCode | None
    note: Words | None


class StretchFact(BaseModel):
    """Many instants in a row that share one entry of the ledger."""

    from_: str = Field(alias="from")
    until: str
    count: int


class Facts(BaseModel):
    """What the sentence rests on; null is what does not apply or is not known."""

    due_at: str | None = Field(description="The time of the schedule that is spoken of.")
    previous_due: str | None = Field(description="The schedule's time before.")
    next_due: str | None = Field(description="The schedule's time after.")
    schedule: Words | None = Field(description="The schedule in force then, in words.")
    revision: RevisionFact | None = Field(description="The revision of the job in force then.")
    schedule_changed: RevisionFact | None = Field(
        description="The first change of the schedule since."
    )
    mismatches: list[MismatchFact] = Field(
        description="Why the schedule does not name the time, as far as single fields tell."
    )
    execution: ExecutionAnswer | None
    reason: Reason | None
    explanation: ReasonExplanation | None = Field(description="What the reason means.")
    lateness_ms: int | None = Field(
        description="Start minus due time; for a missed one, when it was found minus due time."
    )
    starts_at: str | None = Field(description="When it will start, jitter included.")
    wait: WaitFact | None
    pause: PauseFact | None
    downtime: DowntimeFact | None
    overlap_execution_id: str | None = Field(
        description="The execution that was in the way, or that this one made way for."
    )
    merged_into_execution_id: str | None = Field(description="The execution that stands for it.")
    ended_by: RevisionFact | None = Field(description="The deletion of the job.")
    dst: DstFact | None
    stretch: StretchFact | None
    other_execution_ids: list[str] = Field(
        description="Runs within a minute of it that the schedule did not ask for."
    )


class ExplainAnswer(BaseModel):
    """Why a job did, did not, will or will not run at a time."""

    job_id: str
    at: str = Field(examples=["2026-11-22T09:00:00+09:00"], description="What was asked about.")
    at_utc: str = Field(examples=["2026-11-22T00:00:00+00:00"])
    verdict: Verdict = Field(examples=["skipped"])
    sentence: Words
    facts: Facts


def to_explain(told: Explanation) -> ExplainAnswer:
    """Show an explanation."""
    story = make_story(told)
    begin = told.findings.asked.begin
    en, ja = tell_story(story)
    return ExplainAnswer(
        job_id=told.findings.standing.id,
        at=_local(story, begin),
        at_utc=begin.astimezone(UTC).isoformat(),
        verdict=told.verdict,
        sentence=Words(en=en, ja=ja),
        facts=Facts(**_rule_facts(story), **_run_facts(story), **_other_facts(story)),
    )


def _rule_facts(story: Story) -> dict[str, Any]:
    told = story.told
    match, revision = told.match, told.findings.revision
    return {
        "due_at": None if told.verdict is Verdict.CLOCK_CHANGE else _maybe(story, told.due),
        "previous_due": _maybe(story, None if match is None else match.previous),
        "next_due": _maybe(story, None if match is None else match.following),
        "schedule": _words(None if revision is None else revision.schedule)
        if match is not None
        else None,
        "revision": _revision(story, revision),
        "schedule_changed": _revision(story, story.around.changed),
        "mismatches": [
            MismatchFact(field=one.field, wanted=one.wanted, found=one.found)
            for one in (() if match is None else match.mismatches)
        ],
        "dst": _dst(story),
    }


def _run_facts(story: Story) -> dict[str, Any]:
    told = story.told
    execution = None if told.entry is None else told.entry.execution
    reason = None if execution is None else execution.reason
    late = told.lateness
    will_run = told.verdict is Verdict.WILL_RUN
    return {
        "execution": None if execution is None else to_execution(execution, story.zone),
        "reason": reason,
        "explanation": None if reason is None else to_explanation(reason_entry(reason)),
        "lateness_ms": None if late is None else late // _MILLISECOND,
        "starts_at": _local(story, story.when + story.jitter) if will_run else None,
        "stretch": _stretch(story),
    }


def _other_facts(story: Story) -> dict[str, Any]:
    around = story.around
    return {
        "wait": _wait(story),
        "pause": _pause(story),
        "downtime": _downtime(story),
        "overlap_execution_id": around.overlap,
        "merged_into_execution_id": around.merged_into,
        "ended_by": _revision(story, around.ended_by),
        "other_execution_ids": list(around.others),
    }


def _dst(story: Story) -> DstFact | None:
    match, asked = story.told.match, story.told.findings.asked
    if match is not None and match.void is not None:
        return DstFact(
            kind=match.void.kind, local=match.void.wall.isoformat(), code=None, note=None
        )
    if match is not None and match.notes:
        code, wall = match.notes[0].code, match.notes[0].wall
        en, ja = describe_note(code, wall)
        kind = LeftOutKind.GAP if code.startswith("gap") else LeftOutKind.FOLD
        return DstFact(kind=kind, local=wall.isoformat(), code=code, note=Words(en=en, ja=ja))
    if asked.wall is None or not (asked.missing or asked.double):
        return None
    kind = LeftOutKind.GAP if asked.missing else LeftOutKind.FOLD
    return DstFact(kind=kind, local=asked.wall.isoformat(), code=None, note=None)


def _stretch(story: Story) -> StretchFact | None:
    entry = story.told.entry
    if entry is None or entry.execution.scheduled_until is None:
        return None
    begin, end = entry.execution.scheduled_for, entry.execution.scheduled_until
    fields = {"from": _local(story, begin), "until": _local(story, end)}
    return StretchFact(**fields, count=entry.execution.instant_count)


def _wait(story: Story) -> WaitFact | None:
    wait = story.around.wait
    if wait is None:
        return None
    return WaitFact(kind=wait.kind, until=_maybe(story, wait.until), behind=wait.behind)


def _pause(story: Story) -> PauseFact | None:
    pause = story.around.pause
    if pause is None:
        return None
    return PauseFact(
        paused_at=_local(story, pause.began.changed_at),
        paused_by=pause.began.actor,
        resumed_at=None if pause.ended is None else _local(story, pause.ended.changed_at),
        resumed_by=None if pause.ended is None else pause.ended.actor,
    )


def _downtime(story: Story) -> DowntimeFact | None:
    down = story.around.downtime
    if down is None:
        return None
    fields = {"from": _local(story, down.begin), "until": _local(story, down.end)}
    return DowntimeFact(kind=down.kind, **fields)


def _revision(story: Story, revision: Revision | None) -> RevisionFact | None:
    if revision is None:
        return None
    return RevisionFact(
        number=revision.number,
        change=revision.change,
        changed_at=_local(story, revision.changed_at),
        actor=revision.actor,
    )


def _words(schedule: Schedule | None) -> Words | None:
    return None if schedule is None else Words(**describe_schedule(schedule))


def _maybe(story: Story, instant: datetime | None) -> str | None:
    return show_instant(instant, story.zone)


def _local(story: Story, instant: datetime) -> str:
    return show_instant(instant, story.zone) or ""
