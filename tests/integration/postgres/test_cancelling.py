"""Cancels through one replica of what another one sends: while that one stops, or hangs."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.world import Row, arrivals, create, read_execution, trigger, wait_for_end
from tests.support.raw_server import RawServer
from tests.support.replicas import (
    Brood,
    MortalPostgres,
    Replica,
    Target,
    open_replicas,
)
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

# The other replica leads after eleven seconds, and is patient with leases for fifteen to twenty.
RESCUED_WITHIN = 60
NEVER: Row = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}


@dataclass
class World:
    """A replica that sends, another one, and the target that gives no answer."""

    sender: Replica
    other: Replica
    server: RawServer
    target: Target


@pytest_asyncio.fixture(loop_scope="module")
async def world(
    brood: Brood, postgres: MortalPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Start two replicas, with a job whose lease is short and one whose attempts may last."""
    target = Target()
    folder = tmp_path_factory.mktemp("cancelling")
    async with (
        RawServer((target,)) as server,
        open_replicas(folder, postgres, brood, {}, {}) as replicas,
    ):
        sender, other = replicas.all
        await sender.start()
        await create(
            sender.client, "held", server.url("/hold"), timeout_sec=1, max_retries=3, **NEVER
        )
        await create(sender.client, "patient", server.url("/hold-on"), timeout_sec=60, **NEVER)
        await other.start()
        yield World(sender, other, server, target)


async def hold(world: World, job_id: str, path: str) -> str:
    """Have the first replica send a job's run, the other one being stopped; give its id."""
    world.other.freeze()
    execution_id = await trigger(world.sender.client, job_id)
    await eventually(lambda: world.target.open[path], every=0.005)
    return execution_id


async def test_a_cancel_reaches_a_replica_that_stops(world: World):
    """A replica that waits for its last attempt hears that it is cancelled, and ends at once."""
    execution_id = await hold(world, "patient", "/hold-on")
    world.other.thaw()
    os.kill(world.sender.pid, signal.SIGTERM)
    await eventually(lambda: world.sender.told("scheduler.stopping"))
    answer = await world.other.client.post(f"/api/v1/executions/{execution_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    await eventually(lambda: not world.target.open["/hold-on"], seconds=1)
    assert await world.sender.ended() == 0
    row = await read_execution(world.other.client, execution_id)
    assert (row["status"], row["reason"], row["attempts"]) == ("cancelled", "user", 1)


async def test_a_cancel_of_what_a_hung_replica_sends_says_so(world: World):
    """The answer does not claim an end that nobody saw; with the lease the run ends as cancelled.

    No attempt follows although the job would retry, also when the replica wakes again.
    """
    execution_id = await hold(world, "held", "/hold")
    world.sender.freeze()
    world.other.thaw()
    answer = await world.other.client.post(f"/api/v1/executions/{execution_id}/cancel")
    cancelled = answer.json()
    assert (answer.status_code, cancelled["status"]) == (200, "running")
    assert cancelled["detail"]
    row = await wait_for_end(world.other.client, "held", seconds=RESCUED_WITHIN)
    assert (row["status"], row["reason"], row["attempts"]) == ("cancelled", "user", 1)
    world.sender.thaw()
    await eventually(lambda: world.sender.told("outcome.dropped"))
    assert len(arrivals(world.server, "/hold")) == 1
    assert (await read_execution(world.other.client, execution_id))["status"] == "cancelled"
