"""A proof of the ledger as the API and the command line answer it."""

from pydantic import BaseModel, Field

from app.domain.clock import from_us
from app.engine.audit_walk import Audit
from app.engine.reconciliation import DuplicateKind, Finding
from app.engine.rules_in_force import FIRST_US, LAST_US, Span
from app.schemas.times import show_instant

_NAMED = "The first 100; the count beside it is exact."


class UnaccountedAnswer(BaseModel):
    """Instants that a rule named and that have no row: one, or some that follow one another."""

    job_id: str = Field(examples=["daily-report"])
    revision: int | None = Field(examples=[3], description="The job's revision whose rule it is.")
    scheduled_for: str | None = Field(
        examples=["2026-11-20T18:00:00+09:00"], description="The first of them."
    )
    until: str | None = Field(description="The last of them.")
    count: int = Field(examples=[1])


class DuplicateAnswer(UnaccountedAnswer):
    """Rows that stand for an instant which has its row already, or which no rule named."""

    kind: DuplicateKind = Field(
        description="second_row: the instant has another row. unexpected_row: no rule in force "
        "named it. stretch_count: a row that stands for many counts too many. beyond_cursor: the "
        "job has not come so far."
    )


class UnreadableAnswer(BaseModel):
    """A revision whose instants cannot be recomputed."""

    job_id: str
    revision: int
    problem: str = Field(examples=["the stored schedule cannot be read"])


class VerifyAnswer(BaseModel):
    """Whether every due instant has its row, and has it once."""

    proven: bool = Field(
        description="Whether all that was asked for was looked at, nothing is unaccounted for and "
        "nothing is there twice."
    )
    expected: int = Field(description="How many instants the rules in force named.")
    accounted: int = Field(description="How many of them have their row.")
    unaccounted_count: int
    unaccounted: list[UnaccountedAnswer] = Field(description=_NAMED)
    duplicates_count: int
    duplicates: list[DuplicateAnswer] = Field(description=_NAMED)
    unreadable_count: int
    unreadable: list[UnreadableAnswer] = Field(
        description=f"Revisions that cannot be recomputed; their rows are not judged. {_NAMED}"
    )
    overdue_count: int = Field(
        description="Instants that are due and that the scheduler has not come to. Not among the "
        "expected ones: it accounts for them when it does."
    )
    overdue_since: str | None
    since: str | None = Field(serialization_alias="from", description="null: from the beginning")
    until: str | None = Field(serialization_alias="to", description="null: all there is")
    pruned_until: str | None = Field(
        description="Retention has removed rows up to here, of the job where it came farthest. "
        "What it has removed of a job is not looked at."
    )
    jobs: int
    revisions: int
    complete: bool = Field(
        description="False if the time for one request was over. Then ask again with `after`."
    )
    next_after: str | None = Field(
        description="The last job looked at, if the answer is not complete."
    )
    unfinished_job: str | None = Field(
        description="The job at which the time was over. If `next_after` is null, it alone needs "
        "longer: ask for a shorter span."
    )
    seconds: float


def to_verify_answer(audit: Audit, span: Span, zone: str) -> VerifyAnswer:
    """Show a proof of a span; times are shown in ``zone``."""
    tally = audit.tally
    return VerifyAnswer(
        proven=audit.complete and tally.is_clean,
        expected=tally.expected,
        accounted=tally.accounted,
        unaccounted_count=tally.unaccounted_count,
        unaccounted=[UnaccountedAnswer(**_fields(found, zone)) for found in tally.unaccounted],
        duplicates_count=tally.duplicates_count,
        duplicates=[
            DuplicateAnswer(**_fields(found, zone), kind=found.kind)
            for found in tally.duplicates
            if found.kind is not None
        ],
        unreadable_count=tally.unreadable_count,
        unreadable=[
            UnreadableAnswer(job_id=one.job_id, revision=one.revision, problem=one.problem)
            for one in tally.unreadable
        ],
        overdue_count=audit.overdue_count,
        overdue_since=show_instant(audit.overdue_since, zone),
        since=_bound(span.after_us, zone),
        until=_bound(span.until_us, zone),
        pruned_until=show_instant(audit.pruned_until, zone),
        jobs=audit.jobs,
        revisions=audit.revisions,
        complete=audit.complete,
        next_after=None if audit.complete else audit.last_job,
        unfinished_job=audit.unfinished_job,
        seconds=round(audit.seconds, 3),
    )


def _bound(us: int, zone: str) -> str | None:
    """Show an end of the span as it was asked for; None: it has none."""
    return None if us in {FIRST_US, LAST_US} else show_instant(from_us(us + 1), zone)


def _fields(found: Finding, zone: str) -> dict[str, object]:
    return {
        "job_id": found.job_id,
        "revision": found.revision,
        "scheduled_for": show_instant(from_us(found.first_us), zone),
        "until": show_instant(from_us(found.last_us), zone),
        "count": found.count,
    }
