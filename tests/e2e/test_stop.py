"""Stopping in order: what is under way may end, what cannot is sent again, the exit code is 0."""

import asyncio
import signal

import pytest

from tests.e2e.world import (
    arrivals,
    assert_names,
    create,
    reply_after,
    soon,
    wait_for_end,
)
from tests.support.homes import Home
from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import Service, eventually

pytestmark = pytest.mark.slow
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
async def test_an_attempt_under_way_may_end(home: Home, number: signal.Signals):
    """A stop waits for the attempt under way; the exit code is 0 and its outcome is recorded."""
    answer = asyncio.Event()
    async with RawServer((reply_after(answer),)) as target, Service(home) as service:
        await create(
            service.client, "held", target.url("/held"), schedule_type="date", run_at=soon(0.2)
        )
        await eventually(lambda: target.requests)

        async def answer_while_stopping() -> None:
            await eventually(lambda: _has_logged(service, "scheduler.stopping"))
            answer.set()

        code, _ = await asyncio.gather(service.stop(number), answer_while_stopping())
        assert code == 0
        assert _has_logged(service, "scheduler.stopped")

        await service.start()
        held = await wait_for_end(service.client, "held")
        assert (held["status"], held["attempts"]) == ("completed", 1)
        assert held["result"]["response_body"] == "at last"
        assert len(arrivals(target, "/held")) == 1
        assert not _has_logged(service, "attempt.lost")


@SIGNALS
async def test_an_attempt_that_cannot_end_is_sent_again(home: Home, number: signal.Signals):
    """What the grace is too short for goes on after the next start: same id, no retry spent."""
    async with (
        RawServer((hang, reply("again"))) as target,
        Service(home, MYSCHEDULER_SHUTDOWN_GRACE_SECONDS="0.2") as service,
    ):
        await create(
            service.client, "held", target.url("/held"), schedule_type="date", run_at=soon(0.2)
        )
        await eventually(lambda: target.requests)
        assert await service.stop(number) == 0
        assert len(target.requests) == 1

        await service.start()
        held = await wait_for_end(service.client, "held")
        assert (held["status"], held["attempts"]) == ("completed", 2)
        assert [a["outcome"] for a in held["attempt_list"]] == ["interrupted", "response"]
        assert [a["reason"] for a in held["attempt_list"]] == ["shutdown", None]
        assert len(target.requests) == 2
        for attempt, request in enumerate(target.requests, start=1):
            assert_names(request, held, attempt=attempt)
        assert not _has_logged(service, "attempt.lost")


def _has_logged(service: Service, event: str) -> bool:
    return any(line["event"] == event for line in service.log_lines())
