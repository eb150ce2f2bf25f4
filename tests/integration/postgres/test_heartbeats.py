"""Runs of workers that die, hang, live on or lose the database, as processes on one PostgreSQL.

The jobs may take ten minutes: what is lost is found by leases that are renewed, not by its timeout.
Leases and the rescuer's patience are a tenth of those in use; with those it is a sweep.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.world import (
    Row,
    Script,
    arrivals,
    create,
    read_execution,
    reply_after,
    trigger,
    wait_for_end,
)
from tests.support.raw_server import RawServer, reply
from tests.support.replicas import Brood, MortalPostgres, Replica, Replicas, open_replicas
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

TEN_MINUTES: Row = {
    "schedule_type": "date", "run_at": "2099-01-01T00:00:00Z", "timeout_sec": 600,
}  # fmt: skip
ROLES = ("scheduler", "worker", "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast things go: in seconds, a lease's longest, and until a dead worker's run is sent.

    ``gone``: for how long the database is away, longer than a lease. ``heals``: for how much longer
    a worker does not reach it, shorter than the rescuer is patient.
    """

    hurries: bool
    lease: float
    rescued: float
    gone: float
    heals: float


PACES = [
    pytest.param(
        Pace(hurries=True, lease=2, rescued=10, gone=3, heals=0.5), id="tenth"
    ),
    pytest.param(
        Pace(hurries=False, lease=30, rescued=45, gone=40, heals=6),
        id="in-use",
        marks=pytest.mark.sweep,
    ),
]  # fmt: skip


@dataclass
class World:
    """One replica that schedules, two that send, a target that holds its first answer."""

    replicas: Replicas
    server: RawServer
    pace: Pace
    let_go: asyncio.Event

    @property
    def scheduler(self) -> Replica:
        """The one that leads."""
        return self.replicas.all[0]

    async def hold(self, job_id: str) -> tuple[str, Replica]:
        """Have a request under way; give its execution and the worker that sends it."""
        client = self.scheduler.client
        await create(client, job_id, self.server.url(f"/{job_id}"), **TEN_MINUTES)
        execution_id = await trigger(client, job_id)
        await eventually(lambda: arrivals(self.server, f"/{job_id}"), every=0.005)
        [row] = await self.replicas.rows("SELECT owner FROM executions WHERE id = $1", execution_id)
        pid = int(row["owner"].split(":")[1])
        return execution_id, next(one for one in self.replicas.all if one.pid == pid)

    async def check_sent_again(self, job_id: str, execution_id: str) -> None:
        """See a lost run sent by another worker, under its id, and told so."""
        path, seconds = f"/{job_id}", self.pace.rescued
        clock = time.monotonic()
        await eventually(lambda: len(arrivals(self.server, path)) == 2, seconds=seconds)
        _tell("sent again after", time.monotonic() - clock)
        first, second = arrivals(self.server, path)
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == execution_id
        row = await wait_for_end(self.scheduler.client, job_id)
        assert (row["status"], row["attempts"]) == ("completed", 2)
        assert [one["outcome"] for one in row["attempt_list"]] == ["lost", "response"]

    async def check_sent_once(self, job_id: str) -> None:
        """See a run that is answered now end by that answer, and no other attempt made."""
        self.let_go.set()
        row = await wait_for_end(self.scheduler.client, job_id)
        assert (row["status"], row["attempts"]) == ("completed", 1)
        assert len(arrivals(self.server, f"/{job_id}")) == 1
        assert [one.told("attempt.lost") for one in self.replicas.all] == [0, 0, 0]


@pytest_asyncio.fixture(loop_scope="module", params=PACES)
async def world(
    request: pytest.FixtureRequest,
    brood: Brood,
    postgres: MortalPostgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    """Start the replicas on an empty database."""
    let_go = asyncio.Event()
    script = Script(
        {"/lost": (reply_after(let_go), reply("again")), "/kept": (reply_after(let_go),)}
    )
    roles = [{"MYSCHEDULER_ROLE": role} for role in ROLES]
    async with (
        RawServer((script,)) as server,
        open_replicas(tmp_path_factory.mktemp("beats"), postgres, brood, *roles) as replicas,
    ):
        for replica in replicas.all:
            replica.hurries = request.param.hurries
        await replicas.start()
        await replicas.new_leader()
        yield World(replicas, server, request.param, let_go)
        let_go.set()


async def test_a_killed_workers_run_is_soon_sent_again(world: World):
    """After kill -9 of a worker another one sends its run, whatever the run's timeout."""
    execution_id, sender = await world.hold("lost")
    await sender.kill()
    await world.check_sent_again("lost", execution_id)


async def test_a_stopped_workers_run_is_soon_sent_again(world: World):
    """A worker suspended for longer than its lease loses its run, and changes nothing later."""
    execution_id, sender = await world.hold("lost")
    sender.freeze()
    await world.check_sent_again("lost", execution_id)
    before = await read_execution(world.scheduler.client, execution_id)
    world.let_go.set()
    sender.thaw()
    await eventually(lambda: sender.told("outcome.dropped"))
    assert await read_execution(world.scheduler.client, execution_id) == before


async def test_a_run_of_a_worker_that_lives_is_not_lost(world: World):
    """An attempt that takes three times as long as a lease is made once, and ends as answered."""
    await world.hold("kept")
    await asyncio.sleep(3 * world.pace.lease)
    await world.check_sent_once("kept")


async def test_a_run_outlives_an_outage_of_the_database(world: World):
    """While PostgreSQL is away all leases end; who lives renews them before any is held for lost.

    Also a worker that finds it again later than the leader does.
    """
    _, sender = await world.hold("kept")
    gained = world.scheduler.told("leader.gained")
    world.replicas.postgres.end(signal.SIGINT)
    await asyncio.sleep(world.pace.gone)
    sender.proxy.stall()
    await world.replicas.postgres.revive()
    await eventually(lambda: world.scheduler.told("leader.gained") > gained)
    await asyncio.sleep(world.pace.heals)
    sender.proxy.resume()
    await asyncio.sleep(world.pace.lease)
    await world.check_sent_once("kept")


def _tell(what: str, seconds: float) -> None:
    sys.stdout.write(f"\n{what}: {seconds:.2f} s\n")
