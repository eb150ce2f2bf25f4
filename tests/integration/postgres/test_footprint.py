"""What a replica costs its PostgreSQL, as README.md and k8s/replicas say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.e2e.world import create
from tests.support.databases import DatabaseKind, Databases
from tests.support.program import Program
from tests.support.raw_server import RawServer, reply
from tests.support.service import ROOT, eventually

CONNECTIONS_MAX = 10
AT_ONCE = 20
TURNS = 5
LOOKS = 5


@pytest.mark.slow
async def test_a_replica_takes_at_most_ten_connections(databases: Databases, tmp_path: Path):
    """However many requests and runs there are at once, the connections are those that are told."""
    async with (
        databases.empty(DatabaseKind.POSTGRES) as url,
        RawServer((reply("ok"),)) as server,
        Program(tmp_path / "replica", url) as replica,
    ):
        await replica.start()
        await create(
            replica.client, "job", server.url("/"), schedule_type="date",
            run_at="2099-01-01T00:00:00Z", max_instances=AT_ONCE,
        )  # fmt: skip
        found: list[int] = []
        async with watching(url) as count, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(_use(replica, TURNS))

            async def all_sent() -> bool:
                found.append(await count())
                return len(server.requests) >= AT_ONCE * TURNS

            await eventually(all_sent, seconds=60)
        # A server process outlives its connection by a moment, longer on a busy machine: what few
        # looks in a row find is such.
        lasting = max(min(found[first : first + LOOKS]) for first in range(len(found) - LOOKS + 1))
        assert CONNECTIONS_MAX - 2 <= lasting <= CONNECTIONS_MAX


async def _use(replica: Program, turns: int) -> None:
    """Trigger runs and read about them, again and again."""
    for _ in range(turns):
        for method, path in (("POST", "/api/v1/jobs/job/trigger"), ("GET", "/api/v1/executions")):
            answer = await replica.client.request(method, path)
            assert answer.status_code == 200, answer.text


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Give a function that counts the connections to a database from elsewhere."""
    address = make_url(url)
    watcher = await asyncpg.connect(host=address.query["host"], user="postgres")

    async def count() -> int:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
        counted: int = await watcher.fetchval(statement, address.database)
        return counted

    try:
        yield count
    finally:
        await watcher.close()


def test_the_pages_tell_it():
    """The figure is where operators look for it."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    scaler = (ROOT / "k8s" / "replicas" / "autoscaler.yaml").read_text(encoding="utf-8")
    assert "up to ten connections" in page
    assert "up to ten connections" in scaler
