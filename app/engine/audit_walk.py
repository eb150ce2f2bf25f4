"""The way of a proof through one job: its revisions, its rows page by page, and what was found.

Reading is bounded and quick; comparing and laying out take milliseconds and belong in a thread.
Called by ``auditor.py``.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from app.db.unit_of_work import ReadConnection
from app.domain.clock import from_us
from app.domain.ids import JobId
from app.engine.reconciliation import (
    DuplicateKind,
    EpochPart,
    Finding,
    Tally,
    Unreadable,
    reconcile,
)
from app.engine.rules_in_force import RulesInForce, Span, find_overdue
from app.engine.triggers import TriggerCache
from app.repositories import audit_repository
from app.repositories.audit_repository import Beyond, JobHead, LedgerPage, StoredRevision

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Audit:
    """What a proof found.

    ``complete`` false: the time was over. Then all jobs up to ``last_job`` are proven (None: not
    one; ``unfinished_job`` alone needs longer, so that a shorter span must be asked for).
    ``overdue_count`` instants are due and not accounted for yet, the first at ``overdue_since``.
    ``pruned_until``: of some job, retention removed rows up to then, and they are not looked at.
    """

    tally: Tally = field(default_factory=Tally)
    jobs: int = 0
    revisions: int = 0
    overdue_count: int = 0
    overdue_since: datetime | None = None
    pruned_until: datetime | None = None
    complete: bool = True
    last_job: JobId | None = None
    unfinished_job: JobId | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs to prove, as one snapshot has them; ``last`` is the last one looked at, None at the end.

    ``revisions`` may lack some of the last jobs.
    """

    heads: list[JobHead]
    revisions: dict[JobId, list[StoredRevision]]
    beyond: list[Beyond]
    last: JobId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """Further revisions of a job; ``complete``: these are the last."""

    found: list[StoredRevision]
    complete: bool


class Walk:
    """The way through one job: its rules, how far they are compared, and what was found."""

    def __init__(self, head: JobHead, span: Span, triggers: TriggerCache, batch: Batch) -> None:
        self.head = head
        self.tally = Tally()
        self.parts: deque[EpochPart] = deque()
        self._span = span
        self._rules = RulesInForce(head, span, triggers)
        self._first = batch.revisions.get(head.id, [])
        self._complete = False
        self._given_up = False
        self._at: int | None = None
        self._overdue: tuple[int, int] | None = None
        for beyond in batch.beyond:
            if beyond.job_id == head.id:
                self.tally.doubles(_finding_of(beyond))

    @property
    def is_over(self) -> bool:
        """Tell whether everything is compared."""
        return self._complete and not self.parts

    def lay_out_first(self) -> None:
        """Take the revisions that came with the job."""
        first = self._first
        complete = bool(first) and first[-1].revision >= self.head.revision
        self.lay_out(Revisions(found=first, complete=complete))

    def lay_out(self, revisions: Revisions) -> None:
        """Take further revisions."""
        self._complete = revisions.complete
        found = self._rules.lay_out(revisions.found, self.tally, complete=revisions.complete)
        self.parts.extend(found)

    def read_revisions(self, connection: ReadConnection, limit: int) -> Revisions:
        """Read the revisions that follow."""
        found = audit_repository.list_revisions(
            connection, self.head, after=self._rules.last_revision, limit=limit
        )
        return Revisions(found=found, complete=len(found) < limit)

    def read_page(self, connection: ReadConnection, *, limit: int) -> LedgerPage:
        """Read the rows that follow."""
        part = self.parts[0]
        return audit_repository.read_page(
            connection,
            part.job_id,
            part.clock_epoch,
            after_us=part.after_us if self._at is None else self._at,
            until_us=part.until_us,
            limit=limit,
        )

    def compare(self, page: LedgerPage) -> None:
        """Compare a page, and go on behind it."""
        part = self.parts[0]
        self._at = reconcile(part, page, self.tally)
        if self._at >= part.until_us:
            self.parts.popleft()
            self._at = None

    def find_overdue(self, now_us: int) -> None:
        """Look for what is due behind the cursor; for when everything is laid out."""
        if self._complete and not self._given_up:
            self._overdue = find_overdue(self._rules, self._span, now_us=now_us)

    def give_up(self) -> None:
        """Leave what is left uncompared, and say so."""
        problem = "its rule cannot be followed; the log has the details"
        revision = self.head.revision
        self.tally.cannot_read(Unreadable(job_id=self.head.id, revision=revision, problem=problem))
        self.parts.clear()
        self._complete = self._given_up = True

    def add_to(self, audit: Audit) -> None:
        """Add what was found."""
        audit.tally.add(self.tally)
        audit.jobs += 1
        audit.revisions += self._rules.revisions
        if self.head.pruned_us is not None:
            pruned = from_us(self.head.pruned_us)
            audit.pruned_until = max(audit.pruned_until or pruned, pruned)
        if self._overdue is not None:
            count, first_us = self._overdue
            first = from_us(first_us)
            audit.overdue_count += count
            audit.overdue_since = min(audit.overdue_since or first, first)


Fetched = tuple[Walk, LedgerPage | Revisions]


def lay_out_all(walks: Sequence[Walk]) -> None:
    """Let jobs take the revisions that came with them."""
    for walk in walks:
        with _kept_apart(walk):
            walk.lay_out_first()


def compare_all(fetched: Sequence[Fetched]) -> None:
    """Let jobs go on with what was read for each."""
    for walk, found in fetched:
        with _kept_apart(walk):
            if isinstance(found, LedgerPage):
                walk.compare(found)
            else:
                walk.lay_out(found)


def find_overdue_all(walks: Sequence[Walk], now_us: int) -> None:
    """Look for what is due behind the cursors of jobs."""
    for walk in walks:
        with _kept_apart(walk):
            walk.find_overdue(now_us)


@contextlib.contextmanager
def _kept_apart(walk: Walk) -> Iterator[None]:
    """Let no job keep the others from being proven: one that cannot be followed is named."""
    try:
        yield
    except Exception:
        log.exception("audit.failed", job_id=walk.head.id)
        walk.give_up()


def _finding_of(beyond: Beyond) -> Finding:
    return Finding(
        job_id=beyond.job_id,
        revision=None,
        first_us=beyond.first_us,
        last_us=beyond.last_us,
        count=beyond.count,
        kind=DuplicateKind.BEYOND_CURSOR,
    )
