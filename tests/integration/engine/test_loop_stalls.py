"""No callback of the event loop keeps the others waiting, whatever happens around it.

Measured in CPU time of the loop's thread: what else the machine does is not in it.
"""

import asyncio
import gc
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.main.serving import _calm_the_collector
from app.models.tables import jobs
from tests.integration.engine.test_pipeline import EVERY_HOUR, EVERY_SECOND, SECOND, create, now
from tests.integration.engine.test_survival import SteppedClock
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.loop_cost import LoopCost, measured_callbacks
from tests.support.pipeline import Pipeline, open_pipeline
from tests.support.service import eventually
from tests.support.storage import locked

pytestmark = pytest.mark.slow

CALLBACK_SECONDS = 0.1
MANY = 300
HERD = 3_000
ENDED = "SELECT count(*) FROM executions WHERE finished_us IS NOT NULL"
BEHIND = "SELECT count(*) FROM jobs WHERE next_run_us < :cut"


@pytest.fixture
def cost() -> Iterator[LoopCost]:
    """Measure the callbacks of the test's loop, with Python's collector as the service has it.

    Else it would look at everything that a run of tests has gathered.
    """
    thresholds = gc.get_threshold()
    _calm_the_collector()
    try:
        with measured_callbacks() as found:
            yield found
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def judge(cost: LoopCost) -> None:
    assert cost.callbacks > 0
    assert cost.seconds < CALLBACK_SECONDS, cost.callback


async def create_many(pipeline: Pipeline, number: int, rule: object) -> None:
    """Create jobs, each calling a host of its own."""
    for begin in range(0, number, 100):
        names = (f"job-{n:05}" for n in range(begin, min(begin + 100, number)))
        await asyncio.gather(*(create(pipeline, name, rule) for name in names))


async def count(pipeline: Pipeline, statement: str, **parameters: int) -> int:
    """Count by SQL, away from the loop."""
    counted = sa.text(statement)
    return int(
        await pipeline.unit_of_work.read(
            lambda connection: connection.execute(counted, parameters).scalar_one()
        )
    )


@pytest.mark.only_on(DatabaseKind.SQLITE, because="a server's clients lock rows, not the file")
async def test_while_the_database_is_locked(home: Home, cost: LoopCost):
    """While another process holds the lock, and when all that waited is made up."""
    async with open_pipeline(home) as pipeline:
        await create_many(pipeline, 50, EVERY_SECOND)
        cost.forget()
        async with locked(home.file):
            held_at = time.monotonic()
            await eventually(lambda: time.monotonic() - held_at > 6)
        before = await count(pipeline, ENDED)
        await eventually(lambda: grown(pipeline, before + 100), every=0.2)
        judge(cost)


async def grown(pipeline: Pipeline, number: int) -> bool:
    """Tell whether so many executions have ended."""
    return await count(pipeline, ENDED) >= number


async def test_after_a_step_forward_of_the_clock(home: Home, cost: LoopCost):
    """An hour of missed instants of many jobs is found elsewhere, and written in parts."""
    clock = SteppedClock()
    async with open_pipeline(home, clock=clock) as pipeline:
        await create_many(pipeline, MANY, EVERY_SECOND)
        await eventually(lambda: grown(pipeline, MANY), every=0.2)
        cost.forget()
        clock.offset = timedelta(hours=1)
        cut = to_us(clock.now() - 60 * SECOND)

        async def caught_up() -> bool:
            return await count(pipeline, BEHIND, cut=cut) == 0

        await eventually(caught_up, seconds=60, every=0.2)
        judge(cost)


async def test_when_a_herd_is_due_at_once(home: Home, cost: LoopCost):
    """Thousands of jobs due in the same instant are read, ticked, claimed, sent and recorded."""
    async with open_pipeline(home, start=False, concurrency=1000) as pipeline:
        await create_many(pipeline, HERD, EVERY_HOUR)
        due_us = to_us(now() + 3 * SECOND)

        def gather(connection: WriteConnection) -> None:
            connection.execute(sa.update(jobs).values(next_run_us=due_us))

        await pipeline.unit_of_work.write(gather)
        cost.forget()
        await pipeline.lifecycle.start_alone(None)
        await eventually(lambda: grown(pipeline, HERD), seconds=60, every=0.2)
        assert len(pipeline.runner.attempts) == HERD
        judge(cost)


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="it is its connections that are reset")
async def test_when_postgres_resets_its_connections(home: Home, cost: LoopCost):
    """In the middle of passes, claims and records, again and again."""
    reset = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with open_pipeline(home) as pipeline:
        await create_many(pipeline, 100, EVERY_SECOND)
        await eventually(lambda: grown(pipeline, 100), every=0.2)
        cost.forget()
        for _ in range(5):
            at = time.monotonic()
            await asyncio.to_thread(home.rows, reset)
            await eventually(lambda at=at: time.monotonic() - at > 0.7)  # type: ignore[misc]
        done = await count(pipeline, ENDED)
        await eventually(lambda: grown(pipeline, done + 200), every=0.2)
        judge(cost)
