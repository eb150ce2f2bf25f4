"""What this process runs or is about to record, and the leases it holds on that.

A claim leases an execution to the process that runs it, and only when the lease is over is it
rescued. Alone on its database a process leases for as long as an attempt may last, and its next
start settles whatever it left. Among replicas such a lease would hold the run of a dead process for
up to an hour: there it covers a part of the attempt at most, and is renewed while its process
lives, for what that really has in hand. (A run claimed in a commit in doubt, of which nothing is
sent, is not.)

The database is away: renewals fail and are tried again every second; the leader lets owners come
first when it is back (``rescuer``). This process is suspended, or cut off from the database alone,
for longer than a lease: another one sends its runs again under their ids, and what this one records
of them is dropped by the fence.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.ids import ExecutionId
from app.engine.course import Course
from app.engine.ports import Leader
from app.repositories import lease_repository
from app.repositories.lease_repository import Renewal

# How much of an attempt a lease covers among replicas: so long, and the margin, the run of a
# process that died waits at most to be found.
SPAN_AMONG_REPLICAS = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """For how long a run is leased, and when that is renewed."""

    # Beyond the attempt's deadline, or the part of it that is covered, an attempt is trusted so
    # long before it counts as lost.
    margin: timedelta = timedelta(seconds=10)
    # The most of an attempt that a lease covers; None: all of it, and none is renewed.
    span: timedelta | None = None
    # A younger lease is not renewed, so that a herd of short runs costs no write.
    renew_after: timedelta = timedelta(seconds=10)
    # How often what is to be renewed is looked for. With the figures above a lease has fifteen
    # seconds left then at least, also for a renewal that fails by its deadline and is repeated.
    renew_every: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Check that a lease is renewed before it is over."""
        if self.span is not None and self.renew_after + self.renew_every >= self.longest:
            raise ValueError("a lease must last longer than until it is renewed")

    @property
    def longest(self) -> timedelta:
        """Tell how long a renewed lease lasts."""
        return (self.span or timedelta(0)) + self.margin


class Leases:
    """The executions this process holds; ``run`` renews their leases, until cancelled."""

    def __init__(
        self, *, unit_of_work: UnitOfWork, leader: Leader, clock: Clock, options: LeaseOptions
    ) -> None:
        self._unit_of_work = unit_of_work
        self._leader = leader
        self._clock = clock
        self._options = options
        # Since when each is leased at least, on the monotonic clock.
        self._held: dict[ExecutionId, float] = {}
        self.course = Course()

    @property
    def are_renewed(self) -> bool:
        """Tell whether ``run`` has anything to do."""
        return self._options.span is not None

    @property
    def held(self) -> frozenset[ExecutionId]:
        """Tell which executions this process runs or is about to record."""
        return frozenset(self._held)

    def __contains__(self, execution_id: ExecutionId) -> bool:
        """Tell whether this process holds an execution."""
        return execution_id in self._held

    def hold(self, execution_id: ExecutionId, *, since: float) -> None:
        """Take an execution whose claim was committed after ``since``, on the monotonic clock."""
        self._held[execution_id] = since

    def let_go(self, execution_id: ExecutionId) -> None:
        """Hold an execution no longer: its outcome is recorded, or another process's."""
        self._held.pop(execution_id, None)

    async def run(self) -> None:
        """Renew what is old enough, until cancelled; raises what the database raises."""
        while True:
            await self._renew()
            self.course.go_on()
            await asyncio.sleep(self._options.renew_every.total_seconds())

    async def _renew(self) -> None:
        asked = self._clock.monotonic()
        latest = asked - self._options.renew_after.total_seconds()
        old = [execution_id for execution_id, since in self._held.items() if since <= latest]
        if not old:
            return
        renewal = Renewal(
            owner=self._leader.owner,
            fence=self._leader.fence,
            now=self._clock.now(),
            lease=self._options.longest,
        )
        renewed = await self._unit_of_work.write(
            partial(lease_repository.renew_leases, ids=old, renewal=renewal)
        )
        for execution_id in renewed:
            # It may have been recorded meanwhile, and claimed anew.
            since = self._held.get(execution_id)
            if since is not None:
                self._held[execution_id] = max(since, asked)
