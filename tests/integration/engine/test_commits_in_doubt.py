"""A commit that was stored, or was not, and went unanswered: each station finds out by itself."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest

from app.db.unit_of_work import Together, WriteConnection, Writer
from app.domain.clock import SystemClock
from app.domain.errors import StorageUnansweredError
from app.domain.events import ExecutionEnded
from app.domain.execution import AttemptOutcome, ExecutionStatus, Outcome, Reason
from app.domain.ids import JobId
from app.domain.policies import RetryPolicy
from app.domain.schedule import DateRule
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
from tests.support.builders import make_delivery
from tests.support.homes import Home
from tests.support.pipeline import OK, Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually

T = TypeVar("T")

# Stations, by where in the code their transactions are made.
TICK, CLAIM, RECORD = r"^Ledger\.", r"^Dispatcher\._claim_once\.", r"^record_endings"
# Sooner than the next sweep, and than a lease ends.
SOON = timedelta(seconds=10)
BUSY = Outcome(
    kind=AttemptOutcome.RESPONSE, http_status=503, reason=Reason.STATUS, error="It is busy"
)


class DoubtfulWriter:
    """A writer that leaves the first transaction of a station unanswered, stored or not."""

    def __init__(self, writer: Writer, place: str, *, stores: bool) -> None:
        self._writer = writer
        self._place = place
        self._stores = stores
        self.was_met = False

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        if self.was_met or not re.search(self._place, _name_of(unit)):
            return await self._writer.write(unit)
        self.was_met = True
        if self._stores:
            await self._writer.write(unit)
        raise StorageUnansweredError

    async def close(self) -> None:
        await self._writer.close()


def _name_of(unit: Callable[..., object]) -> str:
    while isinstance(unit, partial | Together):
        unit = unit.func if isinstance(unit, partial) else unit.function
    return str(getattr(unit, "__qualname__", ""))


def leave_unanswered(pipeline: Pipeline, place: str, *, stores: bool) -> DoubtfulWriter:
    """Have the next transaction of a station in doubt."""
    writer = DoubtfulWriter(pipeline.writer._writer, place, stores=stores)
    pipeline.writer._writer = writer
    return writer


def told(pipeline: Pipeline) -> list[ExecutionStatus]:
    """List what was told of the ends of executions."""
    return [event.status for event in pipeline.events if isinstance(event, ExecutionEnded)]


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("place", [TICK, CLAIM, RECORD])
async def test_a_run_in_doubt_is_sent_once(home: Home, place: str, *, stores: bool):
    """Whichever commit is in doubt, the run is sent once and soon, recorded once and told once."""
    async with open_pipeline(home) as pipeline:
        writer = leave_unanswered(pipeline, place, stores=stores)
        due = SystemClock().now() + timedelta(seconds=0.3)
        await create(pipeline, "job", DateRule(run_at=due))
        (execution,) = await ended(pipeline, "job")
        assert writer.was_met
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 1)
    assert execution.finished_at is not None
    assert execution.finished_at - due < SOON
    assert len(pipeline.runner.attempts) == 1
    assert told(pipeline) == [ExecutionStatus.COMPLETED]


async def test_a_claim_in_doubt_outlives_a_look(home: Home):
    """Who looks at what waits before the next claim finds the run claimed, and forgets it not."""
    async with open_pipeline(home) as pipeline:
        writer = leave_unanswered(pipeline, CLAIM, stores=True)
        due = SystemClock().now() + timedelta(seconds=0.3)
        await create(pipeline, "job", DateRule(run_at=due))
        await eventually(lambda: writer.was_met)
        pipeline.stations.dispatcher.read_again()
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 1)
    assert execution.finished_at is not None
    assert execution.finished_at - due < SOON


@pytest.mark.parametrize("stores", [True, False])
async def test_a_retry_in_doubt_comes_at_its_time(home: Home, *, stores: bool):
    """A retry whose commit is in doubt is made when it is due, not when it is swept up."""
    delivery = make_delivery(retry=RetryPolicy(max_retries=1, first_wait=timedelta(seconds=0.2)))
    async with open_pipeline(home, runner=ScriptedRunner(BUSY, OK)) as pipeline:
        await create(pipeline, "job", EVERY_HOUR, delivery=delivery)
        leave_unanswered(pipeline, RECORD, stores=stores)
        await pipeline.jobs.trigger(JobId("job"))
        (execution,) = await ended(pipeline, "job")
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 2)
    assert execution.finished_at is not None
    assert execution.finished_at - execution.scheduled_for < SOON
    assert told(pipeline) == [ExecutionStatus.RETRYING, ExecutionStatus.COMPLETED]
