"""The pipeline beside another process on its database: what that one does to a host counts here."""

from datetime import timedelta

import pytest

from app.db.unit_of_work import WriteConnection
from app.domain.clock import SystemClock, to_us
from app.domain.execution import ClaimedRun, ExecutionStatus
from app.domain.ids import JobId
from app.repositories import execution_repository, run_repository
from app.repositories.waiting_repository import soonest_runs
from tests.conformance.builders import make_claim, make_ending, make_limits, make_row
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.pipeline import Pipeline, open_pipeline
from tests.support.service import eventually

pytestmark = pytest.mark.only_on(
    DatabaseKind.POSTGRES, because="with SQLite there is no other process"
)

ANOTHER = "another:1"


async def run_elsewhere(pipeline: Pipeline, job_id: str) -> ClaimedRun:
    """Have another process claim a run of a job."""
    now = SystemClock().now()
    row = make_row(job_id=job_id, scheduled_for=now, next_attempt_at=now)

    def claim(connection: WriteConnection) -> ClaimedRun:
        execution_repository.insert_executions(connection, [row], now_us=to_us(now))
        waiting = soonest_runs(connection, limits=make_limits(until=now)).runs
        (claimed,), _ = run_repository.claim_runs(
            connection, waiting, make_claim(owner=ANOTHER, now=now)
        )
        return claimed

    return await pipeline.unit_of_work.write(claim)


async def test_a_host_that_another_process_has_is_waited_for(home: Home):
    """A run waits while another process has its host's only slot, and goes when that is free."""
    async with open_pipeline(home, host_concurrency=1) as pipeline:
        await create(pipeline, "theirs", EVERY_HOUR)
        await create(pipeline, "mine", EVERY_HOUR)
        theirs = await run_elsewhere(pipeline, "theirs")
        await pipeline.jobs.trigger(JobId("mine"))
        ready = pipeline.stations.dispatcher._ready
        await eventually(lambda: ready._shares._shares)
        assert pipeline.runner.attempts == []
        ending = make_ending(theirs, ExecutionStatus.COMPLETED, owner=ANOTHER)
        await pipeline.unit_of_work.write(
            lambda connection: run_repository.record_endings(connection, [ending])
        )
        (execution,) = await ended(pipeline, "mine")
    assert execution.status is ExecutionStatus.COMPLETED


async def test_a_start_that_another_process_made_is_kept_away_from(home: Home):
    """A run starts no sooner than the rate allows after another process's start."""
    async with open_pipeline(home, host_starts_per_second=1) as pipeline:
        await create(pipeline, "job", EVERY_HOUR)
        [(host,)] = home.rows("SELECT host FROM jobs")
        allowed = SystemClock().now() + timedelta(seconds=0.8)
        home.rows("INSERT INTO host_starts VALUES (?, ?)", host, to_us(allowed))
        await pipeline.jobs.trigger(JobId("job"))
        await ended(pipeline, "job")
    [attempt] = pipeline.runner.attempts
    assert attempt.started_at >= allowed - timedelta(seconds=0.1)
