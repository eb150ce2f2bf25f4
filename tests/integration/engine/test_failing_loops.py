"""Every loop of the service while it raises: once, and for good."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import httpx
import pytest

from app.db.unit_of_work import WriteConnection, Writer
from app.domain.errors import StorageUnavailableError
from app.domain.events import ExecutionEnded
from app.domain.execution import ExecutionStatus
from app.domain.ids import JobId
from app.engine.auditor import AuditRequest
from app.main import create_app
from app.main.services import build_services
from app.security.egress import EgressOptions, EgressPolicy
from app.services.health_service import HealthOptions
from tests.integration.engine.test_pipeline import EVERY_SECOND, SECOND, create, ended, now
from tests.support.databases import DatabaseKind
from tests.support.faults import Fault, FaultyClock, name_of
from tests.support.homes import Home
from tests.support.pipeline import Pipeline, open_pipeline
from tests.support.service import eventually

T = TypeVar("T")

TOLD_WITHIN = 5.0
# Where each loop is met, by the name that readiness gives it.
PLACES = {
    "dispatcher": r"^write Dispatcher\._claim",
    "recorder": r"^write record_endings",
    "ledger": r"^write Ledger\._commit",
    "window": r"^read Window\.read\.",
    "catch_up": r"^clock _find_some$",
    "rescuer": r"^read (Rescuer\.|orphan_runs)",
    "clock_watch": r"^clock ClockWatch\.compare$",
    "pruner": r"^read (look_for|jobs_above)",
    "auditor": r"^read Auditor\.",
}
UPKEEP = {"pruner", "auditor"}
# A pass of the scheduler is repeated by itself, and told under this name.
PASS = r"^clock Window\.take_due$"


@dataclass
class Scene:
    """A service with a job that runs every second, and a fault in one of its loops."""

    pipeline: Pipeline
    fault: Fault
    http: httpx.AsyncClient

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Ask for readiness; give the status and the checks by name."""
        answer = await self.http.get("/health/ready")
        return answer.status_code, {check["name"]: check for check in answer.json()["checks"]}

    async def tells(self, name: str, words: str) -> float:
        """Wait until a check fails with these words.

        Tell how long after the first failure somebody asked who did not hear of it yet: a busy
        machine asks late, and answers late, but what it is asked later than that it must tell.
        """
        silent = 0.0

        async def told() -> bool:
            nonlocal silent
            asked = time.monotonic()
            check = (await self.ready())[1][name]
            if not check["healthy"] and words in check["detail"]:
                return True
            if self.fault.raised_at is not None:
                silent = max(silent, asked - self.fault.raised_at)
            return False

        await eventually(told, every=0.1)
        return silent

    async def judge(self) -> None:
        """All that was due has its row, ran on, and nothing was sent twice."""
        seen = {execution.id for execution in await self.pipeline.history("tick")}

        async def ran_on() -> bool:
            # What became due while the loop was down may have been skipped.
            new = [one for one in await self.pipeline.history("tick") if one.id not in seen]
            return sum(one.status is ExecutionStatus.COMPLETED for one in new) >= 2

        await eventually(ran_on)
        audit = await self.pipeline.stations.auditor.verify(AuditRequest())
        assert audit.tally.is_clean
        sent = [(one.execution_id, one.number) for one in self.pipeline.runner.attempts]
        assert len(set(sent)) == len(sent)
        assert {number for _, number in sent} == {1}


@contextlib.asynccontextmanager
async def open_scene(
    home: Home,
    place: str,
    *,
    lasts: bool,
    armed: bool = True,
    error: Exception | None = None,
) -> AsyncIterator[Scene]:
    """Start a service on a job that is overdue, with the fault in its place, ``armed`` or not."""
    fault = Fault(place, lasts=lasts, error=error)
    async with open_pipeline(home, clock=FaultyClock(fault), start=False) as pipeline:
        await create(pipeline, "tick", EVERY_SECOND)
        due = (await pipeline.jobs.get(JobId("tick"))).next_run_time
        assert due is not None
        await eventually(lambda: now() - due > 1.5 * SECOND)
        fault.enter(pipeline.unit_of_work)
        _hurry_upkeep(pipeline)
        await pipeline.lifecycle.start_alone(None)
        if armed:
            # No loop has begun yet: that takes a turn of the event loop.
            fault.arm()
        services = build_services(
            pipeline.ground, pipeline.stations, pipeline.lifecycle,
            EgressPolicy(EgressOptions()), pipeline.lifecycle.begin_stop,
        )  # fmt: skip
        transport = httpx.ASGITransport(create_app(pipeline.ground.settings, services))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            try:
                yield Scene(pipeline, fault, http)
            finally:
                fault.mend()


def _hurry_upkeep(pipeline: Pipeline) -> None:
    """Let what runs every few minutes do so every second."""
    for station in (pipeline.stations.pruner, pipeline.stations.auditor):
        station._options = replace(station._options, first_after=SECOND / 10, every=SECOND)


@pytest.mark.parametrize("place", [*PLACES.values(), PASS], ids=[*PLACES, "pass"])
async def test_a_loop_that_raises_is_started_again(home: Home, place: str):
    """After one exception a loop goes on, and all that was due has its row and ran once."""
    async with open_scene(home, place, lasts=False) as scene:
        await eventually(lambda: scene.fault.passed)
        await scene.judge()
        await eventually(lambda: not scene.pipeline.tasks.failing())
        assert (await scene.ready())[0] == 200


@pytest.mark.slow
@pytest.mark.only_on(DatabaseKind.SQLITE, because="the loops and what watches them are the same")
@pytest.mark.parametrize("name", PLACES)
async def test_a_loop_that_raises_for_good_is_told(home: Home, name: str):
    """Within five seconds readiness names the loop, and is well again when that is.

    What runs do not need is named too, and leaves the service ready.
    """
    async with open_scene(home, PLACES[name], lasts=True) as scene:
        check = "upkeep" if name in UPKEEP else "loops"
        assert await scene.tells(check, f"{name} fails since ") < TOLD_WITHIN
        told_at = time.monotonic()

        async def asked_for_a_while() -> bool:
            status, checks = await scene.ready()
            # Not now and then, between two failures.
            failing = {name for name, found in checks.items() if not found["healthy"]}
            assert check in failing
            # On a busy machine others may fail too.
            assert (status == 200) == (failing == {"upkeep"})
            return time.monotonic() - told_at > 2

        await eventually(asked_for_a_while)
        scene.fault.mend()

        async def well() -> bool:
            status, checks = await scene.ready()
            return status == 200 and bool(checks[check]["healthy"])

        await eventually(well, every=0.1)
        await scene.judge()


@pytest.mark.slow
@pytest.mark.only_on(DatabaseKind.SQLITE, because="the loops and what watches them are the same")
@pytest.mark.parametrize("name", ["dispatcher", "recorder", "ledger"])
async def test_what_a_station_must_go_on_repeating_is_told(home: Home, name: str):
    """A database that takes all but one station's changes is told too, with its own sentence."""
    refused = StorageUnavailableError("The database is full")
    async with open_scene(home, PLACES[name], lasts=True, error=refused) as scene:
        assert await scene.tells("loops", f"{name} fails since ") < TOLD_WITHIN
        status, checks = await scene.ready()
        assert (status, checks["database"]["healthy"]) == (503, True)
        assert "The database is full" in checks["loops"]["detail"]
        scene.fault.mend()

        async def well() -> bool:
            return (await scene.ready())[0] == 200

        await eventually(well, every=0.1)
        await scene.judge()


@pytest.mark.slow
@pytest.mark.only_on(DatabaseKind.SQLITE, because="the loops and what watches them are the same")
async def test_passes_that_raise_for_good_are_told(home: Home):
    """Within five seconds readiness says how old the last good pass is."""
    async with open_scene(home, PASS, lasts=True, armed=False) as scene:
        done = len(await scene.pipeline.history("tick"))
        await ended(scene.pipeline, "tick", done + 1)
        scene.fault.arm()
        # The last good pass came before the first bad one.
        assert await scene.tells("scheduler", "the last good pass was ") < TOLD_WITHIN
        scene.fault.mend()
        await scene.judge()


def test_what_readiness_puts_up_with_is_less_than_five_seconds():
    """Whatever else takes the machine, no limit of its own lets readiness be silent for longer."""
    options = HealthOptions()
    told_after = (options.pass_age_max, options.failing_max, options.held_up_max)
    assert max(told_after) <= timedelta(seconds=5)


class HeldClaims:
    """A writer that keeps claims waiting until they are let go."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.gate = asyncio.Event()

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        if name_of(unit).startswith("Dispatcher._claim"):
            await self.gate.wait()
        return await self._writer.write(unit)

    async def close(self) -> None:
        await self._writer.close()


@pytest.mark.slow
@pytest.mark.only_on(DatabaseKind.SQLITE, because="what waits is told from memory")
async def test_a_claim_that_does_not_come_back_is_told(home: Home):
    """Within five seconds readiness says that runs wait though slots are free."""
    async with open_scene(home, "^$", lasts=False) as scene:
        unit_of_work = scene.pipeline.unit_of_work
        held = unit_of_work._writer = HeldClaims(unit_of_work._writer)
        scene.fault.raised_at = time.monotonic()
        try:
            assert (
                await scene.tells("dispatch", "runs that may start wait since ") < TOLD_WITHIN + 1
            )
            assert (await scene.ready())[0] == 503
        finally:
            held.gate.set()
        await scene.judge()
        assert (await scene.ready())[0] == 200


async def test_a_subscriber_that_raises_hinders_nobody(home: Home):
    """Whoever fails on hearing of an end keeps neither runs nor other subscribers from theirs."""

    def fail(event: object) -> None:  # noqa: ARG001 - what a subscriber is given
        raise RuntimeError("boom")

    async with open_pipeline(home, start=False) as pipeline:
        pipeline.ground.publisher._subscribers.insert(0, fail)
        await pipeline.lifecycle.start_alone(None)
        await create(pipeline, "tick", EVERY_SECOND)
        history = await ended(pipeline, "tick", 3)
        assert pipeline.tasks.failing() == []
        over = {execution.id for execution in history[:3]}
        await eventually(lambda: _told(pipeline) >= over)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]


def _told(pipeline: Pipeline) -> set[str]:
    """Tell of which executions the end was heard."""
    return {event.execution_id for event in pipeline.events if isinstance(event, ExecutionEnded)}
