"""The command that moves a service to PostgreSQL, and the service that goes on there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.domain.ids import JobId, execution_id_for
from tests.e2e.world import Script, arrivals, create, reply_after, run_python
from tests.support.databases import DatabaseKind, Databases
from tests.support.homes import Home, sqlite_home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, eventually

# A lost attempt is settled by its lease: its timeout, ten seconds, and the next look.
SETTLED_WITHIN = 40.0


@pytest.fixture
async def target_url(databases: Databases) -> AsyncIterator[str]:
    """Give the address of a PostgreSQL database that holds nothing."""
    async with databases.empty(DatabaseKind.POSTGRES) as url:
        yield url


async def read(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def completed(client: httpx.AsyncClient, at_least: int) -> dict[str, Any]:
    """Read the ticking job's completed runs, once there are enough."""

    async def found() -> dict[str, Any] | None:
        page = await read(client, "/jobs/ticking/executions?limit=1000&status=completed")
        rows = {row["execution_id"]: row for row in page["executions"]}
        return rows if len(rows) >= at_least else None

    rows: dict[str, Any] = await eventually(found, seconds=60)
    return rows


async def move(folder: Path, target_url: str, *more: str) -> tuple[int, str, str]:
    source = f"sqlite:///{folder / 'data' / 'jobs.db'}"
    return await run_python(
        folder, "-m", "app", "move", "--from", source, *more, DATABASE_URL=target_url
    )


async def due_ids(url: str) -> list[tuple[str, str]]:
    """Read the ids of the ticking job's scheduled runs, and what they must be."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT id, clock_epoch, scheduled_us FROM executions"
            " WHERE job_id = 'ticking' AND cause = 'schedule' AND instant_count = 1"
        )
    finally:
        await connection.close()
    return [
        (
            row["id"],
            execution_id_for(
                JobId("ticking"),
                clock_epoch=row["clock_epoch"],
                scheduled_for_us=row["scheduled_us"],
            ),
        )
        for row in rows
    ]


@pytest.mark.slow
async def test_a_moved_service_goes_on(tmp_path: Path, target_url: str):
    """Killed, moved and started on PostgreSQL, the service goes on as if on its own file.

    What it did is read as before, what comes has the same ids, the run that was cut off is sent
    again under its id, and the whole ledger is proven.
    """
    let_go = asyncio.Event()
    script = Script({"/tick": (reply("ok"),), "/held": (reply_after(let_go), reply("ok"))})
    async with RawServer((script,)) as target:
        address = f"http://127.0.0.1:{target.port}"
        async with Service(sqlite_home(tmp_path)) as before:
            ticking = {"schedule_type": "interval", "interval": {"seconds": 1}}
            held = {"schedule_type": "cron", "cron": {"year": "2099"}, "timeout_sec": 5}
            await create(before.client, "ticking", f"{address}/tick", **ticking)
            await create(before.client, "held", f"{address}/held", **held)
            await completed(before.client, 2)
            code, _, err = await move(tmp_path, target_url)
            assert (code, "Another MyScheduler process uses" in err) == (1, True)
            history = await completed(before.client, 2)
            assert (await before.client.post("/api/v1/jobs/held/trigger")).status_code == 200
            await eventually(lambda: arrivals(target, "/held"))
            await before.kill()
        code, out, err = await move(tmp_path, target_url)
        assert (code, err) == (0, "")
        assert "Everything is moved" in out
        code, out, _ = await move(tmp_path, target_url, "--json")
        assert (code, json.loads(out)["outcome"]) == (0, "nothing_to_do")

        folder = tmp_path / "moved"
        folder.mkdir()
        moved = Home(kind=DatabaseKind.POSTGRES, folder=folder, url=target_url)
        async with Service(moved) as after:
            rows = await completed(after.client, len(history) + 2)
            assert {name: rows[name] for name in history} == history
            assert [found for found, wanted in await due_ids(target_url) if found != wanted] == []
            counted = await read(after.client, "/jobs/ticking")
            assert counted["totals"]["completed"] >= len(rows)
            await eventually(lambda: len(arrivals(target, "/held")) == 2, seconds=SETTLED_WITHIN)
            first, second = arrivals(target, "/held")
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            proof = await read(after.client, "/ledger/verify")
            assert (proof["proven"], proof["unaccounted_count"]) == (True, 0)
            code, _, err = await move(tmp_path, target_url, "--json")
            assert (code, "leads on the database of --to" in err) == (1, True)
