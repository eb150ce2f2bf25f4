"""A job that is triggered, or comes due, faster than it runs."""

import asyncio
from functools import partial

import pytest

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.errors import TooManyWaitingError
from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.ids import JobId
from app.domain.policies import OverlapPolicy
from app.engine.tick import QUEUE_MAX
from app.repositories import execution_repository, run_repository
from app.repositories.waiting_repository import soonest_runs
from tests.conformance.builders import make_claim, make_ending, make_limits, make_row
from tests.integration.engine.test_pipeline import (
    EVERY_HOUR,
    EVERY_SECOND,
    SECOND,
    create,
    ended,
    now,
)
from tests.support.builders import make_policy
from tests.support.homes import Home
from tests.support.pipeline import ScriptedRunner, open_pipeline
from tests.support.service import eventually


async def test_a_flood_of_triggers_is_bounded(home: Home):
    """Beyond a thousand waiting executions a job takes no more, and says so; nothing is stored."""
    runner = ScriptedRunner()
    runner.gate.clear()
    job_id = JobId("job")
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, job_id, EVERY_HOUR)
        answers = await asyncio.gather(
            *(pipeline.jobs.trigger(job_id) for _ in range(QUEUE_MAX + 100)),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert {type(error) for error in refused} == {TooManyWaitingError}
        ((stored,),) = home.rows("SELECT count(*) FROM executions")
        assert stored == len(answers) - len(refused)
        # One may have been claimed meanwhile, and made room for another.
        assert stored in {QUEUE_MAX, QUEUE_MAX + 1}
        runner.gate.set()
        history = await ended(pipeline, job_id)
        assert ExecutionStatus.COMPLETED in {execution.status for execution in history}
        assert await pipeline.jobs.trigger(job_id)


async def test_others_are_not_counted(home: Home):
    """What waits of one job takes no room from another."""
    runner = ScriptedRunner()
    runner.gate.clear()
    full, other = JobId("full"), JobId("other")
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, full, EVERY_HOUR)
        await create(pipeline, other, EVERY_HOUR)
        await pipeline.jobs.trigger(full)
        await eventually(lambda: runner.attempts)
        floods = (pipeline.jobs.trigger(full) for _ in range(QUEUE_MAX + 1))
        await asyncio.gather(*floods, return_exceptions=True)
        with pytest.raises(TooManyWaitingError, match="nothing was stored"):
            await pipeline.jobs.trigger(full)
        assert await pipeline.jobs.trigger(other)


def put_in_line(connection: WriteConnection, *, job_id: JobId, status: ExecutionStatus) -> None:
    """Let as many executions of a job as may wait do so for an hour, as new ones or for a retry."""
    moment = now()
    later = moment + 3600 * SECOND
    fields = {"cause": Cause.MANUAL, "exclusive": False, "next_attempt_at": later}
    rows = [make_row(number, job_id, **fields) for number in range(QUEUE_MAX)]
    execution_repository.insert_executions(connection, rows, now_us=to_us(moment))
    if status is ExecutionStatus.RETRYING:
        waiting = soonest_runs(connection, limits=make_limits(until=later)).runs
        runs, _ = run_repository.claim_runs(connection, waiting, make_claim(now=moment))
        endings = [make_ending(run, status, next_attempt_at=later) for run in runs]
        run_repository.record_endings(connection, endings)


@pytest.mark.parametrize("status", [ExecutionStatus.QUEUED, ExecutionStatus.RETRYING])
async def test_a_schedule_that_may_overlap_is_bounded(home: Home, status: ExecutionStatus):
    """A thousand executions that wait, for a turn or a retry, are all, even where runs overlap."""
    job_id = JobId("job")
    allow = make_policy(overlap=OverlapPolicy.ALLOW)
    async with open_pipeline(home, start=False) as pipeline:
        await create(pipeline, job_id, EVERY_SECOND, policy=allow)
        await pipeline.unit_of_work.write(partial(put_in_line, job_id=job_id, status=status))
        await pipeline.lifecycle.start_alone(None)

        def left_out() -> list[tuple[str]]:
            return home.rows("SELECT status FROM executions WHERE reason = ?", Reason.QUEUE_FULL)

        assert {status for (status,) in await eventually(left_out)} == {ExecutionStatus.SKIPPED}
        with pytest.raises(TooManyWaitingError, match="nothing was stored"):
            await pipeline.jobs.trigger(job_id)
        counted = home.rows("SELECT count(*) FROM executions WHERE status = ?", status)
    assert counted == [(QUEUE_MAX,)]
    assert pipeline.runner.attempts == []
