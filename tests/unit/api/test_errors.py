"""From errors to answers, with services that fail on purpose."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog

from app.core.config import Settings
from app.domain.errors import (
    JobBrokenError,
    SchedulerError,
    ShuttingDownError,
    StorageDamagedError,
    StorageUnansweredError,
    StorageUnavailableError,
)
from app.main import create_app

SECRET = "hunter2s3cr3t"


class FailingJobs:
    """A job service whose every use raises ``error``."""

    def __init__(self) -> None:
        self.error: Exception = RuntimeError(SECRET)

    async def show_all(self, _show: object) -> None:
        """Fail."""
        raise self.error


@pytest.fixture
def jobs() -> FailingJobs:
    """Make a service that fails."""
    return FailingJobs()


@pytest.fixture
async def client(jobs: FailingJobs) -> AsyncIterator[httpx.AsyncClient]:
    """Put the API in front of it."""
    services: Any = SimpleNamespace(job_lists=jobs)
    app = create_app(Settings(), services)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        yield http


async def test_an_unforeseen_error(client):
    """An unforeseen error is a 500 that shows nothing of itself and keeps the request's id."""
    with structlog.testing.capture_logs() as logged:
        answer = await client.get("/api/v1/jobs", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 500
    assert [(line["event"], line["request_id"]) for line in logged] == [("request.failed", "mine")]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == "mine"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "The service failed while it handled this request; its log has the details",
        "code": "internal_error",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageUnavailableError("The database takes no writes"), "storage_unavailable"),
        (ShuttingDownError("The service is stopping"), "shutting_down"),
        (StorageUnansweredError(), "storage_unanswered"),
        (StorageDamagedError(), "storage_damaged"),
    ],
)
async def test_an_outage(client, jobs, error, code):
    """What may succeed later is 503 with Retry-After in whole seconds."""
    jobs.error = error
    answer = await client.get("/api/v1/jobs")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"].isdigit()
    assert answer.json()["code"] == code
    assert answer.json()["detail"] == str(error)


async def test_a_conflict(client, jobs):
    """A contradiction to what is stored is 409."""
    jobs.error = JobBrokenError("a")
    answer = await client.get("/api/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_broken")


async def test_a_refusal_of_no_family(client, jobs):
    """A refusal that belongs to no family is a fault of ours, not of the client."""
    jobs.error = SchedulerError(SECRET)
    with structlog.testing.capture_logs():
        answer = await client.get("/api/v1/jobs")
    assert answer.status_code == 500
    assert SECRET not in answer.text
