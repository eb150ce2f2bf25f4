"""Nothing of one attempt reaches another: no cookie, no stray byte, no crowded pool."""

import asyncio
import contextlib
import gc
import socket
import threading
from datetime import timedelta

import pytest
from httptools import HttpResponseParser

from app.domain.execution import AttemptOutcome, Reason
from app.runners.answer import Answer
from app.runners.dialer import Candidate
from app.runners.http_options import HttpRunnerOptions
from tests.support.raw_server import (
    WAIT_SECONDS,
    RawServer,
    hang,
    reply,
    send,
    send_and_close,
    server_tls,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"


async def test_cookies(courier):
    """A cookie one job was given is sent by no job, not even by name of host."""
    given = reply(headers=("Set-Cookie: sid=1; Path=/", "Set-Cookie: other=2"))
    async with RawServer((given,)) as server:
        for job_id in ("a", "a", "b"):
            await courier.deliver(server.url(host="localhost"), job_id=job_id)
        assert not any("cookie" in request.headers for request in server.requests)


async def test_answer_after_the_answer(courier):
    """A second answer sent with the first is not taken for the next request's."""
    async with RawServer((send(OK + FORGED), reply("real"))) as server:
        await courier.deliver(server.url())
        outcome = await courier.deliver(server.url())
        assert outcome.response_excerpt == "real"
        assert [request.connection for request in server.requests] == [1, 2]


async def test_short_answer_after_the_answer(courier):
    """One without a body neither takes the first one's place nor leaves the connection in use."""
    forged = b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n"
    async with RawServer((send(OK + forged), reply("real"))) as server:
        outcome = await courier.deliver(server.url())
        assert (outcome.http_status, outcome.response_excerpt) == (200, "ok")
        assert (await courier.deliver(server.url())).response_excerpt == "real"
        assert [request.connection for request in server.requests] == [1, 2]


async def test_rubbish_after_the_answer(courier):
    """Rubbish after a body costs the connection, and the next attempt nothing."""
    async with RawServer((send(OK + b"rubbish\r\n\r\n"), reply("real"))) as server:
        await courier.deliver(server.url())
        outcome = await courier.deliver(server.url())
        assert outcome.response_excerpt == "real"
        assert [request.connection for request in server.requests] == [1, 2]


async def test_forged_answer_on_an_idle_connection(courier):
    """An answer that arrives while the connection is idle is not taken for the next request's."""
    idle = asyncio.Event()
    forged = asyncio.Event()

    async def forge(exchange):
        await exchange.send(OK)
        await idle.wait()
        await exchange.send(FORGED)
        forged.set()

    async with RawServer((forge, reply("real"))) as server:
        assert (await courier.deliver(server.url())).response_excerpt == "ok"
        idle.set()
        await forged.wait()
        outcome = await courier.deliver(server.url())
        assert outcome.response_excerpt == "real"
        assert [request.connection for request in server.requests] == [1, 2]


async def test_bytes_on_an_idle_connection(direct_courier):
    """A connection on which anything arrives while it is idle is closed at once."""

    async def chatter(exchange):
        await exchange.send(OK)
        await idle.wait()
        await exchange.send(FORGED)

    idle = asyncio.Event()
    direct_courier.options = HttpRunnerOptions(keepalive=timedelta(minutes=1))
    async with RawServer((chatter,)) as server:
        await direct_courier.deliver(server.url())
        idle.set()
        await server.wait_for(lambda: server.open_count == 0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_early_answer_to_a_large_request(direct_courier, tls):
    """An answer that comes before the request is read whole counts; its connection is closed."""
    body = '"' + "x" * 20_000_000 + '"'

    async def refuse_early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await answered.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000_000):
                pass
        left.set()
        writer.close()

    answered, left = asyncio.Event(), asyncio.Event()
    context = server_tls() if tls else None
    listener = await asyncio.start_server(refuse_early, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    url = f"https://localhost:{port}/" if tls else f"http://127.0.0.1:{port}/"
    direct_courier.options = HttpRunnerOptions(keepalive=timedelta(minutes=1))
    outcome = await direct_courier.deliver(url, method="POST", body_json=body)
    answered.set()
    async with asyncio.timeout(WAIT_SECONDS):
        await left.wait()
    listener.close()
    await listener.wait_closed()
    assert outcome.http_status == 413


async def test_connections_are_not_kept_without_end(direct_courier):
    """Beyond the number of connections to keep, each is closed after its answer."""
    direct_courier.options = HttpRunnerOptions(
        connections_kept_max=1, keepalive=timedelta(minutes=1)
    )
    async with RawServer((hang, reply())) as server, asyncio.TaskGroup() as group:
        waiting = group.create_task(direct_courier.deliver(server.url()))
        await server.wait_for(lambda: len(server.requests) == 1)
        assert (await direct_courier.deliver(server.url())).succeeded
        await server.wait_for(lambda: server.open_count == 1)
        waiting.cancel()


async def test_pool_limit(direct_courier):
    """At the pool's limit attempts wait for each other, and a deadline says so."""
    direct_courier.options = HttpRunnerOptions(connections_max=1)
    async with RawServer((hang,)) as server, asyncio.TaskGroup() as group:
        holder = group.create_task(direct_courier.deliver(server.url()))
        await server.wait_for(lambda: len(server.requests) == 1)
        outcome = await direct_courier.deliver(server.url(), timeout=timedelta(seconds=0.1))
        assert outcome.reason is Reason.TIMEOUT
        assert "waiting for a free connection" in outcome.error
        holder.cancel()


async def test_many_at_once(courier):
    """A hundred attempts at once each get their own answer."""

    async def echo(exchange):
        await reply(exchange.request.line)(exchange)

    async with RawServer((echo,)) as server, asyncio.TaskGroup() as group:
        runs = [
            group.create_task(courier.deliver(server.url(f"/{number}"), job_revision=number))
            for number in range(100)
        ]
        outcomes = [await run for run in runs]
    lines = [outcome.response_excerpt for outcome in outcomes]
    assert lines == [f"GET /{number} HTTP/1.1" for number in range(100)]


async def test_close(courier):
    """Closing frees every connection and may be done twice."""
    async with RawServer((reply(),)) as server:
        await courier.deliver(server.url())
        await courier.runner.close()
        await courier.runner.close()
        await server.wait_for(lambda: server.open_count == 0)


async def test_connection_close(courier):
    """A connection whose server announces its end is not used again."""
    closing = send_and_close(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    async with RawServer((closing,)) as server:
        for _ in range(2):
            assert (await courier.deliver(server.url())).succeeded
        assert server.connection_count == 2


async def test_idle_connections_are_not_kept_for_long(direct_courier):
    """A connection that served is closed after its time at rest, though nobody asks for it."""
    direct_courier.options = HttpRunnerOptions(keepalive=timedelta(seconds=0.1))
    async with RawServer((reply(),)) as server:
        for path in ("/a", "/b"):
            assert (await direct_courier.deliver(server.url(path))).succeeded
        assert server.connection_count == 1
        await server.wait_for(lambda: server.open_count == 0)


async def test_no_connection_is_kept(direct_courier):
    """Where none is to be kept, each attempt has its own."""
    direct_courier.options = HttpRunnerOptions(keepalive=timedelta(0))
    async with RawServer((reply(),)) as server:
        for _ in range(2):
            assert (await direct_courier.deliver(server.url())).succeeded
        assert server.connection_count == 2
        await server.wait_for(lambda: server.open_count == 0)


async def test_head_keeps_its_connection(direct_courier):
    """The length that an answer to HEAD announces is of no body, and the next answer is whole."""
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    async with RawServer((send(announced), reply("next"))) as server:
        outcome = await direct_courier.deliver(server.url(), method="HEAD")
        assert (outcome.succeeded, outcome.response_bytes) == (True, 0)
        assert (await direct_courier.deliver(server.url())).response_excerpt == "next"
        assert server.connection_count == 1


async def test_head_answered_with_a_body(courier):
    """A body that follows the answer to HEAD is nobody's, and costs the connection."""
    async with RawServer((send(OK), reply("next"))) as server:
        outcome = await courier.deliver(server.url(), method="HEAD")
        assert (outcome.succeeded, outcome.response_excerpt) == (True, "")
        assert (await courier.deliver(server.url())).response_excerpt == "next"
        assert server.connection_count == 2


async def test_chunked_answer_to_head(direct_courier):
    """Chunks that an answer to HEAD announces do not come, and its connection is not kept."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with RawServer((send(head + b"26"), reply("next"))) as server:
        outcome = await direct_courier.deliver(server.url(), method="HEAD")
        assert (outcome.succeeded, outcome.response_bytes) == (True, 0)
        assert (await direct_courier.deliver(server.url())).response_excerpt == "next"
        assert server.connection_count == 2


async def test_close_inside_a_body(direct_courier):
    """A body that was on its way when the runner was closed did not end, wherever it would have."""

    async def half(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await hang(exchange)

    async with RawServer((half, reply())) as server, asyncio.TaskGroup() as group:
        attempt = group.create_task(direct_courier.deliver(server.url()))
        await server.wait_for(lambda: len(server.requests) == 1)
        # An answer that was sent later is here, and so is the half.
        assert (await direct_courier.deliver(server.url())).succeeded
        await direct_courier.runner.close()
        outcome = await attempt
    assert outcome.reason is Reason.PROTOCOL
    assert "early" in outcome.error


async def test_nothing_is_sent_after_the_close(direct_courier):
    """An attempt that comes late is told that nothing was sent, and nothing is."""
    async with RawServer((reply(),)) as server:
        assert (await direct_courier.deliver(server.url())).succeeded
        await direct_courier.runner.close()
        outcome = await direct_courier.deliver(server.url())
        assert len(server.requests) == 1
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT)
    assert "nothing was sent" in outcome.error


async def test_nothing_is_sent_by_who_connects_at_the_close(direct_courier):
    """Nor is it by an attempt whose connection comes about when the runner is closed already."""
    asked, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def lookup(_host, port, flags):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        loop.call_soon_threadsafe(asked.set)
        go_on.wait(WAIT_SECONDS)
        return [Candidate(socket.AF_INET, ("127.0.0.1", port))]

    direct_courier.lookup = lookup
    async with RawServer((reply(),)) as server, asyncio.TaskGroup() as group:
        attempt = group.create_task(direct_courier.deliver(server.url(host="slow.test")))
        async with asyncio.timeout(WAIT_SECONDS):
            await asked.wait()
        await direct_courier.runner.close()
        go_on.set()
        outcome = await attempt
        assert not server.requests
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT)
    assert "stopping; nothing was sent" in outcome.error


@pytest.mark.parametrize(
    "answer",
    [b"", b"rubbish\r\n\r\n", OK[:-1], OK.split(b"\r\n")[0] + b"\r\n\r\nuntil-close",
     b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 200 + b"\r\n"],
    ids=["none", "malformed", "truncated", "until-close", "fields"],
)  # fmt: skip
async def test_what_an_attempt_held_is_freed_at_its_end(direct_courier, answer):
    """Neither the connection nor what it brought waits for the garbage collector."""
    async with RawServer((send_and_close(answer),)) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await direct_courier.deliver(server.url())
            await server.wait_for(lambda: server.open_count == 0)
            held = [one for one in gc.get_objects() if isinstance(one, HttpResponseParser | Answer)]
        finally:
            gc.enable()
    assert held == []
