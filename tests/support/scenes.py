"""Scenes in which the real engine writes a row with a reason, under a clock that stands still.

``SCENES`` names one for each reason and status that this version gives. A scene is made of public
acts alone: jobs are stored, paused, deleted; the clock goes on; the service stops, starts or dies;
the target answers as told. Only a definition that cannot be read is written by hand.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from app.domain.execution import AttemptOutcome, Execution, ExecutionStatus, Outcome, Reason
from app.domain.ids import JobId
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy, RetryPolicy
from app.domain.schedule import DstGap, Schedule
from app.models.tables import job_revisions, jobs
from app.schemas.explain_answer import to_explain
from app.schemas.explain_request import read_asked
from app.services.cancellation_service import CancellationOptions, CancellationService
from app.services.explain_service import ExplainOptions, ExplainService
from app.services.job_service import NewJob
from tests.support.builders import make_definition, make_delivery, make_policy
from tests.support.clocked_pipeline import ClockedPipeline
from tests.support.homes import Home
from tests.support.pipeline import OK, Pipeline, ScriptedRunner, open_pipeline
from tests.support.schedules import crontab_of
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

JOB = JobId("job")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
# Monday, 1 June 2026, 08:59 in Tokyo.
MORNING = datetime(2026, 5, 31, 23, 59, tzinfo=UTC)
# New York, on the days its clocks go forward and back: midnight.
SPRING = datetime(2026, 3, 8, 5, tzinfo=UTC)
AUTUMN = datetime(2026, 11, 1, 4, tzinfo=UTC)
NINE = crontab_of("0 9 * * *")
HOURLY = crontab_of("0 * * * *")
NIGHTLY = crontab_of("30 2 * * *", timezone="America/New_York")
NIGHTLY_SKIPPED = crontab_of("30 2 * * *", timezone="America/New_York", dst_gap=DstGap.SKIP)
LATE_NIGHTLY = crontab_of("30 1 * * *", timezone="America/New_York")
NO_CATCH_UP = make_policy(catch_up=CatchUp.NONE)
RETRY_IN_AN_HOUR = make_delivery(retry=RetryPolicy(max_retries=1, first_wait=HOUR))


class Scene:
    """One job, one service, one clock."""

    def __init__(self, service: ClockedPipeline) -> None:
        self.service = service
        self._idle = contextlib.AsyncExitStack()
        self._idling: Pipeline | None = None
        self.clock = service.clock
        self.options = ExplainOptions(concurrency=200, host_concurrency=10)

    async def store(self, schedule: Schedule = NINE, *, actor: str = "ann", **changes: Any) -> None:
        """Store the job, or replace it."""
        definition = make_definition(schedule=schedule, **changes)
        new = NewJob(id=JOB, definition=definition, replace_existing=True)
        await self.pipeline.jobs.create(new, actor=actor)

    async def pause(self) -> None:
        """Let ann pause it."""
        await self.pipeline.jobs.pause(JOB, actor="ann")

    async def resume(self) -> None:
        """Let bob resume it."""
        await self.pipeline.jobs.resume(JOB, actor="bob")

    async def delete(self) -> None:
        """Let bob delete it."""
        await self.pipeline.jobs.delete(JOB, actor="bob")

    async def trigger(self) -> None:
        """Run it once more."""
        await self.pipeline.jobs.trigger(JOB)

    async def pass_time(self, passed: timedelta) -> None:
        """Let time pass, and the service do what is to be done by then."""
        self.clock.advance(passed)
        if self.service.up:
            await self.service.poke()
            await self.service.quiet()

    async def restart_after(self, passed: timedelta) -> None:
        """Stop the service for a time."""
        await self.service.stop()
        self.clock.advance(passed)
        await self.start()

    async def start(self) -> None:
        """Start the service."""
        await self.service.start()
        await self.service.quiet()

    @property
    def pipeline(self) -> Pipeline:
        """The service that runs, or the one that only looks."""
        return self._idling or self.service.current

    async def open_idle(self) -> None:
        """Open the database with a service that does nothing by itself."""
        self._idling = await self._idle.enter_async_context(
            open_pipeline(
                self.service.home, runner=self.service.runner, clock=self.clock, start=False
            )
        )

    async def close_idle(self) -> None:
        """Let go of that one."""
        self._idling = None
        await self._idle.aclose()

    def is_broken(self) -> bool:
        """Tell whether the job was found broken, and that is written down."""
        return bool(self.service.rows("SELECT 1 FROM jobs WHERE state = 'broken'"))

    async def rows(self) -> list[Execution]:
        """Read the job's rows, oldest first."""
        return await self.pipeline.history(JOB)

    async def alter(self, statement: str) -> None:
        """Change the database by hand."""
        await self.pipeline.unit_of_work.write(lambda c: c.execute(sa.text(statement)))

    async def row(self, reason: Reason | None, status: ExecutionStatus) -> Execution:
        """Wait for a row of the job with a reason and a status."""

        async def found() -> Execution | None:
            fits = (e for e in await self.rows() if (e.reason, e.status) == (reason, status))
            return next(fits, None)

        execution: Execution = await eventually(found)
        return execution

    async def damage(self, column: str, old: str, new: str) -> None:
        """Change a stored text of the job and of its revisions by hand."""

        def change(connection: Any) -> None:
            for table, key in ((jobs, jobs.c.id), (job_revisions, job_revisions.c.job_id)):
                text = sa.func.replace(table.c[column], old, new)
                connection.execute(sa.update(table).where(key == JOB).values({column: text}))

        await self.pipeline.unit_of_work.write(change)

    async def explain(self, at: str | None = None) -> dict[str, Any]:
        """Ask why, as the API does, and return what it answers."""
        service = ExplainService(
            unit_of_work=self.pipeline.unit_of_work, clock=self.clock, options=self.options
        )
        asked = read_asked(at, await service.schedule_of(JOB), now=service.now())
        return to_explain(await service.explain(JOB, asked)).model_dump(mode="json", by_alias=True)


@contextlib.asynccontextmanager
async def open_scene(
    home: Home, *outcomes: Outcome, at: datetime = MORNING, **settings: object
) -> AsyncIterator[Scene]:
    """Start the service at a time, with a target that answers as told."""
    with VirtualClock(at) as clock:
        service = ClockedPipeline(home, clock, ScriptedRunner(*outcomes), **settings)
        scene = Scene(service)
        try:
            await service.start()
            yield scene
        finally:
            service.runner.gate.set()
            await scene.close_idle()
            await service.close()


@dataclass(frozen=True, slots=True)
class Plot:
    """What happens in a scene, from when on, and how the target answers."""

    play: Callable[[Scene], Awaitable[None]]
    at: datetime = MORNING
    outcomes: tuple[Outcome, ...] = (OK,)


def failing(reason: Reason, kind: AttemptOutcome, **fields: Any) -> Outcome:
    """Make the outcome of an attempt that failed."""
    return Outcome(kind=kind, reason=reason, error="it failed", **fields)


async def run_once(scene: Scene) -> None:
    """Come to nine o'clock."""
    await scene.store()
    await scene.pass_time(timedelta(minutes=1))


async def run_with_a_retry(scene: Scene) -> None:
    """Come to nine o'clock with a retry to spend."""
    await scene.store(delivery=RETRY_IN_AN_HOUR)
    await scene.pass_time(timedelta(minutes=1))


async def use_up_retries(scene: Scene) -> None:
    """Fail at nine and at ten."""
    await run_with_a_retry(scene)
    await scene.pass_time(2 * HOUR)


async def overlap(scene: Scene) -> None:
    """Come to ten o'clock while the run of nine hangs."""
    scene.service.runner.gate.clear()
    await scene.store(HOURLY, delivery=make_delivery(timeout=DAY))
    await scene.pass_time(timedelta(minutes=1))
    await scene.pass_time(HOUR)


async def make_way(scene: Scene) -> None:
    """Come to ten o'clock while the run of nine waits for its retry."""
    policy = make_policy(overlap=OverlapPolicy.CANCEL_RUNNING)
    retry = RetryPolicy(max_retries=1, first_wait=2 * HOUR, wait_max=2 * HOUR)
    await scene.store(HOURLY, policy=policy, delivery=make_delivery(retry=retry))
    await scene.pass_time(timedelta(minutes=1))
    await scene.pass_time(HOUR)


async def fill_the_queue(scene: Scene) -> None:
    """Come to nine o'clock behind a thousand runs that wait."""
    scene.service.runner.gate.clear()
    policy = make_policy(overlap=OverlapPolicy.QUEUE_ALL)
    await scene.store(policy=policy, delivery=make_delivery(timeout=DAY))
    await scene.trigger()
    await eventually(lambda: scene.service.runner.attempts)
    await asyncio.gather(*(scene.trigger() for _ in range(1000)))
    await scene.service.quiet()
    await scene.pass_time(timedelta(minutes=1))


async def pause_over(scene: Scene) -> None:
    """Pause over three mornings."""
    await scene.store()
    await scene.pause()
    await scene.pass_time(3 * DAY)
    await scene.resume()


async def pause_before_retry(scene: Scene) -> None:
    """Pause while a retry is to come."""
    await run_with_a_retry(scene)
    await scene.pause()


async def delete_before_retry(scene: Scene) -> None:
    """Delete while a retry is to come."""
    await run_with_a_retry(scene)
    await scene.delete()


async def cancel_before_retry(scene: Scene) -> None:
    """Cancel the run while its retry is to come."""
    await run_with_a_retry(scene)
    (execution,) = await scene.rows()
    service = CancellationService(
        unit_of_work=scene.pipeline.unit_of_work,
        clock=scene.clock,
        stop=lambda *_: None,
        options=CancellationOptions(),
    )
    await service.cancel(execution.id)


async def sleep_over(scene: Scene) -> None:
    """Let the service be down over three mornings; the newest is caught up."""
    await scene.store()
    await scene.restart_after(3 * DAY)


async def sleep_over_without_catch_up(scene: Scene) -> None:
    """Let the service be down over three mornings."""
    await scene.store(policy=NO_CATCH_UP)
    await scene.restart_after(3 * DAY)


async def sleep_over_with_a_limit(scene: Scene) -> None:
    """Let the service be down over three mornings, of which one is made up for."""
    policy = make_policy(catch_up=CatchUp.ALL, catch_up_max_runs=1)
    await scene.store(policy=policy)
    await scene.restart_after(3 * DAY)


async def jump_over(scene: Scene) -> None:
    """Set the machine's clock forward over a morning."""
    await scene.store(policy=NO_CATCH_UP)
    scene.clock.step(HOUR)
    await scene.service.compare_clocks()
    await scene.pass_time(timedelta(0))


async def cross_the_gap(scene: Scene) -> None:
    """Pause at noon of the day on which half past two does not exist."""
    await scene.store(NIGHTLY_SKIPPED)
    scene.clock.advance(12 * HOUR)
    await scene.pause()


async def cross_the_fold(scene: Scene) -> None:
    """Pass the night in which half past one comes twice."""
    await scene.store(LATE_NIGHTLY)
    await scene.pass_time(12 * HOUR)
    await scene.pass_time(DAY)


async def crash(scene: Scene) -> None:
    """Kill the service in mid-attempt, with no retry wanted after it."""
    await _crash(scene, OnCrash.FAIL)


async def crash_and_retry(scene: Scene) -> None:
    """Kill the service in mid-attempt; the next one finds the job's host busy."""
    await _crash(scene, OnCrash.RETRY)


async def _crash(scene: Scene, on_crash: OnCrash) -> None:
    await _hang(scene, on_crash)
    await scene.service.crash()
    await scene.open_idle()
    assert await scene.pipeline.stations.rescuer.settle_all() == 1


async def stop(scene: Scene) -> None:
    """Stop the service in mid-attempt, with no repetition wanted."""
    await _hang(scene, OnCrash.FAIL)
    await scene.service.stop()
    await scene.open_idle()


async def stop_and_retry(scene: Scene) -> None:
    """Stop the service in mid-attempt."""
    await _hang(scene, OnCrash.RETRY)
    await scene.service.stop()
    await scene.open_idle()


async def _hang(scene: Scene, on_crash: OnCrash) -> None:
    """Come to nine o'clock with a target that does not answer."""
    scene.service.runner.gate.clear()
    await scene.store(policy=make_policy(on_crash=on_crash), delivery=make_delivery(timeout=DAY))
    await scene.pass_time(timedelta(minutes=1))


async def break_a_waiting_run(scene: Scene) -> None:
    """Damage the job while a retry is to come."""
    await run_with_a_retry(scene)
    await scene.damage("policy", "{", "[")
    await scene.restart_after(2 * HOUR)


async def break_and_mend(scene: Scene) -> None:
    """Let the job be broken over a morning, then mend it and send it again."""
    await scene.store()
    await scene.service.stop()
    await scene.open_idle()
    await scene.damage("policy", "{", "[")
    await scene.close_idle()
    scene.clock.advance(timedelta(minutes=5))
    await scene.service.start()
    await eventually(scene.is_broken)
    await scene.damage("policy", "[", "{")
    await scene.pass_time(DAY)
    await scene.store()


def _attempt_plots() -> dict[tuple[Reason, ExecutionStatus], Plot]:
    """Make the scenes of attempts that fail, with and without a retry to come."""
    retried = {
        Reason.STATUS: failing(Reason.STATUS, AttemptOutcome.RESPONSE, http_status=500),
        Reason.TIMEOUT: failing(Reason.TIMEOUT, AttemptOutcome.TIMEOUT),
        Reason.DNS: failing(Reason.DNS, AttemptOutcome.CONNECT_ERROR),
        Reason.CONNECT: failing(Reason.CONNECT, AttemptOutcome.CONNECT_ERROR),
        Reason.TLS: failing(Reason.TLS, AttemptOutcome.CONNECT_ERROR),
        Reason.PROTOCOL: failing(Reason.PROTOCOL, AttemptOutcome.PROTOCOL_ERROR),
    }
    final = {
        Reason.RESPONSE_TOO_LARGE: failing(Reason.RESPONSE_TOO_LARGE, AttemptOutcome.TOO_LARGE),
        Reason.EGRESS_DENIED: failing(Reason.EGRESS_DENIED, AttemptOutcome.BLOCKED),
        Reason.CONFIG_ERROR: failing(Reason.CONFIG_ERROR, AttemptOutcome.PROTOCOL_ERROR),
    }
    return {
        **{
            (reason, FAILED): Plot(run_once, outcomes=(outcome,))
            for reason, outcome in (retried | final).items()
        },
        **{
            (reason, RETRYING): Plot(run_with_a_retry, outcomes=(outcome,))
            for reason, outcome in retried.items()
        },
        (Reason.RETRIES_EXHAUSTED, FAILED): Plot(use_up_retries, outcomes=(REFUSED,)),
    }


FAILED, RETRYING = ExecutionStatus.FAILED, ExecutionStatus.RETRYING
SKIPPED, MISSED = ExecutionStatus.SKIPPED, ExecutionStatus.MISSED
CANCELLED, UNKNOWN = ExecutionStatus.CANCELLED, ExecutionStatus.UNKNOWN
REFUSED = failing(Reason.CONNECT, AttemptOutcome.CONNECT_ERROR)
SCENES: dict[tuple[Reason, ExecutionStatus], Plot] = {
    **_attempt_plots(),
    (Reason.OVERLAP, SKIPPED): Plot(overlap),
    (Reason.OVERLAP, CANCELLED): Plot(make_way, outcomes=(REFUSED, OK)),
    (Reason.QUEUE_FULL, SKIPPED): Plot(fill_the_queue),
    (Reason.PAUSED, SKIPPED): Plot(pause_over),
    (Reason.PAUSED, CANCELLED): Plot(pause_before_retry, outcomes=(REFUSED,)),
    (Reason.JOB_DELETED, CANCELLED): Plot(delete_before_retry, outcomes=(REFUSED,)),
    (Reason.USER, CANCELLED): Plot(cancel_before_retry, outcomes=(REFUSED,)),
    (Reason.COALESCED, SKIPPED): Plot(sleep_over),
    (Reason.DST_GAP, SKIPPED): Plot(cross_the_gap, at=SPRING),
    (Reason.DST_FOLD, SKIPPED): Plot(cross_the_fold, at=AUTUMN),
    (Reason.SCHEDULER_DOWN, MISSED): Plot(sleep_over_without_catch_up),
    (Reason.TOO_LATE, MISSED): Plot(jump_over),
    (Reason.LIMIT, MISSED): Plot(sleep_over_with_a_limit),
    (Reason.CRASH, UNKNOWN): Plot(crash),
    (Reason.CRASH, RETRYING): Plot(crash_and_retry),
    (Reason.SHUTDOWN, UNKNOWN): Plot(stop),
    (Reason.SHUTDOWN, RETRYING): Plot(stop_and_retry),
    (Reason.BROKEN, FAILED): Plot(break_a_waiting_run, outcomes=(REFUSED,)),
    (Reason.BROKEN, SKIPPED): Plot(break_and_mend),
}
