"""An attempt's request is sent once, whatever the target does to the connection."""

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.runners.http_options import TransportKind
from tests.support.raw_server import RawServer, drop, reply, reset, send_and_close

METHODS = ["GET", "PUT", "DELETE", "POST", "PATCH", "HEAD", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", [drop, reset])
async def test_dropped_on_a_fresh_connection(courier, method, ending):
    """A request the server drops without an answer reaches it exactly once."""
    async with RawServer((ending,)) as server:
        outcome = await courier.deliver(server.url(), method=method, body_json="{}")

        assert len(server.requests) == 1
        assert server.connection_count == 1
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert "may have been processed" in outcome.error


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", [drop, reset])
async def test_dropped_on_a_reused_connection(direct_courier, method, ending):
    """A request dropped on a kept connection is not sent again on a new one."""
    async with RawServer((reply(), ending)) as server:
        first = await direct_courier.deliver(server.url())
        second = await direct_courier.deliver(server.url(), method=method, body_json="{}")

        assert first.succeeded
        assert [request.connection for request in server.requests] == [1, 1]
        assert server.connection_count == 1
    assert second.reason is Reason.PROTOCOL


async def test_idle_connection_closed_by_the_server(courier):
    """A kept connection that the server has closed is exchanged before anything is written."""
    async with RawServer(
        (send_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),)
    ) as server:
        first = await courier.deliver(server.url())
        await server.wait_for(lambda: server.open_count == 0)
        second = await courier.deliver(server.url(), method="POST", body_json="{}")

        assert (first.succeeded, second.succeeded) == (True, True)
        assert [request.connection for request in server.requests] == [1, 2]


async def test_connections_are_kept(courier):
    """Attempts to one host share a connection of ours; httpx's is never used twice."""
    async with RawServer((reply(),)) as server:
        for _ in range(3):
            assert (await courier.deliver(server.url())).succeeded

        shared = courier.kind is TransportKind.DIRECT
        assert server.connection_count == (1 if shared else 3)
