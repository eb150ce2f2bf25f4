"""Another process holds the database's lock: the loop goes on, readiness tells, all is made up."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.chaos.judge import check_account, check_refused, counts_up, is_ready
from tests.e2e.world import CLOCK
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, eventually
from tests.support.storage import locked

pytestmark = pytest.mark.only_on(
    DatabaseKind.SQLITE, because="a server's clients lock rows: see test_replicas"
)

# A minute, beside the seconds that a busy file takes: make sweep.
HELD_SECONDS = [
    pytest.param(7, marks=pytest.mark.slow),
    pytest.param(60, marks=pytest.mark.sweep),
]
READINESS_TELLS_WITHIN = 5.0
PROBE_EVERY = 0.05
# Of an answer (usual: 2 ms). One in fifty may meet a machine that is busy with other tests.
LIVE_WITHIN = 0.1
STALLED = 1.0
JOBS = ("tick-a", "tick-b")


class Probe:
    """Asks for liveness every 50 ms, from a connection of its own, and remembers the waits."""

    def __init__(self, service: Service) -> None:
        self.waits: list[float] = []
        self._client = httpx.AsyncClient(base_url=service.client.base_url, timeout=30)

    async def run(self, stop: asyncio.Event) -> None:
        async with self._client as client:
            while not stop.is_set():
                begin = time.perf_counter()
                assert (await client.get("/health/live")).status_code == 200
                self.waits.append(time.perf_counter() - begin)
                try:
                    async with asyncio.timeout(PROBE_EVERY):
                        await stop.wait()
                except TimeoutError:
                    continue


@pytest.mark.parametrize("seconds", HELD_SECONDS)
async def test_a_locked_database_heals_by_itself(home: Home, tmp_path: Path, seconds: int):
    """The loop never stalls, readiness tells at once, nothing unwritten is sent, nothing lost."""
    database = tmp_path / "data" / "jobs.db"
    stop = asyncio.Event()
    async with RawServer((reply(),)) as target, Service(home) as service:
        service.client.timeout = httpx.Timeout(30)
        first = await counts_up(service, target, JOBS)
        probe = Probe(service)
        async with asyncio.TaskGroup() as group:
            group.create_task(probe.run(stop))
            async with locked(database):
                begin = time.perf_counter()
                await eventually(lambda: _is_unready(service))
                assert time.perf_counter() - begin < READINESS_TELLS_WITHIN
                sent = len(target.requests)
                await check_refused(service, target)
                await eventually(lambda: time.perf_counter() - begin > seconds, seconds=seconds + 5)
                assert len(target.requests) == sent
            await eventually(lambda: is_ready(service.client))
            stop.set()
        await check_account(service, target, first, until=CLOCK.now())
    assert len(probe.waits) > seconds / PROBE_EVERY / 2
    waits = sorted(probe.waits)
    assert waits[-len(waits) // 50] < LIVE_WITHIN, waits[-10:]
    assert waits[-1] < STALLED, waits[-10:]


async def _is_unready(service: Service) -> bool:
    return not await is_ready(service.client)
