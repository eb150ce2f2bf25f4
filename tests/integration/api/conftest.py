"""One service per module and database, in this process, and a client that asks it for jobs."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest_asyncio

from tests.support.homes import Home
from tests.support.service import eventually, open_api, settings_for

JOBS = "/api/v1/jobs"
# Valid, and never due while tests run; nothing listens on port 9.
JOB = {
    "schedule_type": "cron",
    "cron": {"year": "2099"},
    "target_url": "http://127.0.0.1:9/hook",
}


@dataclass(slots=True)
class Client:
    """A client of the service; ids of its own for every test."""

    http: httpx.AsyncClient
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_id(self) -> str:
        """Make an id that no other test uses."""
        return f"job-{next(self._numbers)}"

    async def create(self, **fields: Any) -> httpx.Response:
        """Ask for a job: a valid one, with these fields changed."""
        return await self.send({**JOB, **fields})

    async def send(self, document: Any) -> httpx.Response:
        """Ask for a job by a document, surrogates and all."""
        return await self.send_bytes(json.dumps(document).encode())

    async def send_bytes(
        self, body: bytes, content_type: str | None = "application/json"
    ) -> httpx.Response:
        """Ask for a job byte for byte."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        return await self.http.post(JOBS, content=body, headers=headers)

    async def stored(self, **fields: Any) -> str:
        """Store a job and return its id."""
        answer = await self.create(**{"job_id": self.new_id(), **fields})
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def get(self, path: str) -> Any:
        """Read a document below the collection of jobs."""
        answer = await self.http.get(JOBS + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def act(self, job_id: str, action: str) -> httpx.Response:
        """Pause, resume or trigger a job."""
        return await self.http.post(f"{JOBS}/{job_id}/{action}")

    async def info(self, job_id: str) -> dict[str, Any]:
        """Read a job as the list shows it."""
        jobs = (await self.get(""))["jobs"]
        found: dict[str, Any] = next(job for job in jobs if job["job_id"] == job_id)
        return found

    async def count(self) -> int:
        """Count all jobs."""
        return len((await self.get(""))["jobs"])

    async def finished(self, job_id: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until so many executions of a job have ended; newest first."""

        async def ended() -> list[dict[str, Any]]:
            history = (await self.get(f"/{job_id}/executions"))["executions"]
            over = [execution for execution in history if execution["completed_at"]]
            return over if len(over) >= number else []

        found: list[dict[str, Any]] = await eventually(ended)
        return found

    async def run(self, **fields: Any) -> dict[str, Any]:
        """Store a job, trigger it and return the execution once it has ended."""
        job_id = await self.stored(**fields)
        assert (await self.act(job_id, "trigger")).status_code == 200
        return (await self.finished(job_id))[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(module_home: Home) -> AsyncIterator[Client]:
    """Serve one module's tests on one kind of database."""
    async with open_api(settings_for(module_home)) as http:
        yield Client(http)
