"""A runner that does not keep its attempt's deadline."""

from datetime import timedelta

from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import JobId
from tests.integration.engine.test_pipeline import EVERY_HOUR, create, ended
from tests.support.builders import make_delivery
from tests.support.homes import Home
from tests.support.pipeline import ScriptedRunner, open_pipeline


async def test_an_attempt_is_cut_off_after_its_deadline(home: Home):
    """An attempt whose runner goes on after its deadline ends as timed out, and frees its slot."""
    runner = ScriptedRunner()
    runner.gate.clear()
    async with open_pipeline(home, runner=runner) as pipeline:
        brief = make_delivery(timeout=timedelta(milliseconds=1))
        await create(pipeline, "job", EVERY_HOUR, delivery=brief)
        await pipeline.jobs.trigger(JobId("job"))
        # It is given half of its lease's margin more: five seconds.
        (execution,) = await ended(pipeline, "job")
        assert pipeline.stations.dispatcher.running_count == 0
    assert (execution.status, execution.reason) == (ExecutionStatus.FAILED, Reason.TIMEOUT)
    assert execution.error == "The attempt did not end at its deadline and was cut off"
