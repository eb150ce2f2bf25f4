"""Replicas behind a proxy that pools transactions, with the server itself named beside it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy as sa

from app.db.session import open_postgres, open_postgres_reader
from tests.e2e.world import arrivals, create
from tests.support.pooling_proxy import PoolingProxy
from tests.support.raw_server import RawServer
from tests.support.replicas import Brood, MortalPostgres, Replicas, Target, open_replicas
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SESSIONS = 3


@dataclass
class World:
    """A cluster behind a proxy, and the target of its jobs."""

    proxy: PoolingProxy
    replicas: Replicas
    server: RawServer
    target: Target


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(
    tmp_path_factory: pytest.TempPathFactory, postgres: MortalPostgres, brood: Brood
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("pooled")
    target = Target()
    async with (
        open_replicas(folder, postgres, brood, {}, {}, pooled=True) as replicas,
        RawServer((target,)) as server,
    ):
        assert replicas.pooling is not None
        await replicas.start()
        yield World(replicas.pooling, replicas, server, target)


async def test_replicas_work_behind_it(world: World):
    """One leads, jobs made on the other fire at once, and each instant arrives once."""
    leader = await world.replicas.new_leader()
    other = await world.replicas.follower()
    assert leader.told("leader.gained") == 1
    every: dict[str, Any] = {"schedule_type": "interval", "interval": {"seconds": 1}}
    for number in range(20):
        path = f"/job-{number}"
        await create(other.client, f"job-{number}", world.server.url(path), **every)

    def is_enough() -> bool:
        return all(len(arrivals(world.server, f"/job-{number}")) >= 3 for number in range(20))

    await eventually(is_enough)
    for number in range(20):
        seen = arrivals(world.server, f"/job-{number}")
        sent = [request.headers["webhook-id"] for request in seen]
        assert len(sent) == len(set(sent))
    assert world.proxy.refused == []
    assert len(world.proxy.used) == SESSIONS
    assert min(world.proxy.used.values()) > 20, "the transactions did not share the sessions"
    for replica in world.replicas.all:
        assert replica.told("storage.write_failed") == replica.told("storage.read_failed") == 0


async def test_the_limits_hold_behind_it(world: World):
    """A transaction has the server's deadlines, and leaves none of them to the session's next."""
    url = f"postgresql://postgres@127.0.0.1:{world.proxy.port}/{world.replicas.database}"
    engine = open_postgres(url, connections=1, proxied=True)
    reader = open_postgres_reader(url, connections=1, proxied=True)
    asked = sa.text("SELECT current_setting('statement_timeout'),"
                    " current_setting('idle_in_transaction_session_timeout')")  # fmt: skip
    try:
        async with engine.begin() as connection:
            assert tuple((await connection.execute(asked)).one()) == ("4s", "3s")
        found = await reader.read(lambda connection: tuple(connection.execute(asked).one()))
        assert found == ("10s", "3s")
        for _ in range(SESSIONS):
            assert await _setting(url) == "0"
    finally:
        await engine.dispose()
        await reader.close()


async def test_without_the_servers_own_address(
    tmp_path: Path, postgres: MortalPostgres, brood: Brood
):
    """Behind such a proxy alone a replica does not start, and says what to set."""
    alone = {"MYSCHEDULER_DATABASE_DIRECT_URL": ""}
    async with open_replicas(tmp_path, postgres, brood, alone, pooled=True) as replicas:
        (replica,) = replicas.all
        await replica.launch()
        assert await replica.ended() == 1
        assert "MYSCHEDULER_DATABASE_DIRECT_URL" in replica.log_path.read_text(encoding="utf-8")


async def _setting(url: str) -> str:
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        async with connection.transaction():
            found: str = await connection.fetchval("SHOW statement_timeout")
            return found
    finally:
        await connection.close()
