"""Why a job did, did not, will or will not run at a time: facts in, verdict out. Pure.

The ledger speaks first: where an instant has its row, the row says what became of it. Only where
there is none do the rule, the job's state and the cursor say why. Imports ``domain`` and
``rule_match.py``; called by ``services/explain_service.py``, its types by ``schemas/``.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId
from app.domain.job import JobState
from app.domain.revision import LedgerEntry, Revision, Standing
from app.engine.rule_match import Asked, RuleMatch

_VOID_REASONS = frozenset({Reason.DST_GAP, Reason.DST_FOLD})


class Verdict(StrEnum):
    """The answers there are. Those of the first group come from a row of the ledger."""

    RAN = "ran"
    FAILED = "failed"
    UNKNOWN = "unknown"  # whether the target got it cannot be told
    CANCELLED = "cancelled"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    SKIPPED = "skipped"
    MISSED = "missed"

    WILL_RUN = "will_run"
    PENDING = "pending"  # due by now; the scheduler has not written its row yet
    NOT_DUE = "not_due"
    CLOCK_CHANGE = "clock_change"  # a jump of the zone's clock takes the local time away
    PAUSED = "paused"
    BROKEN = "broken"
    FINISHED = "finished"  # the schedule had no time left
    DELETED = "deleted"
    NOT_CREATED = "not_created"
    NOT_KEPT = "not_kept"  # retention has removed the history
    NOT_RECORDED = "not_recorded"  # due, but the ledger knows nothing of it


_BY_STATUS = {
    ExecutionStatus.COMPLETED: Verdict.RAN,
    ExecutionStatus.FAILED: Verdict.FAILED,
    ExecutionStatus.UNKNOWN: Verdict.UNKNOWN,
    ExecutionStatus.CANCELLED: Verdict.CANCELLED,
    ExecutionStatus.RUNNING: Verdict.RUNNING,
    ExecutionStatus.RETRYING: Verdict.RETRYING,
    ExecutionStatus.QUEUED: Verdict.WAITING,
    ExecutionStatus.SKIPPED: Verdict.SKIPPED,
    ExecutionStatus.MISSED: Verdict.MISSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of the job; ``ended`` is the revision that ended it, None while it lasts."""

    began: Revision
    ended: Revision | None


class DowntimeKind(StrEnum):
    """Why nothing was done in a span of time."""

    STOPPED = "stopped"
    CLOCK_SET_FORWARD = "clock_set_forward"  # the span never was


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime:
    """A span without the service: from its last sign of life to its next start."""

    kind: DowntimeKind
    begin: datetime
    end: datetime


class WaitKind(StrEnum):
    """What a queued execution waits for."""

    NOT_BEFORE = "not_before"  # its start is delayed, by jitter or to spread a crowd
    JOB_SLOT = "job_slot"
    HOST_SLOT = "host_slot"
    ANY_SLOT = "any_slot"
    TURN = "turn"  # nothing is in the way: it starts at any moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why an execution is still queued; ``until`` and ``behind`` as far as they are known."""

    kind: WaitKind
    until: datetime | None = None
    behind: ExecutionId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the database tells beside the row: each is None where it does not apply.

    ``overlap`` is the execution that was in the way, or that one made way for; ``merged_into``
    the one that stands for this; ``ended_by`` the change that ended this; ``changed`` the first
    later revision with another schedule; ``others`` runs about that time that nobody's schedule
    asked for.
    """

    pause: Pause | None = None
    downtime: Downtime | None = None
    wait: Wait | None = None
    overlap: ExecutionId | None = None
    merged_into: ExecutionId | None = None
    ended_by: Revision | None = None
    changed: Revision | None = None
    others: tuple[ExecutionId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that was read for one answer, in one snapshot.

    ``revision`` is the one in force (None: the job did not exist yet), ``created`` the one that
    began its life, or the job's first. ``entries`` are rows of the asked time itself, ``stretches``
    rows of many instants that reach over it.
    """

    standing: Standing
    asked: Asked
    now: datetime
    revision: Revision | None
    created: Revision
    entries: tuple[LedgerEntry, ...]
    stretches: tuple[LedgerEntry, ...]
    around: Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer, with what it rests on. ``entry`` is the row that speaks, if there is one."""

    verdict: Verdict
    findings: Findings
    match: RuleMatch | None
    entry: LedgerEntry | None

    @property
    def due(self) -> datetime | None:
        """Tell the due instant that is spoken of."""
        rule = self.match
        if self.entry is not None and self.entry.execution.instant_count == 1:
            return self.entry.execution.scheduled_for
        if rule is None:
            return None
        return rule.due or (rule.void.at if rule.void is not None else None)

    @property
    def lateness(self) -> timedelta | None:
        """Tell how late it started, or how late it was found where it did not start."""
        entry, due = self.entry, self.due
        if entry is None or due is None:
            return None
        if entry.execution.started_at is not None:
            return entry.execution.started_at - due
        return entry.born_at - due if entry.execution.status in _LATE_ENDS else None


_LATE_ENDS = frozenset({ExecutionStatus.MISSED})


def explain(findings: Findings, match: RuleMatch | None) -> Explanation:
    """Judge. ``match`` is None if there is no rule in force that can be followed."""
    entry = choose_entry(findings, match)
    verdict = _by_rule(findings, match) if entry is None else _BY_STATUS[entry.execution.status]
    return Explanation(verdict=verdict, findings=findings, match=match, entry=entry)


def choose_entry(findings: Findings, match: RuleMatch | None) -> LedgerEntry | None:
    """Choose the row that speaks: one of that very time, else a stretch that holds its instant."""
    if findings.entries:
        return findings.entries[0]
    if match is None:
        # What the rule named cannot be told any more; what its time came to can.
        return findings.stretches[0] if findings.stretches else None
    for stretch in findings.stretches:
        of_void = stretch.execution.reason in _VOID_REASONS
        if (match.void if of_void else match.due) is not None:
            return stretch
    return None


def _by_rule(findings: Findings, match: RuleMatch | None) -> Verdict:
    """Judge what has no row."""
    revision = findings.revision
    if revision is None:
        return Verdict.NOT_CREATED
    if revision.state is JobState.DELETED:
        return Verdict.DELETED
    if match is None:
        return Verdict.BROKEN
    if match.due is None:
        return _not_due(findings, revision, match)
    return _due_without_row(findings, revision, match.due)


def _not_due(findings: Findings, revision: Revision, match: RuleMatch) -> Verdict:
    if match.void is not None:
        return Verdict.CLOCK_CHANGE
    if match.too_early and revision.number == findings.created.number:
        return Verdict.NOT_CREATED
    return Verdict.NOT_DUE if match.following is not None else Verdict.FINISHED


def _due_without_row(findings: Findings, revision: Revision, due: datetime) -> Verdict:
    standing = findings.standing
    if standing.pruned_until is not None and due <= standing.pruned_until:
        return Verdict.NOT_KEPT
    if revision.until is not None or due <= standing.cursor:
        return Verdict.NOT_RECORDED
    if standing.state is JobState.PAUSED:
        return Verdict.PAUSED
    if standing.state is JobState.BROKEN:
        return Verdict.BROKEN
    return Verdict.PENDING if due <= findings.now else Verdict.WILL_RUN
