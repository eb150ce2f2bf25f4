"""All kinds of schedule, from the request that creates a job to the requests that it makes."""

import re
from datetime import timedelta
from typing import Any

import pytest

from app import __version__
from tests.e2e.world import (
    LATE_AT_MOST,
    Row,
    arrivals,
    arrived_at,
    assert_names,
    assert_no_gap,
    create,
    instant,
    read_history,
    soon,
)
from tests.support.homes import Home
from tests.support.raw_server import RawServer, Request, reply
from tests.support.service import Service, eventually

# Both lines of crontab and the quick start run at full minutes.
MINUTE_SECONDS = 75.0
PERIOD = timedelta(seconds=2)

KINDS: dict[str, dict[str, Any]] = {
    "cron": {
        "schedule_type": "cron",
        "cron": {"second": "*/2"},
        "method": "POST",
        "headers": {"X-Team": "night shift"},
        "body": {"kind": "nightly", "名前": "夜間"},
    },
    "crontab": {"schedule_type": "crontab", "crontab": "* * * * *"},
    "interval": {"schedule_type": "interval", "interval": {"seconds": 2}, "method": "DELETE"},
    "date": {"schedule_type": "date"},
}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_every_kind_of_job_fires_at_its_times(home: Home):
    """Jobs of all four kinds reach their target at their instants, under their execution's id."""
    async with RawServer((reply("done"),)) as target, Service(home) as service:
        client = service.client
        await _create_quick_start(service)
        first = {}
        for job_id, fields in KINDS.items():
            extra = {"run_at": soon(1.5)} if job_id == "date" else {}
            created = await create(client, job_id, target.url(f"/{job_id}"), **fields, **extra)
            first[job_id] = instant(created["next_run_time"])

        async def fired() -> Row | None:
            by_minute = await read_history(client, "health-check")
            done = arrivals(target, "/crontab") and by_minute
            return by_minute[0] if done and by_minute[0]["status"] == "completed" else None

        quick_start = await eventually(fired, seconds=MINUTE_SECONDS, every=0.2)
        assert (quick_start["http_status_code"], quick_start["cause"]) == (200, "schedule")
        assert instant(quick_start["scheduled_for"]).second == 0
        for job_id, due in first.items():
            await client.post(f"/api/v1/jobs/{job_id}/pause")
            rows = await _settled(client, job_id)
            assert instant(rows[0]["scheduled_for"]) == due
            _check_arrivals(rows, arrivals(target, f"/{job_id}"))
        for job_id in ("cron", "interval"):
            assert_no_gap(await read_history(client, job_id), first=first[job_id], period=PERIOD)
        assert (first["cron"].second % 2, first["cron"].microsecond) == (0, 0)
        assert (first["crontab"].second, first["crontab"].microsecond) == (0, 0)
        assert len(arrivals(target, "/date")) == 1
        assert (await client.get("/api/v1/jobs/date")).json()["status"] == "completed"
        _check_bytes(arrivals(target, "/cron")[0], arrivals(target, "/interval")[0])


async def _create_quick_start(service: Service) -> None:
    """Send what the quick start of the existing service sends."""
    answer = await service.client.post(
        "/api/v1/jobs/",
        json={
            "job_id": "health-check",
            "name": "Health Check",
            "schedule_type": "cron",
            "target_url": f"http://localhost:{service.port}/health",
            "method": "GET",
            "cron": {"minute": "*"},
        },
    )
    assert answer.status_code == 200
    assert answer.json()["job_id"] == "health-check"
    assert answer.json()["status"] == "scheduled"


async def _settled(client: Any, job_id: str) -> list[Row]:
    """Read a paused job's history once nothing of it runs; what never left is not in it."""

    async def settled() -> list[Row] | None:
        rows = [row for row in await read_history(client, job_id) if row["attempts"]]
        return rows if all(row["status"] == "completed" for row in rows) else None

    rows: list[Row] = await eventually(settled)
    return rows


def _check_arrivals(rows: list[Row], requests: list[Request]) -> None:
    """Check that each execution arrived once, in time, and that nothing else did."""
    assert len(requests) == len(rows)
    for row, request in zip(rows, requests, strict=True):
        due, arrived = instant(row["scheduled_for"]), arrived_at(request)
        assert_names(request, row)
        assert due <= arrived <= due + LATE_AT_MOST
        sent = int(request.headers["webhook-timestamp"])
        assert abs(arrived.timestamp() - sent) <= LATE_AT_MOST.total_seconds()
        assert row["cause"] == "schedule"
        assert (row["http_status_code"], row["result"]["response_body"]) == (200, "done")


def _check_bytes(posted: Request, deleted: Request) -> None:
    """Check methods, the job's own header and body, and the headers that are always there."""
    assert posted.line == b"POST /cron HTTP/1.1"
    assert posted.headers["x-team"] == "night shift"
    assert posted.headers["content-type"] == "application/json"
    assert posted.body.decode() == '{"kind":"nightly","名前":"夜間"}'
    assert (deleted.line, deleted.body) == (b"DELETE /interval HTTP/1.1", b"")
    for request in (posted, deleted):
        assert request.headers["user-agent"] == f"MyScheduler/{__version__}"
        assert request.headers["accept-encoding"] == "identity"
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", request.headers["traceparent"])
