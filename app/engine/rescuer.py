"""Settles executions that are marked running while nobody runs them.

At start, under the data directory's lock, that is every running row: its process is gone. Later it
is a row whose lease is over and that this process does not hold. Whether the request left cannot be
known, so the attempt is recorded as lost, and the execution goes on by its job's ``on_crash``: the
next attempt under the same id at once (no retry spent), or its end as ``unknown``.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import structlog

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.execution import ExecutionStatus, WaitingRun
from app.domain.ids import ExecutionId
from app.domain.policies import OnCrash
from app.repositories import run_repository
from app.repositories.run_repository import Ending, OrphanRun, job_slots

log = structlog.get_logger(__name__)

# Orphans settled in one transaction.
_BATCH = 500
# One recovery period: no row is running beyond its lease by more than this.
_EVERY = timedelta(seconds=5)


class Rescuer:
    """Finds lost attempts; ``rescued`` gets those whose executions wait again."""

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        owned: Callable[[], Collection[ExecutionId]],
        rescued: Callable[[list[WaitingRun]], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._owned = owned
        self._rescued = rescued

    async def settle_all(self) -> int:
        """Settle every running row, at start; return how many there were."""
        count = 0
        while settled := await self._settle(now=None):
            count += settled
        return count

    async def run(self) -> None:
        """Look for leases that are over, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY.total_seconds())
            await self._settle(now=self._clock.now())

    async def _settle(self, *, now: datetime | None) -> int:
        found = await self._unit_of_work.read(
            lambda connection: run_repository.orphan_runs(connection, now=now, limit=_BATCH)
        )
        owned = self._owned()
        orphans = {run.execution_id: run for run in found if run.execution_id not in owned}
        if not orphans:
            return 0
        at = self._clock.now()
        endings = [_ending(run, at) for run in orphans.values()]
        written = await self._unit_of_work.write(
            lambda connection: run_repository.record_endings(connection, endings)
        )
        for ending in written:
            log.warning(
                "attempt.lost",
                execution_id=ending.execution_id,
                job_id=orphans[ending.execution_id].job_id,
                attempt=ending.number,
                status=ending.status,
            )
        again = [ending for ending in written if ending.next_attempt_at is not None]
        self._rescued([_waiting(orphans[ending.execution_id], at) for ending in again])
        return len(written)


def _ending(run: OrphanRun, now: datetime) -> Ending:
    outcome = run_repository.lost(run)
    again = run_repository.on_crash(run) is OnCrash.RETRY
    return Ending(
        execution_id=run.execution_id,
        number=run.number,
        owner=run.owner,
        fence=run.fence,
        started_at=run.attempt_started_at,
        ended_at=now,
        status=ExecutionStatus.RETRYING if again else ExecutionStatus.UNKNOWN,
        reason=outcome.reason,
        outcome=outcome,
        retries=run.retries,
        next_attempt_at=now if again else None,
    )


def _waiting(run: OrphanRun, now: datetime) -> WaitingRun:
    return WaitingRun(
        id=run.execution_id,
        job_id=run.job_id,
        host=run.host,
        next_attempt_at=now,
        job_slots=None if run.policy is None else job_slots(run.policy),
    )
