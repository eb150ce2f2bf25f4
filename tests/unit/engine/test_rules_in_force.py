"""From stored revisions to the rule of each time, epoch by epoch."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.clock import to_us
from app.domain.ids import JobId
from app.domain.job import JobState
from app.engine.reconciliation import EpochPart, Tally
from app.engine.rules_in_force import FIRST_US, LAST_US, RulesInForce, Span
from app.engine.triggers import TriggerCache, TriggerCacheOptions
from app.repositories.audit_repository import JobHead, StoredRevision
from app.repositories.definition_codec import dump_delivery, dump_policy, dump_schedule
from tests.support.builders import make_delivery, make_policy
from tests.support.schedules import interval_of

JOB = JobId("job")
ANCHOR_US = to_us(datetime(2026, 6, 1, tzinfo=UTC))
SECOND = 1_000_000


def head(**changes: Any) -> JobHead:
    values: dict[str, Any] = {
        "id": JOB, "state": JobState.ACTIVE, "revision": 1, "clock_epoch": 0, "cursor_us": 900,
        "next_run_us": 1000, "pruned_us": None, **changes,
    }  # fmt: skip
    return JobHead(**values)


def revision(number: int, since: int, before: int, **changes: Any) -> StoredRevision:
    state = changes.get("state", JobState.ACTIVE)
    idle = state in {JobState.PAUSED, JobState.BROKEN}
    values: dict[str, Any] = {
        "job_id": JOB, "revision": number, "state": JobState.ACTIVE,
        "schedule": dump_schedule(interval_of(timedelta(seconds=1))),
        "policy": dump_policy(make_policy()) if idle else None,
        "delivery": dump_delivery(make_delivery()) if idle else None,
        "anchor_us": ANCHOR_US, "clock_epoch": 0, "since_us": since, "before_us": before,
        **changes,
    }  # fmt: skip
    return StoredRevision(**values)


def lay_out(
    of: JobHead, *revisions: StoredRevision, span: Span | None = None, at_once: int = 100
) -> tuple[list[EpochPart], Tally]:
    rules = RulesInForce(of, span or Span(), TriggerCache(TriggerCacheOptions()))
    tally, parts = Tally(), []
    for start in range(0, max(len(revisions), 1), at_once):
        page = revisions[start : start + at_once]
        complete = start + at_once >= len(revisions)
        parts += rules.lay_out(page, tally, complete=complete)
    return parts, tally


def drawn(parts: list[EpochPart]) -> list[tuple[int, int, int, str]]:
    """Write segments as epoch, after, until and what is there."""
    rows = []
    for part in parts:
        for segment in part.segments:
            kind = "nothing" if segment.known else "anything"
            if segment.rule is not None:
                kind = "void too" if segment.rule.has_void else "instants"
            rows.append((part.clock_epoch, segment.after_us, segment.until_us, kind))
    return rows


LIFE = (
    revision(1, 100, 100),
    revision(2, 200, 200, state=JobState.PAUSED),
    revision(3, 350, 300),
    revision(4, 400, 400, state=JobState.DELETED),
    revision(5, 500, 410, clock_epoch=1),
)
LAID_OUT = [
    (0, FIRST_US, 100, "nothing"),
    (0, 100, 200, "void too"),
    (0, 200, 300, "instants"),
    (0, 300, 350, "nothing"),
    (0, 350, 400, "void too"),
    (0, 400, 410, "nothing"),
    (0, 410, LAST_US, "nothing"),
    (1, FIRST_US, 500, "nothing"),
    (1, 500, 900, "void too"),
]


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_each_revision_answers_up_to_the_next(at_once: int):
    """Spans reach from since to the next one's before, the last one's to the cursor."""
    parts, tally = lay_out(head(revision=5, clock_epoch=1), *LIFE, at_once=at_once)
    assert drawn(parts) == LAID_OUT
    assert tally.unreadable == []


def test_a_span_cuts_what_is_looked_at():
    """What lies outside the span, or was removed by retention, is left out."""
    span = Span(after_us=150, until_us=380)
    of = head(revision=5, clock_epoch=1)
    expected = [
        (0, 150, 200, "void too"),
        (0, 200, 300, "instants"),
        (0, 300, 350, "nothing"),
        (0, 350, 380, "void too"),
        (1, 150, 380, "nothing"),
    ]
    assert drawn(lay_out(of, *LIFE, span=span)[0]) == expected
    pruned = head(revision=5, clock_epoch=1, pruned_us=360)
    assert drawn(lay_out(pruned, *LIFE, span=span)[0])[0] == (0, 360, 380, "void too")


def test_a_pause_that_reaches_into_the_span_is_whole():
    """The background looks at a pause from its beginning, but for what retention removed."""
    span = Span(after_us=250, until_us=380, whole_idle=True)
    of = head(revision=5, clock_epoch=1)
    assert drawn(lay_out(of, *LIFE, span=span)[0])[0] == (0, 200, 300, "instants")
    pruned = head(revision=5, clock_epoch=1, pruned_us=220)
    assert drawn(lay_out(pruned, *LIFE, span=span)[0])[0] == (0, 220, 300, "instants")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"schedule": "{}"},
        {"schedule": dump_schedule(interval_of(timedelta(seconds=1))).replace("Asia/Tokyo", "No")},
        {"state": JobState.BROKEN, "policy": "{}"},
        {"state": JobState.PAUSED, "delivery": "{}"},
        {"state": JobState.BROKEN, "delivery": None},
    ],
)
def test_what_cannot_be_recomputed_is_unknown(spoilt: dict[str, Any]):
    """A revision whose instants nobody can tell is named, and anything may be in its time."""
    parts, tally = lay_out(head(revision=2), revision(1, 100, 100, **spoilt), revision(2, 200, 200))
    assert drawn(parts)[1:] == [(0, 100, 200, "anything"), (0, 200, 900, "void too")]
    assert [(one.job_id, one.revision) for one in tally.unreadable] == [(JOB, 1)]


def test_an_unreadable_revision_of_no_time_is_not_named():
    """A job that broke and stays so has nothing that could be recomputed."""
    broken = revision(2, 900, 900, state=JobState.BROKEN, schedule="{}")
    parts, tally = lay_out(head(revision=2), revision(1, 100, 100), broken)
    assert drawn(parts)[1:] == [(0, 100, 900, "void too")]
    assert tally.unreadable == []


def test_a_revision_that_is_not_stored_is_named():
    """Where revisions are missing, in the middle, at the end or all, the time is unknown."""
    parts, tally = lay_out(head(revision=3), revision(1, 100, 100), revision(3, 200, 200))
    assert drawn(parts)[1:] == [(0, 100, 200, "anything"), (0, 200, 900, "void too")]
    assert [one.revision for one in tally.unreadable] == [2]
    parts, tally = lay_out(head(revision=3), revision(1, 100, 100), revision(2, 200, 200))
    assert drawn(parts)[1:] == [(0, 100, 200, "void too"), (0, 200, 900, "anything")]
    assert [one.revision for one in tally.unreadable] == [3]
    parts, tally = lay_out(head(revision=3))
    assert drawn(parts) == [(0, FIRST_US, 900, "anything")]
    assert [one.problem for one in tally.unreadable] == ["it is not stored"]


def test_deleted_and_finished_revisions_name_nothing():
    """Were there time between such a revision and the next, no row might lie in it."""
    gone = revision(2, 200, 200, state=JobState.FINISHED)
    parts, _ = lay_out(head(revision=3), revision(1, 100, 100), gone, revision(3, 300, 300))
    assert drawn(parts)[2] == (0, 200, 300, "nothing")
