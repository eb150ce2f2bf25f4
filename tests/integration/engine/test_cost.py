"""What a run costs, in calls of functions: wall times say nothing on a busy machine.

The limits are a fifth above what was counted when they were last set. A change that breaks one
either has a mistake (work once per run that belongs once per batch, or once per job) or a good
reason, and then a new limit.
"""

from datetime import timedelta
from pathlib import Path

from app.domain.events import ExecutionEnded
from app.domain.schedule import DateRule
from tests.integration.engine.test_pipeline import create, now
from tests.support.call_count import counted_calls
from tests.support.homes import sqlite_home
from tests.support.pipeline import Pipeline, open_pipeline
from tests.support.service import eventually

FEW, MANY = 100, 600
# From the window to the recorded outcome, without the runner.
CALLS_PER_RUN_MAX = 420


async def herd(folder: Path, size: int) -> int:
    """Count the calls that so many one-off jobs cost, due at one instant and created before."""
    with counted_calls() as count:
        async with open_pipeline(sqlite_home(folder), host_concurrency=MANY) as pipeline:
            due = now() + timedelta(seconds=3 + size / 100)
            for number in range(size):
                await create(pipeline, f"job-{number}", DateRule(run_at=due))
            assert now() < due, "the machine is too busy to create them in time"
            before = count.calls
            await eventually(lambda: runs_ended(pipeline) == size)
            return count.calls - before


def runs_ended(pipeline: Pipeline) -> int:
    return sum(isinstance(event, ExecutionEnded) for event in pipeline.events)


async def test_a_run_costs_few_calls(tmp_path: Path):
    """Each further run of a herd costs no more calls than it did."""
    few = await herd(tmp_path / "few", FEW)
    many = await herd(tmp_path / "many", MANY)
    assert (many - few) / (MANY - FEW) <= CALLS_PER_RUN_MAX
