"""What is recorded is told, to each by itself."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.domain.execution import ClaimedRun, ExecutionStatus, WaitingRun
from app.engine.publisher import Publisher
from app.engine.recorder import Recorder, RecorderOptions
from app.repositories.run_repository import Ending
from tests.support.builders import NOON, make_claimed, make_waiting
from tests.support.pipeline import OK


class ObedientUnitOfWork:
    """Takes every ending as it is."""

    async def write(self, unit: Callable[..., Any]) -> list[Ending]:
        """Give back what was to be written."""
        endings: list[Ending] = unit.keywords["endings"]  # type: ignore[attr-defined]  # a partial
        return endings


def ending_of(run: WaitingRun) -> Ending:
    """Make the end of a run that was answered well."""
    return Ending(
        execution_id=run.id,
        number=1,
        owner="me",
        fence=1,
        started_at=NOON,
        ended_at=NOON,
        status=ExecutionStatus.COMPLETED,
        reason=None,
        outcome=OK,
        retries=0,
        next_attempt_at=None,
    )


async def test_a_failure_of_the_news_of_one_end_keeps_no_other_from_its_slot():
    """Whatever happens on telling of the first of a batch, the others are told."""
    told: list[str] = []

    def fail_at_first(run: ClaimedRun, ending: Ending | None) -> None:
        assert ending is not None
        told.append(run.waiting.id)
        if len(told) == 1:
            raise RuntimeError("boom")

    recorder = Recorder(
        unit_of_work=ObedientUnitOfWork(),  # type: ignore[arg-type]  # a fake
        publisher=Publisher(),
        options=RecorderOptions(),
        on_recorded=fail_at_first,
    )
    for name in ("exe_1", "exe_2", "exe_3"):
        waiting = make_waiting(name)
        recorder.put(make_claimed(waiting=waiting), ending_of(waiting))
    loop = asyncio.get_running_loop().create_task(recorder.run())
    async with asyncio.timeout(10):
        await recorder.drained()
    loop.cancel()
    assert told == ["exe_1", "exe_2", "exe_3"]
    assert recorder.course.failing() is None
