"""One service and its PostgreSQL, while the database is lost in every way: judged from outside.

The service is a process of its own behind a proxy. What must hold through each outage: every due
instant has its row and is sent, once; what was sent has a row; readiness and the API tell the
outage in time; and the service heals by itself.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import httpx
import pytest
import pytest_asyncio

from tests.chaos.judge import check_account, counts_up
from tests.e2e.world import (
    CLOCK,
    LATE_AT_MOST,
    arrivals,
    arrived_at,
    create,
    instant,
    read_history,
    trigger,
)
from tests.support.database_proxy import Loss
from tests.support.raw_server import RawServer
from tests.support.replicas import (
    Brood,
    MortalPostgres,
    Replica,
    Replicas,
    Target,
    open_replicas,
)
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

JOBS = ("steady-0", "steady-1", "steady-2")
NEVER = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}
READY_WITHIN = 5.0
# A statement's deadline, after a connection's.
ANSWER_WITHIN = 9.0
# A loop that waited for the database would stand still for a deadline, at least three seconds. The
# promise is 0.1 s, which a machine that does other things meanwhile cannot show from outside.
STALL_MAX = 2.0

# What a transaction of each station says and no other does.
STATIONS = {
    "tick": "INSERT INTO executions",
    "claim": "started_us=CAST(batch",
    "record": "SELECT executions.id, executions.owner, executions.fence",
}


@dataclass
class World:
    """A service at work on its database, and the target of its jobs."""

    replicas: Replicas
    server: RawServer
    first: dict[str, datetime] = field(default_factory=dict)
    once: list[str] = field(default_factory=list)

    @property
    def service(self) -> Replica:
        """The one replica."""
        return self.replicas.all[0]

    @property
    def client(self) -> httpx.AsyncClient:
        """A client of its API."""
        return self.service.client

    async def judge(self) -> None:
        """Wait until all that was due by now is over, and compare rows, arrivals and proof."""
        await eventually(self.service.is_ready)
        await check_account(
            self.service, self.server, self.first, until=CLOCK.now(), once=self.once
        )
        proof = (await self.client.get("/api/v1/ledger/verify")).json()
        found = proof["proven"], proof["unaccounted_count"], proof["duplicates_count"]
        assert found == (True, 0, 0)

    def lateness(self) -> list[timedelta]:
        """Tell how late each request arrived."""
        return [
            arrived_at(request) - instant(request.headers["x-scheduler-scheduled-at"])
            for request in self.server.requests
        ]

    async def told_outage(self) -> None:
        """Readiness fails and a change is refused with a sentence and a time, both in time."""
        clock = time.monotonic()
        ready = await self.client.get("/health/ready")
        assert time.monotonic() - clock < READY_WITHIN
        assert ready.status_code == 503
        job = {"job_id": "refused", "target_url": self.server.url("/refused"), **NEVER}
        for method, body in (("POST", job), ("GET", None)):
            clock = time.monotonic()
            answer = await self.client.request(method, "/api/v1/jobs", json=body, timeout=30)
            assert time.monotonic() - clock < ANSWER_WITHIN, method
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] == "storage_unavailable"
            assert answer.json()["detail"].endswith("in a moment")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    brood: Brood, postgres: MortalPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Start a service with jobs that run every second."""
    folder = tmp_path_factory.mktemp("outages")
    async with (
        RawServer((Target(),)) as server,
        open_replicas(folder, postgres, brood, {}) as replicas,
    ):
        await replicas.start()
        world = World(replicas, server)
        world.first = await counts_up(world.service, server, JOBS)
        yield world


@contextlib.asynccontextmanager
async def always_alive(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Ask for liveness all the time, and judge by the longest answer that the loop turns."""
    took: list[float] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            clock = time.monotonic()
            assert (await client.get("/health/live")).status_code == 200
            took.append(time.monotonic() - clock)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        yield
        over.set()
    _tell("liveness took at most", max(took))
    assert max(took) < STALL_MAX


@pytest.mark.parametrize("how", Loss)
@pytest.mark.parametrize("station", STATIONS)
async def test_a_connection_reset_in_a_commit(world: World, station: str, how: Loss):
    """A reset as a tick, a claim or outcomes are committed loses and doubles nothing."""
    lost = world.service.proxy.lose_commit(STATIONS[station], how)
    async with asyncio.timeout(20):
        await lost.wait()
    await world.judge()
    # Nothing waited for a lease or for the next sweep, and every outcome was told.
    assert max(world.lateness()) < LATE_AT_MOST
    assert world.service.told("outcome.dropped") == 0


# How long PostgreSQL is gone. A minute is a sweep.
GONE = (pytest.param(5, id="5s"), pytest.param(60, id="60s", marks=pytest.mark.sweep))


@pytest.mark.parametrize("seconds", GONE)
async def test_a_database_that_is_gone(world: World, postgres: MortalPostgres, seconds: int):
    """While PostgreSQL is away it is told in time; then all that was due is accounted for."""
    async with always_alive(world.client):
        postgres.end(signal.SIGINT)
        back_at = time.monotonic() + seconds
        await world.told_outage()
        sent = len(world.server.requests)
        await asyncio.sleep(back_at - time.monotonic())
        assert len(world.server.requests) == sent
        await postgres.revive()
        clock = time.monotonic()
        await world.judge()
    _tell(f"all accounted for after {seconds} s without PostgreSQL", time.monotonic() - clock)


async def test_a_database_that_restarts_at_once(world: World, postgres: MortalPostgres):
    """A restart of PostgreSQL, and its crash, are got over."""
    for number in (signal.SIGINT, signal.SIGKILL):
        postgres.end(number)
        await postgres.revive()
        await world.judge()


async def test_a_database_that_stalls(world: World):
    """Connections that carry nothing are told in time, do not stop the loop, and are replaced."""
    async with always_alive(world.client):
        world.service.proxy.stall()
        await world.told_outage()
        world.service.proxy.resume()
        await world.judge()


async def test_connections_that_stalled_and_vanish(world: World):
    """What stalled and is then reset heals as well."""
    async with always_alive(world.client):
        world.service.proxy.stall()
        await world.told_outage()
        world.service.proxy.reset()
        world.service.proxy.resume()
        await world.judge()


async def test_resets_in_a_row(world: World):
    """Connections that are reset again and again, in whatever they do, lose and double nothing."""
    async with always_alive(world.client):
        for _ in range(30):
            world.service.proxy.reset()
            await asyncio.sleep(0.1)
        await world.judge()


async def test_a_claim_in_doubt_waits_for_no_lease(world: World):
    """What was claimed in a commit without an answer is sent within seconds, once."""
    path = "/claimed"
    job_id = path[1:]
    await create(world.client, job_id, world.server.url(path), timeout_sec=300, **NEVER)
    world.once.append(job_id)
    for job in JOBS:
        assert (await world.client.post(f"/api/v1/jobs/{job}/pause")).status_code == 200
    await eventually(partial(_is_idle, world))
    lost = world.service.proxy.lose_commit(STATIONS["claim"], Loss.UNANSWERED)
    await trigger(world.client, job_id)
    await eventually(lambda: arrivals(world.server, path), seconds=5)
    assert lost.is_set()
    [row] = await eventually(partial(_completed, world, job_id))
    assert row["attempts"] == 1
    assert len(arrivals(world.server, path)) == 1
    job = (await world.client.get(f"/api/v1/jobs/{job_id}")).json()
    assert job["execution_count"] == 1
    for job in JOBS:
        assert (await world.client.post(f"/api/v1/jobs/{job}/resume")).status_code == 200


@pytest.mark.parametrize("how", Loss)
async def test_a_request_in_doubt_may_be_repeated(world: World, how: Loss):
    """A trigger whose commit went unanswered says so; its repetition under its key runs it once."""
    path = f"/{how}"
    job_id = path[1:]
    await create(world.client, job_id, world.server.url(path), **NEVER)
    world.once.append(job_id)
    trigger_path, key = f"/api/v1/jobs/{job_id}/trigger", {"Idempotency-Key": f"key-{how}"}
    world.service.proxy.lose_commit("INSERT INTO idempotency_keys", how)

    doubtful = await world.client.post(trigger_path, headers=key)
    assert (doubtful.status_code, doubtful.json()["code"]) == (503, "storage_unanswered")
    assert "may or may not be stored" in doubtful.json()["detail"]
    assert int(doubtful.headers["retry-after"]) >= 1
    if how is Loss.UNANSWERED:
        # What is stored is sent though nobody announced it.
        await eventually(partial(arrivals, world.server, path), seconds=5)
    repeated = await world.client.post(trigger_path, headers=key)
    assert repeated.status_code == 200
    [row] = await eventually(partial(_completed, world, job_id))
    assert row["execution_id"] == repeated.json()["execution_id"]
    await world.judge()
    assert len(arrivals(world.server, path)) == 1


async def _is_idle(world: World) -> bool:
    return not await world.replicas.rows(
        "SELECT 1 FROM executions WHERE status IN ('queued', 'running', 'retrying')"
    )


async def _completed(world: World, job_id: str) -> list[dict[str, object]]:
    rows = await read_history(world.client, job_id)
    return rows if rows and all(row["status"] == "completed" for row in rows) else []


def _tell(what: str, seconds: float) -> None:
    sys.stdout.write(f"\n{what}: {seconds:.2f} s\n")
