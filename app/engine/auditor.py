"""Proves the ledger: every instant that the rules in force named has its row, and has it once.

Jobs are gone through by id, some at a time. Of each, the rules in force are recomputed from its
revisions (``rules_in_force.py``) and compared with its rows (``reconciliation.py``), page by page:
memory is bounded by a page, whatever the ledger holds, and no read lasts longer than one. A job's
cursor is read before its rows, and what lies before a cursor changes no more, except that retention
removes it; so a job with findings is looked at again if it has changed meanwhile.

On request the whole ledger is proven, or a part of it. In the background ``run`` proves what is
new: the first time since a day ago, or since the last sign of life before the start if that was
earlier; then since the last proof, and a while before it. Where something is missing, the next
proofs begin there again, for a day. Nothing is remembered per job. It takes a small part of one
core at most.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import structlog

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.clock import Clock, from_us, to_us
from app.domain.errors import JobNotFoundError
from app.domain.ids import JobId
from app.engine.audit_walk import (
    Audit,
    Batch,
    Fetched,
    Walk,
    compare_all,
    find_overdue_all,
    lay_out_all,
)
from app.engine.course import Course
from app.engine.reconciliation import Finding
from app.engine.rules_in_force import FIRST_US, Span
from app.engine.triggers import TriggerCache, TriggerCacheOptions
from app.repositories import audit_repository
from app.repositories.audit_repository import JobHead

log = structlog.get_logger(__name__)

_BEFORE_ALL = JobId("")
# Looks at a job that has findings and changes all the while.
_LOOKS_MAX = 3
# A page of fewer rows than these would not get on where one instant has two.
_PAGE_ROWS_MIN = 2
# Findings named in the log.
_LOGGED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditorOptions:
    """How much is looked at at once, and how often."""

    # How often the background proves what is new; zero: never.
    every: timedelta = timedelta(minutes=5)
    # The first proof waits for what a start has to catch up.
    first_after: timedelta = timedelta(seconds=30)
    # Every proof goes back so far behind the last one, and the first one so far behind the start.
    overlap: timedelta = timedelta(minutes=10)
    first_span: timedelta = timedelta(days=1)
    # Due instants that have waited longer than this for their row are missing.
    overdue_after: timedelta = timedelta(minutes=10)
    # Jobs, revisions and ledger rows read at once, for a request and in the background.
    jobs_max: int = 100
    revisions_max: int = 200
    rows_max: int = 20_000
    background_rows_max: int = 2_000
    # The part of one core's time that the background may take.
    background_share: float = 0.1
    # Triggers kept while many jobs are gone through: at most 8 MiB.
    triggers_max: int = 1_000

    def __post_init__(self) -> None:
        if min(self.jobs_max, self.revisions_max) < 1 or not 0 < self.background_share <= 1:
            raise ValueError("jobs_max and revisions_max must be at least 1, the share up to 1")
        if min(self.rows_max, self.background_rows_max) < _PAGE_ROWS_MIN:
            raise ValueError("rows_max must be at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """What to prove: a span of all jobs, beginning after one, or of a single job.

    ``within`` (None: no limit) bounds the time; what is left then is proven by another request.
    """

    span: Span = field(default_factory=Span)
    job_id: JobId | None = None
    after: JobId = _BEFORE_ALL
    within: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The latest proof of the background: what it found, of which span, and when it was made."""

    audit: Audit
    since: datetime
    made_at: datetime
    holds: bool


class _TimeOverError(Exception):
    """The time of a request is over."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast to go: rows at once, the part of time to work, and when to end."""

    rows_max: int
    share: float = 1.0
    end: float | None = None


class Auditor:
    """Proves the ledger on request (``verify``) and in the background (``run``)."""

    def __init__(self, *, unit_of_work: UnitOfWork, clock: Clock, options: AuditorOptions) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options
        self._triggers = TriggerCache(TriggerCacheOptions(triggers_max=options.triggers_max))
        # One request at a time: each may keep a core busy.
        self._turn = asyncio.Lock()
        self._started_at = clock.now()
        self._since = self._started_at - options.first_span
        self._proof: Proof | None = None
        self.course = Course()

    @property
    def is_watching(self) -> bool:
        """Tell whether the background is to prove anything."""
        return self._options.every > timedelta(0)

    @property
    def proof(self) -> Proof | None:
        """Tell the latest proof of the background; None before the first."""
        return self._proof

    def begin(self, last_beat: datetime | None) -> None:
        """Let the first proof reach back to the last sign of life before this start."""
        if last_beat is not None:
            self._since = min(self._since, last_beat - self._options.overlap)

    async def verify(self, request: AuditRequest) -> Audit:
        """Prove what is asked for, after the requests before it.

        Raises ``JobNotFoundError``; deleted jobs are found.
        """
        within = None if request.within is None else request.within.total_seconds()
        try:
            async with asyncio.timeout(within):
                await self._turn.acquire()
        except TimeoutError:
            return Audit(complete=False, last_job=request.after or None)
        try:
            started = self._clock.monotonic()
            end = None if within is None else started + within
            audit = await self._audit(request, _Pace(self._options.rows_max, end=end))
            audit.seconds = self._clock.monotonic() - started
        finally:
            self._turn.release()
        return audit

    async def run(self) -> None:
        """Prove what is new, again and again, until cancelled."""
        await asyncio.sleep(self._options.first_after.total_seconds())
        while True:
            await self.prove()
            self.course.go_on()
            await asyncio.sleep(self._options.every.total_seconds())

    async def prove(self) -> Proof:
        """Prove what came since the last proof; log and keep the result."""
        started, now = self._clock.monotonic(), self._clock.now()
        since = self._since
        span = Span(after_us=max(to_us(since), FIRST_US), whole_idle=True)
        options = self._options
        pace = _Pace(options.background_rows_max, share=options.background_share)
        audit = await self._audit(AuditRequest(span=span), pace)
        audit.seconds = self._clock.monotonic() - started
        holds = audit.tally.is_clean and not self._is_late(audit)
        self._proof = Proof(audit=audit, since=since, made_at=self._clock.now(), holds=holds)
        self._since = self._next_since(audit, since, now, holds=holds)
        _report(self._proof)
        return self._proof

    def _is_late(self, audit: Audit) -> bool:
        if audit.overdue_since is None:
            return False
        waiting_since = max(audit.overdue_since, self._started_at)
        return self._clock.now() - waiting_since > self._options.overdue_after

    def _next_since(self, audit: Audit, since: datetime, now: datetime, *, holds: bool) -> datetime:
        """Find where the next proof begins: nothing behind it is left unproven."""
        following = now - self._options.overlap
        if audit.overdue_since is not None:
            following = min(following, audit.overdue_since - timedelta(microseconds=1))
        if not holds:
            following = min(following, max(since, now - self._options.first_span))
        return following

    async def _audit(self, request: AuditRequest, pace: _Pace) -> Audit:
        audit = Audit()
        try:
            if request.job_id is not None:
                await self._audit_one(request, request.job_id, audit, pace)
            else:
                await self._audit_all(request, audit, pace)
        except _TimeOverError:
            audit.complete = False
        return audit

    async def _audit_one(
        self, request: AuditRequest, job_id: JobId, audit: Audit, pace: _Pace
    ) -> None:
        started = self._clock.monotonic()
        batch = await self._unit_of_work.read(
            lambda connection: self._look(connection, job_id, request.span)
        )
        if not batch.heads:
            raise JobNotFoundError(job_id)
        await self._audit_batch(batch, request.span, audit, pace, started=started)

    async def _audit_all(self, request: AuditRequest, audit: Audit, pace: _Pace) -> None:
        after: JobId | None = request.after
        while after is not None:
            started, since = self._clock.monotonic(), after
            batch = await self._unit_of_work.read(partial(self._look_after, since, request.span))
            await self._audit_batch(batch, request.span, audit, pace, started=started)
            after = batch.last
            audit.last_job = after or audit.last_job
            self._check_time(pace)

    def _look(self, connection: ReadConnection, job_id: JobId, span: Span) -> Batch:
        head = audit_repository.find_head(connection, job_id)
        return self._read_batch(connection, [] if head is None else [head], span, last=job_id)

    def _look_after(self, after: JobId, span: Span, connection: ReadConnection) -> Batch:
        """Read the next jobs; of those that can have no instant in what is new, nothing more."""
        limit = self._options.jobs_max
        if span.whole_idle:
            heads = audit_repository.list_moved_heads(
                connection,
                after=after,
                limit=limit,
                moved_us=span.after_us,
                due_us=to_us(self._clock.now()),
            )
        else:
            heads = audit_repository.list_heads(connection, after=after, limit=limit)
        last = heads[-1].id if len(heads) == limit else None
        return self._read_batch(connection, heads, span, last=last)

    def _read_batch(
        self, connection: ReadConnection, heads: list[JobHead], span: Span, *, last: JobId | None
    ) -> Batch:
        """Read the jobs' first revisions and what lies behind their cursors, in one snapshot."""
        if not heads:
            return Batch(heads=[], revisions={}, beyond=[], last=last)
        ids = [head.id for head in heads]
        limit = self._options.revisions_max
        revisions = audit_repository.first_revisions(connection, ids, limit=limit)
        beyond = audit_repository.find_beyond(
            connection, ids, after_us=span.after_us, until_us=span.until_us
        )
        return Batch(heads=heads, revisions=revisions, beyond=beyond, last=last)

    async def _audit_batch(
        self, batch: Batch, span: Span, audit: Audit, pace: _Pace, *, started: float
    ) -> None:
        """Prove some jobs; those with findings a second time if they have changed."""
        walks = [Walk(head, span, self._triggers, batch) for head in batch.heads]
        with contextlib.suppress(_TimeOverError):  # what is through by then counts
            await self._walk(walks, pace, started=started)
        await self._find_overdue(walks)
        for walk in walks:
            audit.unfinished_job = walk.head.id
            if not walk.is_over:
                raise _TimeOverError
            proven = walk
            if not walk.tally.is_clean:
                proven = await self._look_again(walk, span, pace)
            proven.add_to(audit)
            audit.last_job, audit.unfinished_job = proven.head.id, None

    async def _look_again(self, walk: Walk, span: Span, pace: _Pace) -> Walk:
        for _ in range(_LOOKS_MAX):
            started, seen = self._clock.monotonic(), walk.head
            batch = await self._unit_of_work.read(
                lambda connection, job_id=seen.id: self._look(connection, job_id, span)  # type: ignore[misc]  # a default in a lambda
            )
            (head,) = batch.heads
            if (head.revision, head.pruned_us) == (seen.revision, seen.pruned_us):
                break
            walk = Walk(head, span, self._triggers, batch)
            await self._walk([walk], pace, started=started)
            await self._find_overdue([walk])
            if walk.tally.is_clean:
                break
        return walk

    async def _find_overdue(self, walks: Sequence[Walk]) -> None:
        await asyncio.to_thread(find_overdue_all, walks, to_us(self._clock.now()))

    async def _walk(self, walks: Sequence[Walk], pace: _Pace, *, started: float) -> None:
        """Read and compare, page by page, until all these jobs are through."""
        await asyncio.to_thread(lay_out_all, walks)
        await self._rest(pace, started)
        left, started = walks, self._clock.monotonic()
        while left := [walk for walk in left if not walk.is_over]:
            self._check_time(pace)
            fetch = partial(self._fetch, left, pace.rows_max)
            fetched = await self._unit_of_work.read(fetch)
            await asyncio.to_thread(compare_all, fetched)
            await self._rest(pace, started)
            started = self._clock.monotonic()

    def _fetch(
        self, walks: Sequence[Walk], rows_max: int, connection: ReadConnection
    ) -> list[Fetched]:
        """Read the next page of each job, in order, up to so many rows in all."""
        fetched: list[Fetched] = []
        for walk in walks:
            if rows_max < _PAGE_ROWS_MIN:
                break
            if walk.parts:
                page = walk.read_page(connection, limit=rows_max)
                fetched.append((walk, page))
                rows_max -= len(page.rows) + 1
            else:
                fetched.append((walk, walk.read_revisions(connection, self._options.revisions_max)))
                break
        return fetched

    async def _rest(self, pace: _Pace, started: float) -> None:
        """Let the others work for as long as keeps to this pace's part of the time."""
        worked = self._clock.monotonic() - started
        await asyncio.sleep(worked * (1 / pace.share - 1))

    def _check_time(self, pace: _Pace) -> None:
        if pace.end is not None and self._clock.monotonic() > pace.end:
            raise _TimeOverError


def _report(proof: Proof) -> None:
    audit, tally = proof.audit, proof.audit.tally
    figures = {
        "since": proof.since.isoformat(),
        "jobs": audit.jobs,
        "expected": tally.expected,
        "accounted": tally.accounted,
        "seconds": round(audit.seconds, 3),
    }
    if tally.unreadable_count:
        log.warning("ledger.not_recomputed", revisions=tally.unreadable_count)
    if proof.holds:
        log.info("ledger.verified", **figures)
        return
    log.error(
        "ledger.unproven",
        unaccounted=tally.unaccounted_count,
        duplicates=tally.duplicates_count,
        overdue=audit.overdue_count,
        first=[_name(finding) for finding in (tally.unaccounted + tally.duplicates)[:_LOGGED_MAX]],
        **figures,
    )


def _name(finding: Finding) -> str:
    kind = "unaccounted" if finding.kind is None else finding.kind.value
    return f"{finding.job_id} {from_us(finding.first_us).isoformat()} {kind} {finding.count}"
