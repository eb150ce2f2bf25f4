"""A host with a long backlog beside others: what waits in memory, and what is read from rows."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import app.main.stations as stations_module
from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import to_us
from app.domain.execution import Attempt, Outcome, Reason
from app.domain.ids import JobId
from app.domain.job import HttpTarget
from app.engine.dispatcher import DispatcherOptions
from app.engine.intake import IntakeOptions
from app.repositories import execution_repository, waiting_repository
from tests.conformance.builders import make_row
from tests.integration.engine.test_pipeline import EVERY_HOUR, SECOND, create, ended, now
from tests.support.builders import make_delivery
from tests.support.homes import Home
from tests.support.pipeline import OK, Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually

CROWD = [f"crowd-{number}" for number in range(40)]


class HeldRunner(ScriptedRunner):
    """A runner that holds back what goes to the crowd's host."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.clear()

    async def run(self, attempt: Attempt) -> Outcome:
        return await super().run(attempt) if attempt.job_id in CROWD else OK


class SoughtBehind:
    """Notes when what backlogs hide is sought, on the monotonic clock, and does something first."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], Awaitable[object]]
    ) -> None:
        self.begun: list[float] = []
        real = UnitOfWork.read

        async def read(doors: UnitOfWork, unit: Any) -> Any:
            if getattr(unit, "func", None) is waiting_repository.runs_of_each_job:
                self.begun.append(time.monotonic())
                await before()
            return await real(doors, unit)

        monkeypatch.setattr(UnitOfWork, "read", read)


@pytest.fixture(autouse=True)
def small_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory hold fewer runs than the crowd has, and look at the rows often."""
    intake = IntakeOptions(ready_max=16, sweep_every=SECOND)
    options = DispatcherOptions(intake=intake, host_concurrency=1)
    monkeypatch.setattr(stations_module, "_dispatcher_options", lambda _: options)


async def create_all(pipeline: Pipeline) -> None:
    """Create forty jobs that call one host, and one that calls another."""
    for job_id in CROWD:
        await create(pipeline, job_id, EVERY_HOUR)
    calm = make_delivery(target=HttpTarget(method="GET", url="http://calm.test/"))
    await create(pipeline, "calm", EVERY_HOUR, delivery=calm)


async def test_a_hosts_backlog_in_memory_keeps_no_other_out(home: Home):
    """While one host's runs fill the memory another host's run starts; then all of them do."""
    runner = HeldRunner()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create_all(pipeline)
        for job_id in [*CROWD, "calm"]:
            await pipeline.jobs.trigger(JobId(job_id))
        await ended(pipeline, "calm")
        assert len(runner.attempts) == 1
        runner.gate.set()
        for job_id in CROWD:
            await ended(pipeline, job_id)


async def test_what_does_not_wait_any_more_leaves_the_memory(home: Home):
    """A run that was ended elsewhere is let go of at the next look; what still waits is kept."""
    runner = HeldRunner()
    async with open_pipeline(home, runner=runner) as pipeline:
        dispatcher = pipeline.stations.dispatcher
        await create_all(pipeline)
        for job_id in CROWD[:3]:
            await pipeline.jobs.trigger(JobId(job_id))
        await eventually(lambda: len(dispatcher._ready) == 2)
        gone, kept = sorted(dispatcher._ready.held)

        def cancel(connection: WriteConnection) -> None:
            execution_repository.cancel_one(
                connection, gone, reason=Reason.USER, now_us=to_us(now())
            )

        await pipeline.unit_of_work.write(cancel)
        await eventually(lambda: set(dispatcher._ready.held) == {kept})
        runner.gate.set()
        await eventually(lambda: len(runner.attempts) == 2)


async def test_a_claim_in_vain_asks_what_there_is(home: Home, monkeypatch: pytest.MonkeyPatch):
    """Who finds that others had most of what it took looks at once for what still waits."""
    minute = 60 * SECOND
    intake = IntakeOptions(refill_every=minute, sweep_every=minute / 2)
    options = DispatcherOptions(host_concurrency=1, intake=intake)
    monkeypatch.setattr(stations_module, "_dispatcher_options", lambda _: options)
    runner = HeldRunner()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create_all(pipeline)
        for job_id in CROWD[:2]:
            await pipeline.jobs.trigger(JobId(job_id))
        await eventually(lambda: len(pipeline.stations.dispatcher._ready) == 1)
        (gone,) = pipeline.stations.dispatcher._ready.held
        moment = now()
        unknown = make_row(job_id=CROWD[2], scheduled_for=moment, next_attempt_at=moment)

        def change(connection: WriteConnection) -> None:
            execution_repository.cancel_one(
                connection, gone, reason=Reason.USER, now_us=to_us(moment)
            )
            execution_repository.insert_executions(connection, [unknown], now_us=to_us(moment))

        await pipeline.unit_of_work.write(change)
        runner.gate.set()
        await ended(pipeline, CROWD[2])


async def test_a_hosts_backlog_in_the_rows_hides_no_other(home: Home):
    """A run that waits behind more runs to one host than one look gives is found all the same."""
    runner = HeldRunner()
    async with open_pipeline(home, runner=runner, start=False) as pipeline:
        await create_all(pipeline)
        await insert_crowd(pipeline, "calm")
        await pipeline.lifecycle.start_alone(None)
        await ended(pipeline, "calm")
        assert len(runner.attempts) == 1


async def insert_crowd(pipeline: Pipeline, *others: str) -> None:
    """Let a run of each of the crowd's jobs wait, and behind them one of each other job."""
    moment = now()
    rows = [
        make_row(
            job_id=job_id,
            scheduled_for=moment,
            next_attempt_at=moment + timedelta(microseconds=place),
        )
        for place, job_id in enumerate([*CROWD, *others])
    ]

    def insert(connection: WriteConnection) -> None:
        execution_repository.insert_executions(connection, rows, now_us=to_us(moment))

    await pipeline.unit_of_work.write(insert)


async def test_looking_behind_backlogs_holds_up_no_claim(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    """While what a backlog hides is sought, for however long, the backlog's own runs go on."""
    done = asyncio.Event()
    sought = SoughtBehind(monkeypatch, before=done.wait)
    async with open_pipeline(home, start=False) as pipeline:
        await create_all(pipeline)
        await insert_crowd(pipeline, "calm")
        await pipeline.lifecycle.start_alone(None)
        for job_id in CROWD:
            await ended(pipeline, job_id)
        assert sought.begun
        done.set()
        await ended(pipeline, "calm")


async def test_looking_behind_backlogs_takes_a_small_part_of_the_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    """After a look that took a while there is none for ten times as long, whatever is asked."""
    sought = SoughtBehind(monkeypatch, before=lambda: asyncio.sleep(0.05))
    async with open_pipeline(home, runner=HeldRunner(), grace=SECOND / 10, start=False) as pipeline:
        await create_all(pipeline)
        await insert_crowd(pipeline)
        await pipeline.lifecycle.start_alone(None)

        async def three() -> bool:
            pipeline.stations.dispatcher.look()
            return len(sought.begun) == 3

        await eventually(three, every=0.01)
    first, second, third = sought.begun
    assert min(second - first, third - second) > 10 * 0.05
