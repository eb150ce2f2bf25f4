"""What is true of the service in and after every fault of its storage, read from outside."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.e2e.world import assert_no_gap, create, instant, is_final, read_history
from tests.support.raw_server import RawServer
from tests.support.service import Service, eventually

SECOND = timedelta(seconds=1)


async def counts_up(
    service: Service, target: RawServer, job_ids: Iterable[str]
) -> dict[str, datetime]:
    """Make jobs that run every second and wait until each has; tell when each begins."""
    first = {}
    for job_id in job_ids:
        created = await create(
            service.client, job_id, target.url(f"/{job_id}"),
            schedule_type="interval", interval={"seconds": 1},
            misfire_grace_time=0.5, catch_up="all",
        )  # fmt: skip
        first[job_id] = instant(created["next_run_time"])

    async def run_once() -> bool:
        rows = [await read_history(service.client, job_id) for job_id in first]
        return all(any(row["status"] == "completed" for row in history) for history in rows)

    await eventually(run_once)
    return first


async def is_ready(client: httpx.AsyncClient) -> bool:
    """Tell whether readiness is told."""
    return (await client.get("/health/ready")).status_code == 200


async def check_refused(service: Service, target: RawServer) -> None:
    """A change is refused with 503 and a time to come back, readiness fails, reads work."""
    job = {
        "job_id": "refused", "target_url": target.url("/refused"),
        "schedule_type": "interval", "interval": {"seconds": 1},
    }  # fmt: skip
    answer = await service.client.post("/api/v1/jobs", json=job)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    problem = answer.json()
    assert problem["code"] == "storage_unavailable"
    assert "nothing was stored" in problem["detail"]

    ready = await service.client.get("/health/ready")
    assert ready.status_code == 503
    unwell = {check["name"] for check in ready.json()["checks"] if not check["healthy"]}
    assert "database" in unwell

    assert (await service.client.get("/health/live")).status_code == 200
    assert (await service.client.get("/api/v1/jobs")).status_code == 200
    assert (await service.client.get("/api/v1/jobs/refused")).status_code == 404


async def check_account(
    service: Service,
    target: RawServer,
    first: Mapping[str, datetime],
    *,
    until: datetime,
    once: Iterable[str] = (),
) -> None:
    """Every instant up to a moment has one row and an end; what was sent has a row, once each.

    ``once`` are jobs that ran beside those that run every second.
    """
    for job_id, begin in first.items():
        assert_no_gap(await settled(service, job_id, until=until), first=begin, period=SECOND)
    # First what was sent, then the rows: they are older.
    sent = Counter(
        (request.headers["webhook-id"], request.headers["x-scheduler-attempt"])
        for request in target.requests
    )
    rows = [row for job_id in (*first, *once) for row in await read_history(service.client, job_id)]
    assert [key for key, count in sent.items() if count > 1] == []
    assert {execution_id for execution_id, _ in sent} <= {row["execution_id"] for row in rows}


async def settled(service: Service, job_id: str, *, until: datetime) -> list[dict[str, Any]]:
    """Wait until a job has gone on beyond a moment and all before that is over."""

    async def is_settled() -> list[dict[str, Any]] | None:
        rows = await read_history(service.client, job_id)
        later = [row for row in rows if instant(row["scheduled_for"]) > until]
        over = all(is_final(row) for row in rows if row not in later)
        return rows if over and any(row["status"] == "completed" for row in later) else None

    found: list[dict[str, Any]] = await eventually(is_settled)
    return found
