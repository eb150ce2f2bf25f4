"""A courier: the HTTP runner as tests use it, once per transport."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.clock import SystemClock
from app.domain.execution import Attempt, Outcome
from app.domain.ids import ExecutionId, JobId
from app.domain.job import HttpTarget
from app.runners.dialer import Lookup, system_lookup
from app.runners.http import HttpRunner
from app.runners.http_options import HttpRunnerOptions, TransportKind
from app.runners.transports import build_transport
from app.security.egress import EgressOptions, EgressPolicy
from tests.support.raw_server import client_tls


@dataclass(slots=True)
class Courier:
    """Makes attempts over one runner; change the public fields before the first delivery."""

    kind: TransportKind
    options: HttpRunnerOptions = field(default_factory=HttpRunnerOptions)
    egress: EgressOptions = field(default_factory=EgressOptions)
    lookup: Lookup = system_lookup
    tls: ssl.SSLContext = field(default_factory=client_tls)
    _runner: HttpRunner | None = None

    def attempt(self, url: str, **fields: Any) -> Attempt:
        """Make an attempt; ``fields`` go to the attempt or to its target, by name."""
        defaults: dict[str, Any] = {
            "execution_id": ExecutionId("exe_abcdefghijklmnopqrstuvwx"),
            "job_id": JobId("job-1"),
            "job_revision": 1,
            "number": 1,
            "scheduled_for": datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
            "started_at": datetime(2026, 11, 21, 9, 0, 1, 500_000, tzinfo=UTC),
            "timeout": timedelta(seconds=5),
        }
        about_attempt = {name: fields.pop(name) for name in tuple(fields) if name in defaults}
        target = HttpTarget(method=fields.pop("method", "GET"), url=url, **fields)
        return Attempt(**{**defaults, **about_attempt}, target=target)

    async def deliver(self, url: str, **fields: Any) -> Outcome:
        """Make an attempt and tell what came of it."""
        return await self.runner.run(self.attempt(url, **fields))

    @property
    def runner(self) -> HttpRunner:
        """Tell the runner, built at first use."""
        if self._runner is None:
            policy = EgressPolicy(self.egress)
            transport = build_transport(
                self.kind, self.options, policy, tls=self.tls, lookup=self.lookup
            )
            self._runner = HttpRunner(
                transport=transport, clock=SystemClock(), options=self.options, egress=policy
            )
        return self._runner

    async def close(self) -> None:
        """Free connections, if there are any."""
        if self._runner is not None:
            await self._runner.close()


@pytest.fixture(params=list(TransportKind))
async def courier(request) -> AsyncIterator[Courier]:
    """Deliver over each transport."""
    made = Courier(request.param)
    yield made
    await made.close()


@pytest.fixture
async def direct_courier() -> AsyncIterator[Courier]:
    """Deliver over our own transport."""
    made = Courier(TransportKind.DIRECT)
    yield made
    await made.close()
