"""The pipeline under normal and failing conditions, over a real database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.domain.errors import JobNotFoundError
from app.domain.events import ExecutionEnded
from app.domain.execution import (
    AttemptOutcome,
    Cause,
    ExecutionStatus,
    Outcome,
    Reason,
)
from app.domain.ids import JobId
from app.domain.job import JobState
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy, RetryPolicy
from app.domain.schedule import DateRule, IntervalRule
from app.models.tables import executions, jobs, leadership
from app.repositories import execution_repository
from app.services.job_service import NewJob
from tests.support.builders import make_definition, make_delivery, make_policy, make_schedule
from tests.support.homes import Home
from tests.support.pipeline import Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually

SECOND = timedelta(seconds=1)
EVERY_SECOND = IntervalRule(period=SECOND, parts=(("seconds", 1),))
EVERY_HOUR = IntervalRule(period=3600 * SECOND, parts=(("hours", 1),))
REFUSED = Outcome(kind=AttemptOutcome.CONNECT_ERROR, reason=Reason.CONNECT, error="refused")


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the real clock, as the pipeline under test


async def create(pipeline: Pipeline, job_id: str, rule: object, **changes: object) -> None:
    schedule = make_schedule(rule=rule, **changes.pop("schedule", {}))  # type: ignore[arg-type]
    definition = make_definition(schedule=schedule, **changes)
    new = NewJob(id=JobId(job_id), definition=definition, replace_existing=True)
    await pipeline.jobs.create(new, actor="test")


async def ended(pipeline: Pipeline, job_id: str, count: int = 1):
    """Wait until so many executions of a job are over, and return its history."""

    async def enough():
        history = await pipeline.history(job_id)
        over = [e for e in history if e.finished_at is not None]
        return history if len(over) >= count else None

    return await eventually(enough)


async def completed(pipeline: Pipeline, job_id: str):
    """Wait until an execution of a job has completed, and return its history."""

    async def one():
        history = await pipeline.history(job_id)
        done = any(e.status is ExecutionStatus.COMPLETED for e in history)
        return history if done else None

    return await eventually(one)


async def test_each_second_of_an_interval_has_its_one_execution(home: Home):
    """Every due instant of a job has exactly one row, in order, none lost and none doubled."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "tick", EVERY_SECOND)
        history = await ended(pipeline, "tick", 3)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]
    assert len({execution.id for execution in history}) == len(history)


async def test_a_one_off_runs_once_and_is_finished(home: Home):
    """A date job fires at its time, is kept, and has no next run time."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "once", DateRule(run_at=now() + SECOND / 2))
        (execution,) = await ended(pipeline, "once")
        job = await pipeline.jobs.get(JobId("once"))
    assert execution.status is ExecutionStatus.COMPLETED
    assert (job.state, job.next_run_time) == (JobState.FINISHED, None)
    assert job.execution_count == 1


async def test_a_one_off_a_moment_ago_runs_at_once(home: Home):
    """A date within the grace is accepted and run, never accepted and lost."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "once", DateRule(run_at=now() - 5 * SECOND))
        (execution,) = await ended(pipeline, "once")
    assert execution.status is ExecutionStatus.COMPLETED


async def test_a_retry_is_a_row_with_a_time(home: Home):
    """A failed attempt is recorded with the next one's time, and its history is kept."""
    runner = ScriptedRunner(
        REFUSED, REFUSED, Outcome(kind=AttemptOutcome.RESPONSE, http_status=200)
    )
    policy = RetryPolicy(max_retries=2, first_wait=SECOND / 5)
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=make_delivery(retry=policy))
        await pipeline.jobs.trigger(JobId("job"))

        async def retrying():
            history = await pipeline.history("job")
            return history and history[0].status is ExecutionStatus.RETRYING and history[0]

        waiting = await eventually(retrying)
        assert waiting.next_attempt_at is not None
        (execution,) = await ended(pipeline, "job")
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.attempts == 3
    assert [attempt.number for attempt in runner.attempts] == [1, 2, 3]
    assert len({attempt.execution_id for attempt in runner.attempts}) == 1


async def test_each_attempt_keeps_its_own_reason(home: Home):
    """An execution that used up its retries says so; its attempts say what went wrong."""
    policy = RetryPolicy(max_retries=1, first_wait=timedelta(0))
    async with open_pipeline(home, runner=ScriptedRunner(REFUSED)) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=make_delivery(retry=policy))
        await pipeline.jobs.trigger(JobId("job"))
        (execution,) = await ended(pipeline, "job")
        attempts = await pipeline.unit_of_work.read(
            lambda connection: execution_repository.list_attempts(connection, execution.id)
        )
    assert execution.reason is Reason.RETRIES_EXHAUSTED
    assert [(attempt.number, attempt.reason) for attempt in attempts] == [
        (1, Reason.CONNECT),
        (2, Reason.CONNECT),
    ]


async def test_a_runner_that_breaks_is_an_outcome(home: Home):
    """Whatever a runner raises ends the attempt as failed, and nothing else suffers."""
    runner = ScriptedRunner(
        RuntimeError("boom"), Outcome(kind=AttemptOutcome.RESPONSE, http_status=200)
    )
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR)
        await pipeline.jobs.trigger(JobId("job"))
        (broken,) = await ended(pipeline, "job")
        await pipeline.jobs.trigger(JobId("job"))
        _, fine = await ended(pipeline, "job", 2)
    assert (broken.status, broken.reason) == (ExecutionStatus.FAILED, Reason.PROTOCOL)
    assert broken.error
    assert fine.status is ExecutionStatus.COMPLETED


async def test_an_overlapping_instant_is_skipped_and_recorded(home: Home):
    """While an execution runs, the next due instant becomes a skipped row."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "slow", EVERY_SECOND)
        await ended(pipeline, "slow")
        runner.gate.set()
        history = await completed(pipeline, "slow")
    assert (history[1].status, history[1].reason) == (ExecutionStatus.SKIPPED, Reason.OVERLAP)
    assert history[0].status is ExecutionStatus.COMPLETED


async def test_manual_runs_wait_instead_of_being_skipped(home: Home):
    """Three triggers of a busy job are three runs, one after the other."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR)
        for _ in range(3):
            await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        assert len(runner.attempts) == 1
        runner.gate.set()
        history = await ended(pipeline, "job", 3)
    assert {execution.cause for execution in history} == {Cause.MANUAL}
    assert {execution.status for execution in history} == {ExecutionStatus.COMPLETED}


async def test_cancel_running_ends_the_attempt_under_way(home: Home):
    """With cancel_running the next due instant ends what runs, and takes its place."""
    runner = ScriptedRunner()
    runner.gate.clear()
    policy = make_policy(overlap=OverlapPolicy.CANCEL_RUNNING)
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_SECOND, policy=policy)
        await eventually(lambda: runner.attempts)
        history = await ended(pipeline, "job")
        runner.gate.set()
        await completed(pipeline, "job")
    assert (history[0].status, history[0].reason) == (ExecutionStatus.CANCELLED, Reason.OVERLAP)


async def test_pausing_cancels_what_waits_and_stops_retries(home: Home):
    """After a pause no new attempt starts: a waiting retry is cancelled with the reason paused."""
    runner = ScriptedRunner(REFUSED)
    policy = RetryPolicy(max_retries=5, first_wait=60 * SECOND)
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=make_delivery(retry=policy))
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: any(isinstance(e, ExecutionEnded) for e in pipeline.events))
        await pipeline.jobs.pause(JobId("job"), actor=None)
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.reason) == (ExecutionStatus.CANCELLED, Reason.PAUSED)
    assert len(runner.attempts) == 1


async def test_a_run_under_way_at_a_pause_ends_and_is_not_tried_again(home: Home):
    """An attempt in flight when its job is paused ends normally; no retry follows."""
    runner = ScriptedRunner(REFUSED)
    runner.gate.clear()
    policy = RetryPolicy(max_retries=5, first_wait=timedelta(0))
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=make_delivery(retry=policy))
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        await pipeline.jobs.pause(JobId("job"), actor=None)
        runner.gate.set()
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.reason) == (ExecutionStatus.CANCELLED, Reason.PAUSED)
    assert len(runner.attempts) == 1


async def test_paused_instants_are_accounted_when_the_job_resumes(home: Home):
    """What passed in a pause is one skipped/paused entry; nothing of it is replayed."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", EVERY_SECOND)
        await ended(pipeline, "job")
        await pipeline.jobs.pause(JobId("job"), actor=None)
        paused_at = now()
        count = len(pipeline.runner.attempts)
        await eventually(lambda: now() - paused_at > 2.2 * SECOND)
        assert len(pipeline.runner.attempts) == count
        await pipeline.jobs.resume(JobId("job"), actor=None)
        history = await ended(pipeline, "job", count + 2)
    skipped = [e for e in history if e.status is ExecutionStatus.SKIPPED]
    assert [execution.reason for execution in skipped] == [Reason.PAUSED]
    assert skipped[0].instant_count >= 2
    accounted = sum(execution.instant_count for execution in history)
    span = history[-1].scheduled_for - history[0].scheduled_for
    assert accounted == span // SECOND + 1


async def test_an_edit_takes_effect_at_once(home: Home):
    """A job edited a moment before its time does not fire by its old rule."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", DateRule(run_at=now() + SECOND / 2))
        await create(pipeline, "job", EVERY_HOUR)
        await create(pipeline, "witness", DateRule(run_at=now() + SECOND))
        await ended(pipeline, "witness")
        assert await pipeline.history("job") == []


async def test_a_deleted_job_never_fires(home: Home):
    """After the answer to a deletion the job does not fire, and its history stays."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", EVERY_SECOND)
        await ended(pipeline, "job")
        await pipeline.jobs.delete(JobId("job"), actor=None)
        count = len(await pipeline.history("job"))
        await create(pipeline, "witness", DateRule(run_at=now() + 1.5 * SECOND))
        await ended(pipeline, "witness")
        assert len(await pipeline.history("job")) == count
        with pytest.raises(JobNotFoundError):
            await pipeline.jobs.get(JobId("job"))


async def test_a_job_made_again_starts_afresh(home: Home):
    """A deleted and re-created id counts from zero, and its instants are its own."""
    run_at = now() - SECOND
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", DateRule(run_at=run_at))
        await ended(pipeline, "job")
        await pipeline.jobs.delete(JobId("job"), actor=None)
        await create(pipeline, "job", DateRule(run_at=run_at))
        first, second = await ended(pipeline, "job", 2)
        job = await pipeline.jobs.get(JobId("job"))
    assert first.scheduled_for == second.scheduled_for
    assert first.id != second.id
    assert job.execution_count == 1


async def test_ticks_wait_for_a_database_that_is_away(home: Home):
    """While the database refuses writes nothing is sent; afterwards everything due is accounted."""
    async with open_pipeline(home) as pipeline:
        await create(pipeline, "job", EVERY_SECOND)
        await ended(pipeline, "job")
        pipeline.writer.broken = True
        refused = pipeline.writer.refused
        await eventually(lambda: pipeline.writer.refused >= refused + 3)
        sent = len(pipeline.runner.attempts)
        broken_at = now()
        await eventually(lambda: now() - broken_at > 1.5 * SECOND)
        assert len(pipeline.runner.attempts) == sent
        pipeline.writer.broken = False
        history = await ended(pipeline, "job", sent + 2)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]


async def test_outcomes_wait_for_a_database_that_is_away(home: Home):
    """An outcome that cannot be written is written later, and the request is not sent again."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR)
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        pipeline.writer.broken = True
        runner.gate.set()
        await eventually(lambda: pipeline.writer.refused >= 2)
        pipeline.writer.broken = False
        (execution,) = await ended(pipeline, "job")
    assert execution.status is ExecutionStatus.COMPLETED
    assert len(runner.attempts) == 1


async def test_a_pass_that_raises_is_repeated(home: Home):
    """One exception in a pass does not end the loop: the pass is undone, logged and repeated."""
    async with open_pipeline(home) as pipeline:
        window = pipeline.stations.window
        take_due = window.take_due
        calls: list[object] = []

        def fail_once(*arguments, **named):
            taken = take_due(*arguments, **named)
            if taken and not calls:
                calls.append(taken)
                window.put_back(taken)
                raise RuntimeError("boom")
            return taken

        window.take_due = fail_once  # type: ignore[method-assign]  # the fault to survive
        await create(pipeline, "job", EVERY_SECOND)
        await eventually(lambda: calls)
        history = await ended(pipeline, "job", 2)
    times = [execution.scheduled_for for execution in history]
    assert times == [times[0] + n * SECOND for n in range(len(times))]


async def test_a_loop_that_raises_is_started_again(home: Home):
    """A station's loop that dies of an unforeseen error is started again and misses nothing."""
    async with open_pipeline(home) as pipeline:
        dispatcher = pipeline.stations.dispatcher
        claim = dispatcher._claim
        calls: list[object] = []

        def fail_once(*arguments):
            if not calls:
                calls.append(arguments)
                raise RuntimeError("boom")
            return claim(*arguments)

        dispatcher._claim = fail_once  # type: ignore[method-assign]  # the fault to survive
        await create(pipeline, "job", EVERY_HOUR)
        await pipeline.jobs.trigger(JobId("job"))
        (execution,) = await ended(pipeline, "job")
    assert calls
    assert execution.status is ExecutionStatus.COMPLETED


async def test_lost_attempts_are_settled_at_the_start(home: Home):
    """A row left running by a dead process is tried again under the same id, at once."""
    async with open_pipeline(home, start=False) as pipeline:
        await _leave_running(pipeline, "job", on_crash=OnCrash.RETRY)
    async with open_pipeline(home) as pipeline:
        (execution,) = await ended(pipeline, "job")
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution.attempts == 2
        assert pipeline.runner.attempts[0].execution_id == execution.id


async def test_a_lost_attempt_of_a_job_that_wants_no_repetition_is_unknown(home: Home):
    """With on_crash fail an execution whose attempt was lost ends as unknown/crash, unsent."""
    async with open_pipeline(home, start=False) as pipeline:
        await _leave_running(pipeline, "job", on_crash=OnCrash.FAIL)
    async with open_pipeline(home) as pipeline:
        (execution,) = await ended(pipeline, "job")
        assert (execution.status, execution.reason) == (ExecutionStatus.UNKNOWN, Reason.CRASH)
        assert pipeline.runner.attempts == []


async def _leave_running(pipeline: Pipeline, job_id: str, *, on_crash: OnCrash) -> None:
    await create(pipeline, job_id, EVERY_HOUR, policy=make_policy(on_crash=on_crash))
    await pipeline.jobs.trigger(JobId(job_id))
    await pipeline.unit_of_work.write(
        lambda connection: connection.execute(
            sa.update(executions).values(
                status="running",
                owner="dead",
                fence=0,
                lease_until_us=0,
                attempts=1,
                started_us=1,
                attempt_started_us=1,
                next_attempt_us=None,
            )
        )
    )


async def test_due_instants_of_a_downtime_are_accounted(home: Home):
    """After downtime every instant since the cursor is accounted by the catch-up policy."""
    policy = make_policy(catch_up=CatchUp.LATEST, misfire_grace=SECOND)
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, "job", EVERY_SECOND, policy=policy)
        created = await pipeline.jobs.get(JobId("job"))
        back = timedelta(minutes=10) // timedelta(microseconds=1)
        await pipeline.unit_of_work.write(
            lambda connection: connection.execute(
                sa.update(jobs).values(
                    next_run_us=jobs.c.next_run_us - back,
                    clock_epoch=1,
                    cursor_us=jobs.c.cursor_us - back,
                    anchor_us=jobs.c.anchor_us - back,
                )
            )
        )
    async with open_pipeline(home) as pipeline:
        history = await ended(pipeline, "job", 4)
    assert created.next_run_time is not None
    first = created.next_run_time - timedelta(minutes=10)
    assert history[0].scheduled_for == first
    assert history[0].reason is Reason.COALESCED
    assert history[0].instant_count > 500
    accounted = sum(execution.instant_count for execution in history)
    assert accounted == (history[-1].scheduled_for - first) // SECOND + 1
    assert {Cause.CATCH_UP, Cause.SCHEDULE} >= {execution.cause for execution in history}


async def test_an_unreadable_job_is_kept_as_broken_and_hurts_nobody(home: Home):
    """A job whose stored schedule is damaged is taken out with the reason; others go on."""
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, "bad", EVERY_SECOND)
        await create(pipeline, "good", EVERY_SECOND)
        await pipeline.unit_of_work.write(
            lambda connection: connection.execute(
                sa.update(jobs).where(jobs.c.id == "bad").values(schedule='{"kind":"moon"}')
            )
        )
    async with open_pipeline(home) as pipeline:
        await ended(pipeline, "good", 2)
        bad = await pipeline.jobs.get(JobId("bad"))
    assert bad.state is JobState.BROKEN
    assert bad.state_reason == "the stored schedule cannot be read"


async def test_a_schedule_that_fails_breaks_only_its_job(home: Home):
    """A job whose schedule is readable but refused is broken with the reason; others go on."""
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, "bad", EVERY_SECOND)
        await create(pipeline, "good", EVERY_SECOND)

        def damage(connection):
            text = connection.execute(sa.select(jobs.c.schedule)).scalars().first()
            damaged = text.replace("1000000", "10").replace("Asia/Tokyo", "Asia/Tokio")
            connection.execute(sa.update(jobs).where(jobs.c.id == "bad").values(schedule=damaged))

        await pipeline.unit_of_work.write(damage)
    async with open_pipeline(home) as pipeline:
        await ended(pipeline, "good", 2)

        async def broken():
            job = await pipeline.jobs.get(JobId("bad"))
            return job if job.state is JobState.BROKEN else None

        bad = await eventually(broken)
    assert "its schedule fails" in str(bad.state_reason)


async def test_a_stop_gives_back_what_it_had_to_interrupt(home: Home):
    """An attempt that outlasts the grace is interrupted and put back, spending no retry."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR)
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        await pipeline.lifecycle.stop(grace=SECOND / 10)
        (execution,) = await pipeline.history("job")
        await pipeline.lifecycle.stop(grace=SECOND)
    assert (execution.status, execution.reason) == (ExecutionStatus.RETRYING, Reason.SHUTDOWN)
    async with open_pipeline(home) as pipeline:
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 2)


async def test_more_runs_than_fit_in_memory_are_swept_up(home: Home):
    """Runs that do not fit into the dispatcher's memory wait in the database and all run."""
    async with open_pipeline(home, start=False) as pipeline:
        pipeline.stations.dispatcher._ready._size_max = 3
        intake = pipeline.stations.dispatcher.intake
        intake._options = replace(intake._options, ready_max=3)
        await create(pipeline, "job", EVERY_HOUR, policy=make_policy(overlap=OverlapPolicy.ALLOW))
        for _ in range(20):
            await pipeline.jobs.trigger(JobId("job"))
        await pipeline.lifecycle.start_alone(None)
        history = await ended(pipeline, "job", 20)
    assert {execution.status for execution in history} == {ExecutionStatus.COMPLETED}
    assert len(pipeline.runner.attempts) == 20


async def test_a_leader_that_was_replaced_cannot_commit_a_tick(home: Home):
    """When another process has taken a new term, this one's ticks are refused."""
    async with open_pipeline(home) as pipeline:
        await pipeline.unit_of_work.write(
            lambda connection: connection.execute(sa.update(leadership).values(term=99))
        )
        await create(pipeline, "job", DateRule(run_at=now() + SECOND / 5))
        await create(pipeline, "witness", EVERY_HOUR)
        await pipeline.jobs.trigger(JobId("witness"))
        await ended(pipeline, "witness")
        await eventually(lambda: pipeline.stations.ledger.lag() > SECOND / 2)
        assert await pipeline.history("job") == []
