"""What arrived at the target and what the ledger says, held against each other."""

from collections import Counter
from datetime import timedelta

import pytest

from tests.e2e.world import Row, arrivals, assert_no_gap, create, instant, is_final, read_history
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, eventually

RUNS = 6


@pytest.mark.slow
async def test_no_instant_is_lost_or_doubled(home: Home):
    """Of a job that runs every second, each instant is in the ledger once and arrived once."""
    async with RawServer((reply(),)) as target, Service(home) as service:
        client = service.client
        created = await create(
            client,
            "tick",
            target.url("/tick"),
            schedule_type="interval",
            interval={"seconds": 1},
        )
        await eventually(lambda: len(target.requests) >= RUNS)
        assert (await client.post("/api/v1/jobs/tick/pause")).status_code == 200

        async def over() -> list[Row] | None:
            rows = await read_history(client, "tick")
            return rows if all(map(is_final, rows)) else None

        rows = await eventually(over)

    first = instant(created["next_run_time"])
    assert_no_gap(rows, first=first, period=timedelta(seconds=1))
    made = [row["execution_id"] for row in rows if row["attempts"]]
    assert len(made) >= RUNS
    assert {row["status"] for row in rows if row["attempts"]} == {"completed"}
    arrived = Counter(request.headers["webhook-id"] for request in arrivals(target, "/tick"))
    assert arrived == Counter(made)
