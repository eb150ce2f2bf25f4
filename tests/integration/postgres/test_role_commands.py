"""The commands that are named after roles, as processes."""

from pathlib import Path

import pytest

from tests.e2e.world import create
from tests.support.databases import DatabaseKind, Databases
from tests.support.program import Program
from tests.support.raw_server import RawServer, reply
from tests.support.service import eventually


@pytest.mark.slow
async def test_scheduler_run_and_worker_run_are_a_service_together(
    databases: Databases, tmp_path: Path
):
    """`myscheduler scheduler run` leads and sends nothing; `myscheduler worker run` sends."""
    async with (
        databases.empty(DatabaseKind.POSTGRES) as url,
        RawServer((reply("ok"),)) as server,
        Program(tmp_path / "scheduler", url, command=("scheduler", "run")) as scheduler,
        Program(tmp_path / "worker", url, command=("worker", "run")) as worker,
    ):
        await scheduler.start()
        await create(
            scheduler.client, "steady", server.url("/"),
            schedule_type="interval", interval={"seconds": 1}, catch_up="all",
            overlap_policy="allow",
        )  # fmt: skip

        async def queued() -> bool:
            answer = await scheduler.client.get("/api/v1/executions", params={"status": "queued"})
            return len(answer.json()["executions"]) >= 2

        await eventually(queued)
        assert server.requests == []
        assert scheduler.told("leader.gained") == 1

        await worker.start()
        await eventually(lambda: len(server.requests) >= 3)
        assert worker.told("leader.gained") == 0
        assert not (await worker.client.get("/health")).json()["leading"]
        assert [await scheduler.stop(), await worker.stop()] == [0, 0]
