"""A job that is triggered faster than it runs."""

import asyncio

import pytest

from app.domain.errors import TooManyWaitingError
from app.domain.execution import ExecutionStatus
from app.domain.ids import JobId
from app.engine.tick import QUEUE_MAX
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
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
