"""The leader is cut off from PostgreSQL, by lost packets and by a proxy that carries nothing.

The packets are lost between network namespaces, which need root. Without it that part is skipped,
and its reason says so; on such a machine it is run by::

    sudo .venv/bin/python -m pytest tests/chaos/test_partition.py
"""

import contextlib
import functools
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.domain.clock import to_us
from tests.chaos.arrivals import Row, ask_rows, find_contradictions, instants_of, whole
from tests.e2e.world import create, instant
from tests.support.database_proxy import DatabaseProxy
from tests.support.databases import DatabaseKind, PostgresServer
from tests.support.partition import Wires, network_postgres, wires_refused
from tests.support.program import Program
from tests.support.raw_server import RawServer, reply
from tests.support.replicas import mortal_postgres
from tests.support.service import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.only_on(DatabaseKind.POSTGRES, because="replicas share a server"),
]

SECOND_US = 1_000_000
JOBS = 3
TAKEOVER_SECONDS = 15
DATABASE = "cut"
EVERY_SECOND: dict[str, Any] = {
    "schedule_type": "interval", "interval": {"seconds": 1},
    "catch_up": "all", "overlap_policy": "allow",
}  # fmt: skip
_LEADERSHIP = "SELECT term, split_part(holder, ':', 2)::integer AS pid FROM leadership"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Two replicas, and the means to cut one off."""

    replicas: list[Program]
    server: RawServer
    ask: Callable[[str], Any]
    cut: Callable[[int], None]
    heal: Callable[[int], None]

    async def leader(self) -> int | None:
        """Tell which replica is written down as leader while somebody holds the lock."""
        held = (
            "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted"
            " AND locktype = 'advisory' AND application_name = 'myscheduler leader'"
        )
        [row] = await self.ask(_LEADERSHIP) or [None]
        if row is None or not await self.ask(held):
            return None
        return next((n for n, one in enumerate(self.replicas) if one.pid == row["pid"]), None)

    async def leads(self, number: int) -> bool:
        """Tell whether this replica leads."""
        return await self.leader() == number


@contextlib.asynccontextmanager
async def proxied(folder: Path) -> AsyncIterator[Cluster]:
    """Put a proxy before each replica."""
    with mortal_postgres() as postgres:
        await postgres.create(DATABASE)
        async with contextlib.AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(DatabaseProxy(postgres.socket_path()))
                for _ in range(2)
            ]
            urls = [f"postgresql://postgres@127.0.0.1:{one.port}/{DATABASE}" for one in proxies]
            replicas = [
                await stack.enter_async_context(Program(folder / f"replica-{number}", url))
                for number, url in enumerate(urls)
            ]
            server = await stack.enter_async_context(RawServer((reply("ok"),)))
            yield Cluster(
                replicas=replicas,
                server=server,
                ask=functools.partial(ask, postgres),
                cut=lambda number: proxies[number].stall(),
                heal=lambda number: proxies[number].resume(),
            )


@contextlib.asynccontextmanager
async def wired(folder: Path) -> AsyncIterator[Cluster]:
    """Put each replica into a network namespace."""
    refused = wires_refused()
    if refused is not None:
        pytest.skip(f"{refused}; see the top of this file")
    with Wires(2) as wires, network_postgres(wires.database_host) as postgres:
        await postgres.create(DATABASE)
        async with contextlib.AsyncExitStack() as stack:
            replicas = [
                await stack.enter_async_context(
                    Program(
                        folder / f"replica-{number}",
                        postgres.network_url(DATABASE),
                        within=wires.within(number),
                        host=wires.host_of(number),
                    )
                )
                for number in range(2)
            ]
            server = RawServer((reply("ok"),), host=wires.web_host)
            await stack.enter_async_context(server)
            yield Cluster(
                replicas=replicas,
                server=server,
                ask=functools.partial(ask, postgres),
                cut=wires.cut,
                heal=wires.heal,
            )


async def ask(postgres: PostgresServer, statement: str) -> list[asyncpg.Record]:
    """Read from the database on a way of one's own."""
    connection = await asyncpg.connect(
        host=str(postgres.folder), user="postgres", database=DATABASE
    )
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.mark.parametrize("network", [proxied, wired], ids=["proxy", "namespaces"])
async def test_a_leader_that_is_cut_off_is_replaced_and_fenced(
    tmp_path: Path, network: Callable[[Path], contextlib.AbstractAsyncContextManager[Cluster]]
):
    """Another leads within 15 s, the old one commits nothing more and returns as follower."""
    async with network(tmp_path) as cluster:
        first = await _start(cluster)
        [old] = await eventually(lambda: _some(cluster))
        new = 1 - old
        [before] = await cluster.ask(_LEADERSHIP)

        began = time.monotonic()
        cluster.cut(old)
        await eventually(lambda: cluster.leads(new), seconds=2 * TAKEOVER_SECONDS)
        took = time.monotonic() - began
        sys.stdout.write(f"\ntakeover after {took:.1f} s\n")
        await _ticks(cluster)
        # Cut off it is not ready, so that nobody sends it requests, and it lives.
        assert (await cluster.replicas[old].client.get("/health/live")).status_code == 200
        assert not await cluster.replicas[old].is_ready()

        cluster.heal(old)
        await eventually(cluster.replicas[old].is_ready, seconds=60)
        await _ticks(cluster)
        assert took <= TAKEOVER_SECONDS
        await _check_follower(cluster, old, term=before["term"] + 1)
        await _judge(cluster, first)


async def _start(cluster: Cluster) -> dict[str, int]:
    """Start both with jobs; tell when each of these begins."""
    for replica in cluster.replicas:
        await replica.start()
    first = {}
    for number in range(JOBS):
        job_id = f"job-{number}"
        url = f"http://{cluster.server.host}:{cluster.server.port}/{job_id}"
        made = await create(cluster.replicas[number % 2].client, job_id, url, **EVERY_SECOND)
        first[job_id] = to_us(instant(made["next_run_time"]))
    await _ticks(cluster)
    return first


async def _ticks(cluster: Cluster) -> None:
    """Wait until every job was sent three times more."""
    sent = len(cluster.server.requests)
    await eventually(lambda: len(cluster.server.requests) >= sent + 3 * JOBS)


async def _some(cluster: Cluster) -> list[int]:
    """Give the leader, if there is one."""
    leader = await cluster.leader()
    return [] if leader is None else [leader]


async def _check_follower(cluster: Cluster, old: int, *, term: int) -> None:
    """There was one change of leader, and the one before stands by."""
    [now] = await cluster.ask(_LEADERSHIP)
    assert (now["term"], now["pid"]) == (term, cluster.replicas[1 - old].pid)
    for number, replica in enumerate(cluster.replicas):
        health = (await replica.client.get("/health/ready")).json()
        checks = {check["name"]: check["detail"] for check in health["checks"]}
        assert f":{now['pid']}:" in checks["leader"]
        assert f"in term {term}" in checks["leader"]
        assert ("standing by" in checks["scheduler"]) is (number == old)
        assert (await replica.client.get("/health")).json()["leading"] is (number != old)
    assert cluster.replicas[old].told("leader.gained") == 1


async def _judge(cluster: Cluster, first: dict[str, int]) -> None:
    """Each instant has a row, each arrival a row, and the service's own proof agrees."""
    client = cluster.replicas[0].client
    for job_id in first:
        assert (await client.post(f"/api/v1/jobs/{job_id}/pause")).status_code == 200
    unended = "SELECT 1 FROM executions WHERE status IN ('queued', 'running', 'retrying')"
    await eventually(lambda: _none(cluster, unended), seconds=90)

    rows = await ask_rows(cluster.ask)
    assert find_contradictions(rows, whole(cluster.server.requests)) == []
    of_job: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_job[row.job_id].append(row)
    for job_id, begin in first.items():
        found = instants_of(of_job[job_id], period_us=SECOND_US)
        assert found == [begin + n * SECOND_US for n in range(len(found))], job_id
    proof = (await client.get("/api/v1/ledger/verify")).json()
    assert proof["proven"], proof


async def _none(cluster: Cluster, statement: str) -> bool:
    return not await cluster.ask(statement)
