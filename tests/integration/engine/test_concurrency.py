"""The limit of attempts that one process makes at once, over all hosts."""

import asyncio
from functools import partial

from app.domain.execution import Attempt, ExecutionStatus, Outcome
from app.domain.ids import JobId
from app.domain.job import HttpTarget
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
from tests.support.builders import make_delivery
from tests.support.homes import Home
from tests.support.pipeline import OK, ScriptedRunner, open_pipeline
from tests.support.service import eventually

JOBS = [JobId(f"job-{number}") for number in range(6)]


class CountingRunner(ScriptedRunner):
    """A runner that ends one attempt for each permit, and counts those under way."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = asyncio.Semaphore(0)
        self.under_way = 0
        self.peak = 0

    def has_begun(self, count: int) -> bool:
        """Tell whether so many attempts were begun."""
        return len(self.attempts) >= count

    async def run(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await self.permits.acquire()
        finally:
            self.under_way -= 1
        return OK


async def test_so_many_attempts_run_at_once_over_all_hosts(home: Home):
    """With MYSCHEDULER_CONCURRENCY=2 six runs to two hosts that keep silent go two at a time."""
    runner = CountingRunner()
    async with open_pipeline(home, runner=runner, concurrency=2) as pipeline:
        for number, job_id in enumerate(JOBS):
            target = HttpTarget(method="GET", url=f"http://{number % 2}.test/")
            await create(pipeline, job_id, EVERY_HOUR, delivery=make_delivery(target=target))
        for job_id in JOBS:
            await pipeline.jobs.trigger(job_id)
        await eventually(partial(runner.has_begun, 2))
        for begun in (3, 4, 5, 6, 6, 6):
            runner.permits.release()
            await eventually(partial(runner.has_begun, begun))
            assert runner.under_way <= 2
        for job_id in JOBS:
            (execution,) = await ended(pipeline, job_id)
            assert execution.status is ExecutionStatus.COMPLETED
    assert runner.peak == 2
    assert len({attempt.target.url for attempt in runner.attempts[:2]}) == 2
