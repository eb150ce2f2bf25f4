"""Lays out which revision's rule was in force when, from the revisions as they are stored.

Imports ``domain``, the triggers and the stored rows' types; called by ``auditor.py`` in a thread.

::

    revision     1 active        2 paused     3 active          job's cursor
    epoch 0  ----]---------------]------------]-----------------]
                 since 1         before 2     before 3

A revision answers for the instants after its ``since_us``, up to ``before_us`` of the next one, of
the last one up to the job's cursor. Active: instants and void times. Paused or broken: instants
only, one row for all of them; if its definition cannot be read wholly, nobody could tell them.
Deleted and finished: none. What cannot be recomputed is named, and its rows are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.clock import from_us, to_us
from app.domain.errors import InvalidScheduleError
from app.domain.job import JobState
from app.engine.reconciliation import EpochPart, Rule, Segment, Tally, Unreadable
from app.engine.triggers import TriggerCache
from app.repositories.audit_repository import JobHead, StoredRevision
from app.repositories.definition_codec import (
    UnreadableDefinitionError,
    load_delivery,
    load_policy,
    load_schedule,
)

# The whole of time, as far as rules are followed and instants can be written.
FIRST_US = 0
LAST_US = to_us(datetime(9999, 1, 1, tzinfo=UTC))

_IDLE = frozenset({JobState.PAUSED, JobState.BROKEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The instants that are looked at: after one moment up to and including another.

    ``whole_idle``: a pause that ends in the span is looked at from its beginning, since its
    instants get their row at its end.
    """

    after_us: int = FIRST_US
    until_us: int = LAST_US
    whole_idle: bool = False


class RulesInForce:
    """Lays out one job; takes its revisions in order, some at a time."""

    def __init__(self, head: JobHead, span: Span, triggers: TriggerCache) -> None:
        self.head = head
        self.revisions = 0
        self._span = span
        self._after_us = max(span.after_us, head.pruned_us or FIRST_US)
        self._triggers = triggers
        self._held: StoredRevision | None = None
        self._epoch: int | None = None
        self._at = self._after_us
        self._segments: list[Segment] = []
        self._parts: list[EpochPart] = []

    @property
    def last_revision(self) -> int:
        """Tell the last revision that was taken; 0 before the first."""
        return 0 if self._held is None else self._held.revision

    @property
    def ongoing(self) -> Rule | None:
        """Tell the rule by which an active job goes on behind its cursor, once all is laid out."""
        if self._held is None or self._held.state is not JobState.ACTIVE:
            return None
        rule = self._rule(self._held)
        return None if isinstance(rule, str) else rule

    def lay_out(
        self, revisions: Sequence[StoredRevision], tally: Tally, *, complete: bool
    ) -> list[EpochPart]:
        """Take further revisions and give the parts of time that are known by now.

        ``complete``: these are the last. What cannot be recomputed is added to the tally.
        """
        self._parts = []
        for revision in revisions:
            self.revisions += 1
            if self._held is not None:
                self._close(self._held, revision, tally)
            self._held = revision
        if complete:
            self._end(tally)
        self._flush()
        return self._parts

    def _close(self, revision: StoredRevision, following: StoredRevision, tally: Tally) -> None:
        end = following.before_us
        if following.revision == revision.revision + 1:
            self._add(revision, end, tally)
            return
        self._enter(revision)
        self._add_unknown(revision.revision + 1, end, "it is not stored", tally)

    def _end(self, tally: Tally) -> None:
        """Close the job's last revision and its epoch, which has no row behind the cursor."""
        held = self._held
        if held is None or held.revision != self.head.revision:
            if held is not None:
                self._enter(held)
            else:
                self._open_epoch(self.head.clock_epoch)
            problem = "it is not stored"
            self._add_unknown(self.head.revision, self.head.cursor_us, problem, tally)
            return
        self._add(held, self.head.cursor_us, tally)

    def _add(self, revision: StoredRevision, end: int, tally: Tally) -> None:
        """Add the time for which a revision answers."""
        self._enter(revision)
        if revision.state in _IDLE and self._span.whole_idle and revision.since_us < self._at < end:
            self._at = max(revision.since_us, self.head.pruned_us or FIRST_US)
        if min(end, self._span.until_us) <= self._at:
            return
        rule = self._rule(revision)
        if isinstance(rule, str):
            self._add_unknown(revision.revision, end, rule, tally)
            return
        self._append(revision.since_us, end, revision=revision.revision, rule=rule)

    def _enter(self, revision: StoredRevision) -> None:
        """Come to where a revision begins; before it, in its epoch, there is nothing."""
        if revision.clock_epoch != self._epoch:
            self._open_epoch(revision.clock_epoch)
        self._append(self._at, revision.since_us, revision=None, rule=None)

    def _open_epoch(self, epoch: int) -> None:
        if self._epoch is not None:
            # An epoch that is over has no rows behind its end.
            self._append(self._at, self._span.until_us, revision=None, rule=None)
        self._flush()
        self._epoch, self._at = epoch, self._after_us

    def _add_unknown(self, revision: int, end: int, problem: str, tally: Tally) -> None:
        if min(end, self._span.until_us) <= self._at:
            return
        self._append(self._at, end, revision=revision, rule=None, known=False)
        job_id = self.head.id
        tally.cannot_read(Unreadable(job_id=job_id, revision=revision, problem=problem))

    def _append(
        self, begin: int, end: int, *, revision: int | None, rule: Rule | None, known: bool = True
    ) -> None:
        until = min(end, self._span.until_us)
        if until <= self._at:
            return
        segment = Segment(
            after_us=self._at,
            until_us=until,
            begin_us=begin,
            end_us=end,
            revision=revision,
            rule=rule,
            known=known,
        )
        self._segments.append(segment)
        self._at = until

    def _flush(self) -> None:
        if self._segments:
            assert self._epoch is not None, "segments are of an epoch"
            part = EpochPart(
                job_id=self.head.id, clock_epoch=self._epoch, segments=tuple(self._segments)
            )
            self._parts.append(part)
        self._segments = []

    def _rule(self, revision: StoredRevision) -> Rule | str | None:
        """Make a revision's rule; a text says why that is impossible."""
        if revision.state is not JobState.ACTIVE and revision.state not in _IDLE:
            return None
        try:
            schedule = load_schedule(revision.schedule)
            if revision.state in _IDLE:
                load_policy(revision.policy or "")
                load_delivery(revision.delivery or "")
            trigger = self._triggers.get(schedule, anchor=from_us(revision.anchor_us))
        except (UnreadableDefinitionError, InvalidScheduleError) as error:
            return str(error)
        return Rule(trigger=trigger, has_void=revision.state is JobState.ACTIVE)


def find_overdue(rules: RulesInForce, span: Span, *, now_us: int) -> tuple[int, int] | None:
    """Count the instants that are due and behind the cursor, and tell the first; None: none are.

    The scheduler has yet to account for them; those of the last moments are nothing unusual.
    """
    head, rule = rules.head, rules.ongoing
    due = head.next_run_us is None or head.next_run_us <= now_us
    if head.state is not JobState.ACTIVE or rule is None or not due:
        return None
    after, until = max(head.cursor_us, span.after_us), min(now_us, span.until_us)
    count = rule.count(after, until)
    if not count:
        return None
    first = rule.trigger.next_after(from_us(after))
    assert first is not None, "it was counted"
    return count, to_us(first)
