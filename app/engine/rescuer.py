"""Settles executions that are marked running while nobody runs them.

At start, under the data directory's lock, that is every running row: its process is gone. Later it
is a row whose lease is over and that this process does not hold. Whether the request left cannot be
known, so the attempt is recorded as lost, and the execution goes on by its job's ``on_crash``: the
next attempt under the same id at once (no retry spent), or its end as ``unknown``.

A lease may also be over because its owner could not reach the database, nor anybody else. So among
replicas the rescuer is patient until this process has been in touch with the database for a while,
leading or not: the owners that live renew their leases then, or record what they have, and only
what is over still is settled. A mere change of leader costs no patience: leaders may follow each
other faster than that.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import Clock
from app.domain.errors import UnavailableError
from app.domain.execution import ExecutionStatus, WaitingRun
from app.domain.ids import ExecutionId
from app.domain.policies import OnCrash, job_slots
from app.engine.course import Course
from app.repositories import lease_repository, orphan_repository, run_repository
from app.repositories.orphan_repository import OrphanRun
from app.repositories.run_repository import Ending

log = structlog.get_logger(__name__)

# Orphans settled in one transaction.
_BATCH = 500
# An owner finds the database again within a deadline or two of its statements and connections.
PATIENCE_AMONG_REPLICAS = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class RescuerOptions:
    """How soon what is lost is settled."""

    # One recovery period: no row is running beyond its lease by more than this, and the patience.
    every: timedelta = timedelta(seconds=5)
    # Nothing is settled before this process has been in touch with the database for so long; zero:
    # no other process has leases.
    patience: timedelta = timedelta(0)
    # So long without a look counts as out of touch: a machine was suspended, say. While the
    # database is there, leases of those who live have this left (``leases``).
    gap: timedelta = timedelta(seconds=15)


class Rescuer:
    """Finds lost attempts; ``rescued`` gets those whose executions wait again.

    ``in_touch_since`` tells since when, on the monotonic clock, the database has answered this
    process; ``course`` how the rescuer's loop fares.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        options: RescuerOptions,
        in_touch_since: Callable[[], float],
        owned: Callable[[], Collection[ExecutionId]],
        rescued: Callable[[list[WaitingRun]], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options
        self._in_touch_since = in_touch_since
        self._owned = owned
        self._rescued = rescued
        # Since when its own looks succeed; infinite after one that did not.
        self._fit_since = -math.inf
        self.course = Course()

    async def settle_all(self) -> int:
        """Settle every running row, at start; return how many there were."""
        count = 0
        while settled := await self._settle(await self._find(now=None), now=None):
            count += settled
        return count

    async def run(self) -> None:
        """Look for leases that are over, until cancelled; raises what the database raises."""
        try:
            await self._look_on()
        except UnavailableError:
            self._fit_since = math.inf
            raise

    async def _look_on(self) -> None:
        before = self._clock.monotonic()
        while True:
            now = self._clock.now()
            found = await self._find(now=now)
            looked = self._clock.monotonic()
            if self._fit_since > looked or looked - before > self._options.gap.total_seconds():
                self._fit_since = looked
            fit_since, before = max(self._fit_since, self._in_touch_since()), looked
            if looked - fit_since >= self._options.patience.total_seconds():
                await self._settle(found, now=now)
            self.course.go_on()
            await asyncio.sleep(self._options.every.total_seconds())

    async def _find(self, *, now: datetime | None) -> list[OrphanRun]:
        return await self._unit_of_work.read(
            partial(orphan_repository.orphan_runs, now=now, limit=_BATCH)
        )

    async def _settle(self, found: Iterable[OrphanRun], *, now: datetime | None) -> int:
        owned = self._owned()
        orphans = {run.execution_id: run for run in found if run.execution_id not in owned}
        if not orphans:
            return 0
        at = self._clock.now()
        endings = [_ending(run, at) for run in orphans.values()]
        written = await self._unit_of_work.write(partial(self._record, endings=endings, now=now))
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

    def _record(
        self, connection: WriteConnection, *, endings: Sequence[Ending], now: datetime | None
    ) -> list[Ending]:
        """Write the ends of those whose leases are over still (``now`` None: whatever they are)."""
        if now is not None:
            ids = [ending.execution_id for ending in endings]
            over = lease_repository.hold_those_over(connection, ids, now=now)
            endings = [ending for ending in endings if ending.execution_id in over]
        return run_repository.record_endings(connection, endings)


def _ending(run: OrphanRun, now: datetime) -> Ending:
    outcome = orphan_repository.lost(run)
    again = orphan_repository.on_crash(run) is OnCrash.RETRY
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
