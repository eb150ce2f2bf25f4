"""The leases of a process that is alone on its database."""

from datetime import timedelta

import sqlalchemy as sa

from app.domain.clock import SystemClock, to_us
from app.domain.ids import JobId
from app.models.tables import executions
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
from tests.support.builders import make_delivery
from tests.support.homes import Home
from tests.support.pipeline import ScriptedRunner, open_pipeline
from tests.support.service import eventually

HOUR = timedelta(hours=1)


async def test_alone_a_lease_covers_the_whole_attempt(home: Home):
    """A process alone on its database leases for the timeout and ten seconds, renewing nothing."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=make_delivery(timeout=HOUR))
        before = SystemClock().now()
        await pipeline.jobs.trigger(JobId("job"))
        await eventually(lambda: runner.attempts)
        after = SystemClock().now()
        lease_us = await pipeline.unit_of_work.read(
            lambda connection: connection.execute(
                sa.select(executions.c.lease_until_us)
            ).scalar_one()
        )
        leases = pipeline.stations.dispatcher.leases
        assert (leases.are_renewed, len(leases.held)) == (False, 1)
        runner.gate.set()
        await ended(pipeline, "job")
        assert leases.held == frozenset()
    margin = timedelta(seconds=10)
    assert to_us(before + HOUR + margin) <= lease_us <= to_us(after + HOUR + margin)
