"""Delivery on event loops of its own: the service's uvloop, and asyncio's; targets run beside them.

In the other tests client and target share a loop, and so never do anything at the same moment.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import pytest
import uvloop

from app.domain.execution import Outcome, Reason
from app.runners.http_options import HttpRunnerOptions, TransportKind
from tests.integration.runners.conftest import Courier
from tests.support.raw_server import RawServer, pour, reply, server_tls

T = TypeVar("T")

MIB = 1024 * 1024
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_each_loop = pytest.mark.parametrize("loop", LOOPS)


async def apart(loop: str, work: Callable[[Courier], Awaitable[T]], **options: timedelta) -> T:
    """Do some work with a courier, in a thread with a loop of its own."""

    async def whole() -> T:
        courier = Courier(TransportKind.DIRECT, HttpRunnerOptions(**options))  # type: ignore[arg-type]  # named by tests
        try:
            return await work(courier)
        finally:
            await courier.close()

    def run() -> T:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            return runner.run(whole())

    return await asyncio.to_thread(run)


@on_each_loop
@pytest.mark.parametrize("make_tls", [lambda: None, server_tls], ids=["plain", "tls"])
async def test_no_more_of_a_body_is_taken_than_may_be_read(
    loop: str, make_tls: Callable[[], ssl.SSLContext | None]
):
    """However much a loop brings in one go, a megabyte of a body is kept, and a sign of more."""
    endless = pour(b"x" * MIB, prefix=b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
    async with RawServer((endless,), tls=make_tls()) as server:
        url = server.url(host="localhost")
        outcome: Outcome = await apart(loop, lambda courier: courier.deliver(url))
    assert outcome.reason is Reason.RESPONSE_TOO_LARGE
    assert outcome.response_bytes is not None
    assert MIB < outcome.response_bytes <= MIB + 16 * 1024


@on_each_loop
async def test_whole_bodies_arrive_whole(loop: str):
    """A body that is as large as may be is read whole, though reading it rests now and then."""
    async with RawServer((reply("b" * MIB),)) as server:
        url = server.url()
        for _ in range(5):
            outcome: Outcome = await apart(loop, lambda courier: courier.deliver(url))
            assert outcome.succeeded, outcome.error
            assert outcome.response_bytes == MIB


@on_each_loop
async def test_session_tickets_are_no_forged_answer(loop: str):
    """What a server of TLS 1.3 sends after its handshake keeps no request from being sent."""

    async def deliver_many(courier: Courier) -> list[Outcome]:
        return [await courier.deliver(url) for _ in range(30)]

    async with RawServer((reply(),), tls=server_tls()) as server:
        url = server.url(host="localhost")
        outcomes = await apart(loop, deliver_many, keepalive=timedelta(0))
        assert server.connection_count == 30
    assert [outcome.error for outcome in outcomes] == [None] * 30
