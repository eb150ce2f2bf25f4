"""What must not stop, lose or double anything: found by trying to break the pipeline."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import TypeVar

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection, Writer
from app.domain.clock import SystemClock
from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import JobId
from app.domain.job import JobState
from app.domain.policies import OnCrash, OverlapPolicy, RetryPolicy
from app.domain.schedule import CronRule, DateRule
from app.engine.dispatcher import DispatcherOptions
from app.engine.intake import IntakeOptions
from app.main import stations as stations_module
from app.models.tables import jobs
from tests.integration.engine.test_pipeline import (
    EVERY_HOUR,
    EVERY_SECOND,
    REFUSED,
    SECOND,
    completed,
    create,
    ended,
    now,
)
from tests.support.builders import make_delivery, make_policy
from tests.support.homes import Home
from tests.support.pipeline import OK, Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually

T = TypeVar("T")

CRON_SECOND = CronRule(fields=(("second", "*"),))


class SteppedClock(SystemClock):
    """The machine's clock, moved by an offset that a test changes."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self):
        return super().now() + self.offset


class SlowWriter:
    """A writer whose commits take a tenth of a second."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        result = await self._writer.write(unit)
        await asyncio.sleep(0.1)
        return result

    async def close(self) -> None:
        await self._writer.close()


async def damage(pipeline: Pipeline, job_id: str, column: str, old: str, new: str) -> None:
    """Change a stored document of a job by hand."""

    def change(connection):
        stored = sa.select(jobs.c[column]).where(jobs.c.id == job_id)
        text = connection.execute(stored).scalar_one()
        assert old in text
        connection.execute(
            sa.update(jobs).where(jobs.c.id == job_id).values({column: text.replace(old, new)})
        )

    await pipeline.unit_of_work.write(change)


async def test_overdue_jobs_survive_a_database_that_is_away(home: Home):
    """Jobs found overdue beside an unreadable one, while writes fail, are caught up afterwards."""
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, "bad", EVERY_SECOND)
        await create(pipeline, "good", EVERY_SECOND)
        await damage(pipeline, "bad", "policy", "{", "[")
        due = (await pipeline.jobs.get(JobId("good"))).next_run_time
        assert due is not None
        await eventually(lambda: now() - due > 1.5 * SECOND)
    async with open_pipeline(home) as pipeline:
        pipeline.writer.broken = True
        await eventually(lambda: pipeline.writer.refused > 3)
        pipeline.writer.broken = False
        await ended(pipeline, "good", 2)
        bad = await pipeline.jobs.get(JobId("bad"))
    assert bad.state is JobState.BROKEN


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("schedule", '"Asia/Tokyo"', "5"),
        ("schedule", '"Asia/Tokyo"', '"Mars/Olympus"'),
        ("policy", '"misfire_grace":30000000', '"misfire_grace":100000000000000000'),
        ("policy", '"max_instances":1', '"max_instances":"x"'),
    ],
)
async def test_one_damaged_job_stops_no_other(home: Home, column: str, old: str, new: str):
    """A document that cannot be used breaks its own job, with the reason, and no station stops."""
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, "bad", EVERY_SECOND)
        await create(pipeline, "good", EVERY_SECOND)
        await damage(pipeline, "bad", column, old, new)
    async with open_pipeline(home) as pipeline:
        await ended(pipeline, "good", 2)

        async def broken():
            return (await pipeline.jobs.get(JobId("bad"))).state is JobState.BROKEN

        await eventually(broken)
        assert len(await pipeline.listed()) == 2
        await pipeline.jobs.delete(JobId("bad"), actor=None)
        await create(pipeline, "bad", EVERY_SECOND)
        await ended(pipeline, "bad")


async def test_replacing_a_job_runs_no_instant_twice(home: Home):
    """A job re-posted while its schedule is being checked slowly keeps one row per instant."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", CRON_SECOND)
        await ended(pipeline, "job")
        release = Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, release.wait)
        replacing = loop.create_task(create(pipeline, "job", CRON_SECOND))
        done = len(await pipeline.history("job"))
        await ended(pipeline, "job", done + 2)
        release.set()
        await replacing
        history = await ended(pipeline, "job", done + 4)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]


async def test_changes_after_a_step_back_of_the_clock_run_nothing_twice(home: Home):
    """With the clock behind a job's cursor it can be paused, resumed and replaced as ever."""
    clock = SteppedClock()
    async with open_pipeline(home, clock=clock) as pipeline:
        await create(pipeline, "job", CRON_SECOND)
        done = len(await ended(pipeline, "job", 3))
        clock.offset = -3 * SECOND
        await pipeline.jobs.pause(JobId("job"), actor=None)
        await pipeline.jobs.resume(JobId("job"), actor=None)
        await create(pipeline, "job", CRON_SECOND)
        history = await ended(pipeline, "job", done + 2)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]


async def test_a_step_forward_does_not_stall_the_loop(home: Home):
    """After a jump of a week the missed instants are counted elsewhere, and the loop goes on."""
    clock = SteppedClock()
    async with open_pipeline(home, clock=clock) as pipeline:
        for number in range(5):
            await create(pipeline, f"job-{number}", CRON_SECOND)
        await ended(pipeline, "job-4")
        clock.offset = timedelta(days=7)
        loop = asyncio.get_running_loop()
        longest, last = 0.0, loop.time()
        end = last + 3
        while last < end:
            await asyncio.sleep(0.01)
            longest, last = max(longest, loop.time() - last), loop.time()

        async def caught_up():
            history = await pipeline.history("job-4")
            return [e for e in history if e.instant_count > 600_000]

        assert await eventually(caught_up)
    # Enumerated on the loop, as APScheduler would, this took nine seconds.
    assert longest < 2.0


async def test_at_most_once_holds_when_the_service_stops(home: Home):
    """With on_crash fail an attempt interrupted by a stop ends as unknown, and is not repeated."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        policy = make_policy(on_crash=OnCrash.FAIL)
        await create(pipeline, "job", EVERY_HOUR, policy=policy)
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        await pipeline.lifecycle.stop(grace=SECOND / 10)
        (execution,) = await pipeline.history("job")
    assert (execution.status, execution.reason) == (ExecutionStatus.UNKNOWN, Reason.SHUTDOWN)


async def test_a_slow_commit_does_not_keep_a_run_from_being_sent(home: Home):
    """A timeout shorter than a commit takes is no reason to give the run back for ever."""
    async with open_pipeline(home) as pipeline:
        delivery = make_delivery(timeout=timedelta(milliseconds=20))
        await create(pipeline, "job", EVERY_HOUR, delivery=delivery)
        pipeline.writer._writer = SlowWriter(pipeline.writer._writer)
        await pipeline.jobs.trigger(JobId("job"))
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 1)


async def test_one_backlog_keeps_nobody_out(home: Home, monkeypatch: pytest.MonkeyPatch):
    """While a job's backlog fills its share of the memory, another job's run starts."""
    intake = IntakeOptions(ready_max=50, ready_max_per_job=20, sweep_every=SECOND)
    options = DispatcherOptions(intake=intake, host_concurrency=200)
    monkeypatch.setattr(stations_module, "_dispatcher_options", lambda _: options)

    class Partial(ScriptedRunner):
        async def run(self, attempt):
            return await super().run(attempt) if attempt.job_id == "hog" else OK

    runner = Partial()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "hog", EVERY_HOUR)
        for _ in range(60):
            await pipeline.jobs.trigger(JobId("hog"))
        await create(pipeline, "innocent", DateRule(run_at=now()))
        await ended(pipeline, "innocent")
        assert len(pipeline.runner.attempts) == 1
        runner.gate.set()
        await ended(pipeline, "hog", 60)


async def test_deleting_a_paused_job_accounts_its_pause(home: Home):
    """The instants of a pause have their entry even if the job is deleted before it resumes."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", EVERY_SECOND)
        await ended(pipeline, "job")
        await pipeline.jobs.pause(JobId("job"), actor=None)
        paused_at = now()
        await eventually(lambda: now() - paused_at > 1.2 * SECOND)
        await pipeline.jobs.delete(JobId("job"), actor=None)
        history = await pipeline.history("job")
    assert history[-1].reason is Reason.PAUSED


async def test_cancel_running_cancels_what_waits_for_its_retry(home: Home):
    """An execution between two attempts makes way too."""
    retry = RetryPolicy(max_retries=3, first_wait=60 * SECOND)
    policy = make_policy(overlap=OverlapPolicy.CANCEL_RUNNING)
    async with open_pipeline(home, runner=ScriptedRunner(REFUSED, OK)) as pipeline:
        await create(
            pipeline, "job", EVERY_SECOND, policy=policy, delivery=make_delivery(retry=retry)
        )
        first = (await completed(pipeline, "job"))[0]
    assert (first.status, first.reason) == (ExecutionStatus.CANCELLED, Reason.OVERLAP)
    assert first.attempts == 1


async def test_a_job_made_again_does_not_wait_for_its_predecessor(home: Home):
    """A one-off re-created while the old one's attempt still hangs is queued, not skipped."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", DateRule(run_at=now()))
        await eventually(lambda: runner.attempts)
        await pipeline.jobs.delete(JobId("job"), actor=None)
        await create(pipeline, "job", DateRule(run_at=now()))

        async def two():
            return len(await pipeline.history("job")) == 2

        await eventually(two)
        runner.gate.set()
        history = await ended(pipeline, "job", 2)
    assert [execution.status for execution in history] == [ExecutionStatus.COMPLETED] * 2


async def test_a_runner_that_never_ends_is_cut_off(home: Home):
    """A runner that breaks its deadline does not hold its row and its slots for ever."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        attempts = pipeline.stations.dispatcher._attempts
        attempts._lease_margin = SECOND
        delivery = make_delivery(timeout=SECOND / 10)
        await create(pipeline, "job", EVERY_HOUR, delivery=delivery)
        await pipeline.jobs.trigger(JobId("job"))
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.reason) == (ExecutionStatus.FAILED, Reason.TIMEOUT)


async def test_nothing_fires_once_a_stop_is_announced(home: Home):
    """From the first moment of a stop nothing is claimed or fired, while requests still end."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", EVERY_SECOND)
        await ended(pipeline, "job")
        pipeline.lifecycle.begin_stop()
        assert not pipeline.lifecycle.running
        sent, asked_at = len(pipeline.runner.attempts), now()
        await eventually(lambda: now() - asked_at > 1.5 * SECOND)
        assert len(pipeline.runner.attempts) == sent


async def test_a_window_that_is_not_read_again_counts_as_lag(home: Home):
    """Readiness hears of it when due jobs have not been looked for longer than the horizon."""

    class LateClock(SteppedClock):
        def monotonic(self) -> float:
            return super().monotonic() + self.offset.total_seconds()

    clock = LateClock()
    async with open_pipeline(home, clock=clock, start=False) as pipeline:
        assert pipeline.stations.window.lag() == timedelta(0)
        clock.offset = timedelta(seconds=20)
        assert pipeline.stations.window.lag() >= timedelta(seconds=15)
        await pipeline.stations.window.read()
        assert pipeline.stations.window.lag() == timedelta(0)
