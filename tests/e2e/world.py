"""What the tests of the whole service share: calls of its API, a scripted target, and time.

Everything goes through public interfaces: HTTP, signals, exit codes and the log.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from app.domain.clock import SystemClock
from app.domain.execution import FINAL_STATUSES
from tests.support.raw_server import Exchange, RawServer, Request, Step, reply
from tests.support.service import ROOT, WAIT_SECONDS, eventually

CLOCK = SystemClock()
# How late a run may begin on a machine that is busy with other tests.
LATE_AT_MOST = timedelta(seconds=3)

Row = dict[str, Any]


class Script:
    """One step of a target that answers each path by steps of its own; a path's last repeats."""

    def __init__(self, steps: Mapping[str, tuple[Step, ...]]) -> None:
        self._steps = steps
        self._turns: Counter[str] = Counter()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer as the path's next step does."""
        path = path_of(exchange.request)
        steps = self._steps[path]
        turn = self._turns[path]
        self._turns[path] += 1
        await steps[min(turn, len(steps) - 1)](exchange)


def reply_after(event: asyncio.Event) -> Step:
    """Hold the answer until an event is set."""

    async def step(exchange: Exchange) -> None:
        while not event.is_set():
            if await exchange.pause(0.01):
                return
        await reply("at last")(exchange)

    return step


def path_of(request: Request) -> str:
    """Tell the path that was called."""
    return request.line.split()[1].decode()


def arrivals(target: RawServer, path: str) -> list[Request]:
    """List what arrived at a path, in order."""
    return [request for request in target.requests if path_of(request) == path]


def arrived_at(request: Request) -> datetime:
    """Tell by the wall clock when a request arrived."""
    return CLOCK.now() - timedelta(seconds=asyncio.get_running_loop().time() - request.at)


def soon(seconds: float) -> str:
    """Write an instant to come, for ``run_at``."""
    return (CLOCK.now() + timedelta(seconds=seconds)).isoformat()


def instant(text: str) -> datetime:
    """Read a time of the API."""
    return datetime.fromisoformat(text)


async def run_python(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run Python in a folder until it ends; return exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments,
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def until(moment: datetime) -> None:
    """Wait until the wall clock has reached a moment."""
    seconds = (moment - CLOCK.now()).total_seconds() + 5
    await eventually(lambda: CLOCK.now() >= moment, seconds=max(seconds, 5))


async def create(client: httpx.AsyncClient, job_id: str, target_url: str, **fields: Any) -> Row:
    """Create a job and return the answer."""
    job = {"job_id": job_id, "target_url": target_url, **fields}
    answer = await client.post("/api/v1/jobs", json=job)
    assert answer.status_code == 200, answer.text
    created: Row = answer.json()
    assert created["warnings"] == []
    return created


async def trigger(client: httpx.AsyncClient, job_id: str) -> str:
    """Run a job once more and return the execution's id."""
    answer = await client.post(f"/api/v1/jobs/{job_id}/trigger")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["execution_id"])


async def read_history(client: httpx.AsyncClient, job_id: str) -> list[Row]:
    """Read all executions of a job, oldest due instant first."""
    page = (await client.get(f"/api/v1/jobs/{job_id}/executions", params={"limit": 1000})).json()
    assert page["next_cursor"] is None
    rows: list[Row] = page["executions"]
    return sorted(rows, key=lambda row: instant(row["scheduled_for"]))


async def read_recent(client: httpx.AsyncClient) -> dict[str, Row]:
    """Read the executions of all jobs, by id."""
    page = (await client.get("/api/v1/jobs/executions/recent", params={"limit": 1000})).json()
    assert page["next_cursor"] is None
    return {row["execution_id"]: row for row in page["executions"]}


async def read_execution(client: httpx.AsyncClient, execution_id: str) -> Row:
    """Read one execution with its attempts."""
    row: Row = (await client.get(f"/api/v1/executions/{execution_id}")).json()
    return row


async def wait_for_end(
    client: httpx.AsyncClient, job_id: str, *, seconds: float = WAIT_SECONDS
) -> Row:
    """Wait until a job's only execution is over, and return it with its attempts."""

    async def ended() -> Row | None:
        rows = await read_history(client, job_id)
        assert len(rows) <= 1
        return await read_execution(client, rows[0]["execution_id"]) if _all_final(rows) else None

    row: Row = await eventually(ended, seconds=seconds)
    return row


def is_final(row: Row) -> bool:
    """Tell whether an execution is over."""
    return row["status"] in FINAL_STATUSES


def _all_final(rows: list[Row]) -> bool:
    return bool(rows) and all(map(is_final, rows))


def instants_of(rows: list[Row], period: timedelta) -> list[datetime]:
    """List the due instants that rows account for; a stretch stands for several."""
    found: list[datetime] = []
    for row in rows:
        first = instant(row["scheduled_for"])
        listed = [first + number * period for number in range(row["instant_count"])]
        assert row["scheduled_until"] is None or instant(row["scheduled_until"]) == listed[-1]
        found += listed
    return found


def assert_no_gap(rows: list[Row], *, first: datetime, period: timedelta) -> None:
    """Check that from the first one on, every due instant has one entry and no more."""
    found = instants_of(rows, period)
    assert found == [first + number * period for number in range(len(found))]


def assert_names(request: Request, row: Row, *, attempt: int = 1) -> None:
    """Check that a request names the execution and the attempt it was made for."""
    headers = request.headers
    scheduled = instant(headers["x-scheduler-scheduled-at"])
    assert headers["webhook-id"] == row["execution_id"]
    assert headers["idempotency-key"] == row["execution_id"]
    assert headers["x-scheduler-job-id"] == row["job_id"]
    assert headers["x-scheduler-attempt"] == str(attempt)
    assert scheduled == instant(row["scheduled_for"])
