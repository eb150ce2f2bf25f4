"""Clients that take their time, or more than their share: what the server does about each."""

import asyncio
import contextlib
import json
import resource
import time

import pytest

from app.main.connections import ConnectionOptions, fit_to_files
from tests.support.homes import Home
from tests.support.http_server import WAIT_SECONDS, HttpServer, open_server, statuses, talk
from tests.support.service import eventually

SHORT = ConnectionOptions(head_seconds=0.5, linger_seconds=0.5, stall_seconds=0.5)
GET = b"GET /health HTTP/1.1\r\nHost: service\r\n"
POST = b"POST /api/v1/jobs HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def dripped(data: bytes) -> list[bytes]:
    """Take bytes one by one."""
    return [bytes([byte]) for byte in data]


async def talk_timed(server: HttpServer, *parts: bytes) -> tuple[list[int], float]:
    """Send parts 50 ms apart; return the statuses answered and the seconds until the end."""
    begun = time.monotonic()
    answer = await talk(server.port, parts, every=0.05)
    return statuses(answer), time.monotonic() - begun


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), []),
        (dripped(GET * 3), [408]),
        ([b"\r\n"] * 100, [408]),
        ([GET + b"\r\n", *dripped(GET * 3)], [200, 408]),
        ([GET + b"\r\n", *[b"\r\n"] * 100], [200, 408]),
        ([POST + b"Content-Length: 9\r\n\r\n"], [408]),
        ([POST + b"Content-Length: 100\r\n\r\n", *dripped(b" " * 90)], [408]),
        ([CHUNKED, *[b"1\r\n \r\n"] * 100], [408]),
        ([GET + b"Content-Length: 100\r\n\r\n"], [200]),
        ([GET + b"Content-Length: 100\r\n\r\n", *dripped(b" " * 90)], [200]),
        ([GET + b"\r\n" + GET], [200, 408]),
    ],
    ids=[
        *("silent", "head", "line-ends", "second-head", "second-line-ends", "no-body", "body"),
        *("chunks", "unwanted-body", "unwanted-slow-body", "half-a-second-request"),
    ],
)
async def test_slow_senders(home: Home, parts: list[bytes], expected: list[int]):
    """Whatever a client sends slowly, it is answered 408 if it began anything, and cut off."""
    async with open_server(home, SHORT, body_seconds=0.5) as server:
        found, seconds = await talk_timed(server, *parts)
        await eventually(lambda: server.open_count == 0)
    assert found == expected
    assert 0.4 < seconds < 3


async def test_a_slow_request_is_told_so(home: Home):
    """The answer to a slow body is a problem document, after which the connection ends."""
    async with open_server(home, SHORT, body_seconds=0.2) as server:
        answer = await talk(server.port, [POST + b"Content-Length: 9\r\n\r\n{"])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Request Timeout",
        "status": 408,
        "detail": "The request did not arrive in time; send it again",
        "code": "request_timeout",
    }


async def test_a_request_in_pieces(home: Home):
    """A request that arrives in pieces, but in time, is answered, and so is the next one."""
    request = POST + b"Content-Length: 2\r\n\r\n{}"
    pieces = [request[start : start + 40] for start in range(0, len(request), 40)]
    async with open_server(home, ConnectionOptions()) as server:
        answer = await talk(server.port, [*pieces, GET + b"Connection: close\r\n\r\n"], every=0.01)
    assert statuses(answer) == [422, 200]


async def test_an_answer_that_is_not_read(home: Home):
    """A client that asks and does not read its answers loses the connection."""
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: service\r\n\r\n" * 1000
    async with open_server(home, SHORT) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        writer.write(requests)
        await eventually(lambda: server.open_count == 1)
        await eventually(lambda: server.open_count == 0)
        writer.transport.abort()


async def test_the_longest_waiting_makes_room(home: Home):
    """At the limit of connections a new one is served, and the one idle for longest goes."""
    options = ConnectionOptions(connections_max=3)
    async with open_server(home, options) as server:
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while len(idle) < options.connections_max:
            idle.append(await asyncio.open_connection("127.0.0.1", server.port))
            await eventually(lambda: server.open_count == len(idle))
        answer = await talk(server.port, [GET + b"Connection: close\r\n\r\n"])
        async with asyncio.timeout(WAIT_SECONDS):
            assert await idle[0][0].read() == b""
        await eventually(lambda: server.open_count == 2)
        for _, writer in idle:
            writer.transport.abort()
    assert statuses(answer) == [200]


async def test_all_connections_busy(home: Home):
    """When every connection has a request under way, a new one is refused with 503."""
    async with open_server(home, ConnectionOptions(connections_max=2)) as server:
        busy = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            # The service asks for the body: the request is under way.
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            busy.append(writer)
        answer = await talk(server.port, [])
        for writer in busy:
            writer.transport.abort()
    assert statuses(answer) == [503]
    assert b'"code":"too_many_connections"' in answer


@pytest.mark.parametrize(
    "parts",
    [
        [GET, *[b"a: b\r\n" * 100] * 1000],
        [GET + b"a: ", *[b"b" * 1000] * 1000],
        [GET + b"a: b\r\n" * 2000 + b"\r\n"],
        [b"GET /", *[b"a" * 1000] * 1000],
        [CHUNKED + b"1;", *[b"a" * 1000] * 1000],
        [CHUNKED + b"1\r\n{\r\n0\r\n", *[b"a: b\r\n" * 100] * 1000],
    ],
    ids=["headers", "value", "at-once", "path", "chunk-extension", "trailers"],
)
async def test_large_heads(home: Home, parts: list[bytes]):
    """A head, or what takes its place in a body, that goes on and on is answered 431 and ended."""
    async with open_server(home, ConnectionOptions(head_bytes_max=10_000)) as server:
        answer = await talk(server.port, parts)
        await eventually(lambda: server.open_count == 0)
    assert statuses(answer) == [431]
    assert b"at most 10000 bytes" in answer


async def test_a_body_without_end(home: Home):
    """An endless body is answered 413 at its limit, and soon after the connection ends."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    async with open_server(home, SHORT) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:

            async def pour() -> None:
                with contextlib.suppress(ConnectionError):
                    writer.write(CHUNKED)
                    while True:
                        writer.write(chunk)
                        await writer.drain()

            group.create_task(pour())
            assert (await reader.readline())[:12] == b"HTTP/1.1 413"
        await eventually(lambda: server.open_count == 0)
        writer.transport.abort()


async def test_what_trails_a_body_is_ignored(home: Home):
    """Trailers do not become headers of a request, nor of the next."""
    body = b"2\r\n{}\r\n0\r\nX-Request-ID: trailing\r\n\r\n"
    async with open_server(home, ConnectionOptions()) as server:
        answer = await talk(server.port, [CHUNKED + body, GET + b"Connection: close\r\n\r\n"])
    assert statuses(answer) == [422, 200]
    assert b"trailing" not in answer


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_offers_to_upgrade(home: Home, protocol: bytes):
    """An offer to upgrade is ignored, and the request is served with its body."""
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AA\r\n" % protocol
    )
    job = (
        b'{"schedule_type": "cron", "cron": {"year": "2099"}, "target_url": "http://127.0.0.1:9/"}'
    )
    request = POST + offer + b"Content-Length: %d\r\n\r\n" % len(job) + job
    async with open_server(home, ConnectionOptions()) as server:
        answer = await talk(server.port, [request, GET + b"Connection: close\r\n\r\n"], every=0.05)
    assert statuses(answer) == [200, 200]
    assert b'"status":"scheduled"' in answer


async def test_garbage_after_requests(home: Home):
    """What is not HTTP ends the connection, after the answers to what came before it."""
    async with open_server(home, ConnectionOptions()) as server:
        answer = await talk(server.port, [(GET + b"\r\n") * 2 + b"\x00\x00"])
    assert set(statuses(answer)) == {200}
    assert answer.endswith(b"}")


def test_files_for_connections():
    """The limit of open files is raised as far as allowed; connections get half of it at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, hard), hard))
        options = fit_to_files(ConnectionOptions(connections_max=10**9))
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == (wanted, hard)
    assert options.connections_max == wanted // 2
