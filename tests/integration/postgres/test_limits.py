"""Limits per host over three replicas, as processes on one PostgreSQL: slots, starts, losses."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.world import Row, arrived_at, create, trigger
from tests.support.raw_server import Exchange, RawServer, hang, reply
from tests.support.replicas import (
    Brood,
    MortalPostgres,
    Replicas,
    open_replicas,
)
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SLOTS = 4
STARTS_PER_SECOND = 10
# A new leader is there after eleven seconds, and patient with leases for fifteen to twenty.
RESCUED_WITHIN = 60
FREE: Row = {
    "schedule_type": "date", "run_at": "2099-01-01T00:00:00Z", "overlap_policy": "allow",
}  # fmt: skip


class CountingTarget:
    """Answers after a moment, ``/hold`` no first attempt; counts what is open over all paths."""

    def __init__(self) -> None:
        self.open = 0
        self.peak = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        self.open += 1
        self.peak = max(self.peak, self.open)
        path = exchange.request.line.split()[1]
        try:
            if path == b"/hold" and exchange.request.headers["x-scheduler-attempt"] == "1":
                await hang(exchange)
                return
            while not await exchange.pause(0.03) and not self.gate.is_set():
                pass
            await _OK(exchange)
        finally:
            self.open -= 1


_OK = reply("ok")


@dataclass
class World:
    """A cluster at work, and two hosts to call."""

    replicas: Replicas
    busy: RawServer
    calm: RawServer
    target: CountingTarget

    async def fire(self, job_id: str, count: int) -> None:
        """Have a job run so often, asked of all replicas in turn."""
        clients = [replica.client for replica in self.replicas.all if replica.is_alive]
        await asyncio.gather(
            *(trigger(clients[number % len(clients)], job_id) for number in range(count))
        )


@pytest_asyncio.fixture(loop_scope="module")
async def world(
    brood: Brood,
    postgres: MortalPostgres,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> AsyncIterator[World]:
    """Prepare three replicas on an empty database; those that a test wants, it starts."""
    settings = getattr(request, "param", {"MYSCHEDULER_HOST_CONCURRENCY": str(SLOTS)})
    target = CountingTarget()
    async with (
        RawServer((target,)) as busy,
        RawServer((_OK,)) as calm,
        open_replicas(
            tmp_path_factory.mktemp("limits"), postgres, brood, *[settings] * 3
        ) as replicas,
    ):
        yield World(replicas, busy, calm, target)
        target.gate.set()


async def test_replicas_share_the_slots_of_a_host(world: World):
    """Three replicas with sixty runs to one host send four at once: no more, and no fewer."""
    await world.replicas.start()
    client = world.replicas.all[0].client
    await create(client, "herd", world.busy.url("/herd"), **FREE)
    await world.fire("herd", 60)
    await eventually(lambda: len(world.busy.requests) == 60)
    assert world.target.peak == SLOTS
    await eventually(lambda: _all_completed(world, "herd", 60))
    assert len(world.busy.requests) == 60


async def test_a_saturated_host_delays_no_other(world: World):
    """While a host's slots are all taken and more waits for it, other hosts are called at once.

    When its slots are given back, what waited is sent, whichever replica had it.
    """
    await world.replicas.start()
    client = world.replicas.all[0].client
    await create(client, "stuck", world.busy.url("/stuck"), timeout_sec=60, **FREE)
    await create(client, "free", world.calm.url("/free"), **FREE)
    world.target.gate.clear()
    await world.fire("stuck", 30)
    await eventually(lambda: world.target.open == SLOTS)
    await world.fire("free", 15)
    await eventually(lambda: len(world.calm.requests) == 15, seconds=5)
    assert len(world.busy.requests) == SLOTS
    world.target.gate.set()
    await eventually(lambda: _all_completed(world, "stuck", 30))
    assert world.target.peak == SLOTS


async def test_slots_of_lost_replicas_come_back_with_the_lease(world: World):
    """What a stopped and a killed replica were sending keeps its slots until its lease is over.

    The target may be busy with it until then. Nothing else is sent to that host meanwhile, calls
    of other hosts go on, and in the end every run is.
    """
    stopped, killed, left = world.replicas.all
    await stopped.start()
    await create(stopped.client, "held", world.busy.url("/hold"), timeout_sec=1, **FREE)
    await create(stopped.client, "more", world.busy.url("/more"), **FREE)
    await create(stopped.client, "free", world.calm.url("/free"), **FREE)
    await world.fire("held", 2)
    await eventually(lambda: world.target.open == 2, every=0.005)
    stopped.freeze()
    await killed.start()
    await trigger(killed.client, "held")
    await trigger(killed.client, "held")
    await eventually(lambda: world.target.open == SLOTS, every=0.005)
    leases = await world.replicas.rows("SELECT lease_until_us FROM executions WHERE owner <> ''")
    await killed.kill()

    await left.start()
    await trigger(left.client, "more")
    await trigger(left.client, "free")
    await eventually(lambda: world.calm.requests)
    await eventually(lambda: len(world.busy.requests) > SLOTS, seconds=RESCUED_WITHIN)
    assert len(leases) == SLOTS
    later = world.busy.requests[SLOTS]
    first_lease = min(row["lease_until_us"] for row in leases)
    assert arrived_at(later).timestamp() * 1_000_000 >= first_lease
    await eventually(lambda: len(world.busy.requests) == SLOTS + 5)
    stopped.thaw()


@pytest.mark.parametrize(
    "world",
    [{"MYSCHEDULER_HOST_STARTS_PER_SECOND": str(STARTS_PER_SECOND)}],
    indirect=True,
    ids=["paced"],
)
async def test_replicas_share_the_starts_of_a_host(world: World):
    """Three replicas together start no more attempts a second than the rate, and hardly fewer."""
    await world.replicas.start()
    client = world.replicas.all[0].client
    await create(client, "paced", world.busy.url("/paced"), **FREE)
    await world.fire("paced", 30)
    await eventually(lambda: len(world.busy.requests) == 30)
    times = [request.at for request in world.busy.requests]
    most = max(sum(1 for other in times if 0 <= other - time < 1) for time in times)
    # Starts are spaced where they are claimed; on its way one may come closer to the next.
    assert most <= STARTS_PER_SECOND + 1
    assert times[-1] - times[0] >= 29 / STARTS_PER_SECOND * 0.95


async def _all_completed(world: World, job_id: str, count: int) -> bool:
    rows = await world.replicas.rows(
        "SELECT status, count(*) FROM executions WHERE job_id = $1 GROUP BY status", job_id
    )
    return [tuple(row) for row in rows] == [("completed", count)]
