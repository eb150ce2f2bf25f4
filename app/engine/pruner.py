"""Keeps the history within its bounds, by age and by number, without hurting anybody.

A pass goes along the executions in the order of their birth, from where the last one stopped, up to
the first that are too young, and removes what may go in small transactions. The more a batch takes,
the smaller the next one is, and after each there is a rest twice as long: whoever else needs the
database waits for one batch at most, and has it for two thirds of the time. Then jobs are looked up
in the totals that keep more than their number. Open executions stay, and so does whatever ended
within the last hour.

May be stopped at any moment: every transaction is whole by itself.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import Clock
from app.domain.execution import ExecutionStatus
from app.domain.ids import JobId
from app.engine.course import Course
from app.engine.ports import Leader
from app.repositories import idempotency_repository, retention_repository, totals_repository
from app.repositories.retention_repository import FAILED_STATUSES, OTHER_STATUSES, Surplus

log = structlog.get_logger(__name__)

_ROWS_MIN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunerOptions:
    """What is kept, and at what pace the rest goes."""

    # Since they ended: failed and unknown executions, and the others.
    keep_failed: timedelta
    keep_others: timedelta
    # Ended executions of one job; of failed and unknown ones as many again.
    keep_per_job: int
    # Whatever else is said: this much stays, for those who look at what just happened.
    keep_always: timedelta = timedelta(hours=1)
    # A pass without anything to remove costs a millisecond, and two for every 5,000 jobs.
    every: timedelta = timedelta(minutes=5)
    first_after: timedelta = timedelta(seconds=30)
    # Rows of one transaction, and how long it should hold the database. A row costs 40 µs, and its
    # commit about as much again; one with a large answer costs more.
    rows_max: int = 500
    batch_time: timedelta = timedelta(milliseconds=8)
    # The rest after a batch, in lengths of its transaction. What it waited for the writer does not
    # count: the more runs there are, the more there is to remove.
    rest_factor: float = 2.0
    rest_min: timedelta = timedelta(milliseconds=10)
    # How often a walk begins anew, for what had not ended when it was passed.
    again_every: timedelta = timedelta(days=1)
    # Totals read at a time.
    totals_at_once: int = 5_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.keep_per_job < 1 or self.rows_max < _ROWS_MIN or self.totals_at_once < 1:
            raise ValueError("keep_per_job, rows_max and totals_at_once are too small")


class Pruner:
    """Removes old history; ``run`` does so until cancelled, and ``course`` tells how it fares."""

    def __init__(
        self, *, unit_of_work: UnitOfWork, leader: Leader, clock: Clock, options: PrunerOptions
    ) -> None:
        self._unit_of_work = unit_of_work
        self._leader = leader
        self._clock = clock
        self._options = options
        self._rows = options.rows_max
        self.course = Course()
        # How far each group of statuses has been walked.
        self._walked: dict[frozenset[ExecutionStatus], int] = {}
        self._begun_at = clock.monotonic()

    async def run(self) -> None:
        """Make a pass every now and then; raises what the database raises."""
        await asyncio.sleep(self._options.first_after.total_seconds())
        while True:
            await self.prune()
            self.course.go_on()
            await asyncio.sleep(self._options.every.total_seconds())

    async def prune(self) -> int:
        """Make one pass; return how many executions it removed."""
        if self._clock.monotonic() - self._begun_at >= self._options.again_every.total_seconds():
            self._walked.clear()
            self._begun_at = self._clock.monotonic()
        by_age = 0
        for surplus in self._too_old():
            by_age += await self._remove_old(surplus)
        by_number = await self._prune_jobs()
        keys = await self._forget_keys()
        if by_age or by_number or keys:
            log.info("history.pruned", by_age=by_age, by_number=by_number, request_keys=keys)
        return by_age + by_number

    def _too_old(self) -> Iterator[Surplus]:
        now, options = self._clock.now(), self._options
        others = max(options.keep_others, options.keep_always)
        failed = max(options.keep_failed, others)
        yield Surplus(statuses=OTHER_STATUSES, ended_before=now - others)
        # These have an index each, and so need not be looked for among the others.
        for status in sorted(FAILED_STATUSES):
            yield Surplus(statuses=frozenset({status}), ended_before=now - failed)

    async def _remove_old(self, surplus: Surplus) -> int:
        removed, done = 0, False
        while not done:
            after = self._walked.get(surplus.statuses, 0)
            batch = await self._batch(surplus, after=after, most=self._rows)
            removed += batch.removed
            if not batch.done:
                self._walked[surplus.statuses] = batch.last
            done = batch.done
        return removed

    async def _prune_jobs(self) -> int:
        """Go through the totals of all jobs for those that keep too much."""
        removed, after, limit = 0, "", self._options.keep_per_job
        rows = self._options.totals_at_once
        while True:
            above, last = await self._unit_of_work.read(
                partial(totals_repository.jobs_above, after=after, rows=rows, limit=limit)
            )
            for kept in above:
                removed += await self._prune_job(kept.job_id, OTHER_STATUSES, kept.others - limit)
                removed += await self._prune_job(kept.job_id, FAILED_STATUSES, kept.failed - limit)
            if last is None:
                return removed
            after = last
            await asyncio.sleep(self._options.rest_min.total_seconds())

    async def _prune_job(
        self, job_id: JobId, statuses: frozenset[ExecutionStatus], excess: int
    ) -> int:
        """Remove a job's oldest executions of a group, as many as there are too many."""
        cut = self._clock.now() - self._options.keep_always
        surplus = Surplus(statuses=statuses, ended_before=cut, job_id=job_id)
        removed, after, done = 0, 0, False
        while removed < excess and not done:
            batch = await self._batch(surplus, after=after, most=excess - removed)
            removed, after, done = removed + batch.removed, batch.last, batch.done
        return removed

    async def _batch(self, surplus: Surplus, *, after: int, most: int) -> "_Batch":
        """Look at some rows and remove those that may go, at most so many; then rest."""
        rows = self._rows
        looked = await self._unit_of_work.read(
            partial(retention_repository.look_for, surplus=surplus, after=after, rows=rows)
        )
        entries = looked.entries[:most]
        took = await self._remove(entries) if entries else 0.0
        rest = max(took * self._options.rest_factor, self._options.rest_min.total_seconds())
        await asyncio.sleep(0 if looked.done else rest)
        return _Batch(removed=len(entries), last=looked.last, done=looked.done)

    async def _remove(self, entries: Sequence[Any]) -> float:
        """Remove executions in one transaction; return how long it took once it had begun."""

        def remove(connection: WriteConnection) -> tuple[float, float]:
            self._leader.guard(connection)
            began = self._clock.monotonic()
            retention_repository.remove(connection, entries)
            return began, self._clock.monotonic()

        began, ended = await self._unit_of_work.write(remove)
        self._adapt(ended - began)
        return self._clock.monotonic() - began

    def _adapt(self, held: float) -> None:
        """Let the next batch be smaller if this one held the database too long, or larger."""
        aim = self._options.batch_time.total_seconds()
        if held > aim:
            self._rows = max(self._rows // 2, _ROWS_MIN)
        elif held < aim / 2:
            self._rows = min(self._rows * 2, self._options.rows_max)

    async def _forget_keys(self) -> int:
        """Forget requests whose repetition would be a new one."""
        now, rows = self._clock.now(), self._options.rows_max
        forgotten = 0
        while True:
            count = await self._unit_of_work.write(
                partial(idempotency_repository.forget_old, now=now, rows=rows)
            )
            forgotten += count
            if count < rows:
                return forgotten
            await asyncio.sleep(self._options.rest_min.total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What one batch did, and where the next begins."""

    removed: int
    last: int
    done: bool
