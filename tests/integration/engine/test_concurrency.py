"""The limit of attempts that one process makes at once, over all hosts."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from app.domain.execution import Attempt, ExecutionStatus, Outcome
from app.domain.ids import JobId
from app.domain.job import HttpTarget
from app.domain.schedule import DateRule
from app.repositories import run_repository
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended, now
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


async def test_a_crowd_is_claimed_in_two(home: Home, monkeypatch: pytest.MonkeyPatch):
    """A process that is alone claims for half of its slots at once, and so for all of them."""
    sizes: list[int] = []
    claim_runs = run_repository.claim_runs

    def noted(connection, waiting, claim):
        sizes.append(len(waiting))
        return claim_runs(connection, waiting, claim)

    monkeypatch.setattr(run_repository, "claim_runs", noted)
    runner = CountingRunner()
    async with open_pipeline(home, runner=runner, concurrency=4) as pipeline:
        due = now() + timedelta(seconds=2)
        for job_id in JOBS[:4]:
            await create(pipeline, job_id, DateRule(run_at=due))
        assert now() < due, "the machine is too busy to create them in time"
        await eventually(partial(runner.has_begun, 4))
        assert sizes == [2, 2]
        for _ in range(4):
            runner.permits.release()
        for job_id in JOBS[:4]:
            await ended(pipeline, job_id)
