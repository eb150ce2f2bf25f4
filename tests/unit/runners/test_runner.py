"""The runner's boundary: any transport, no exception."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import structlog

from app.domain.clock import SystemClock
from app.domain.execution import Attempt, AttemptOutcome, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.job import HttpTarget
from app.runners.http import HttpRunner
from app.runners.http_options import HttpRunnerOptions
from app.security.egress import EgressOptions, EgressPolicy

if TYPE_CHECKING:
    from app.engine.ports import Runner

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ATTEMPT = Attempt(
    execution_id=ExecutionId("exe_a"),
    job_id=JobId("j"),
    job_revision=1,
    number=1,
    scheduled_for=NOW,
    started_at=NOW,
    timeout=timedelta(seconds=1),
    target=HttpTarget(method="GET", url="http://h/"),
)
ANYWHERE = EgressPolicy(EgressOptions())


class Broken(httpx.AsyncBaseTransport):
    """A transport with a bug."""

    async def handle_async_request(self, _):
        """Fail in a way no transport should."""
        raise ZeroDivisionError("secret value")


async def test_unexpected_error():
    """A bug below the runner becomes an outcome and a log entry, not an exception."""
    options = HttpRunnerOptions()
    runner: Runner = HttpRunner(
        transport=Broken(), clock=SystemClock(), options=options, egress=ANYWHERE
    )
    with structlog.testing.capture_logs() as logs:
        outcome = await runner.run(ATTEMPT)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert "internal error" in (outcome.error or "")
    assert "secret" not in (outcome.error or "")
    assert [entry["event"] for entry in logs] == ["http.attempt_crashed"]


async def test_any_httpx_transport():
    """The runner works over any httpx transport, a mock's included."""

    def answer(request):
        assert request.extensions["target"] == b"/"
        return httpx.Response(201, text="made")

    runner = HttpRunner(
        transport=httpx.MockTransport(answer),
        clock=SystemClock(),
        options=HttpRunnerOptions(),
        egress=ANYWHERE,
    )
    outcome = await runner.run(ATTEMPT)
    assert outcome.succeeded
    assert outcome.response_excerpt == "made"
    await runner.close()
