"""One total deadline ends every attempt, and its sentence names the phase."""

import asyncio
import socket
from datetime import timedelta

from app.domain.execution import AttemptOutcome, Reason
from app.domain.job import BodyType
from app.runners.dialer import Candidate
from tests.support.raw_server import RawServer, drip, hang, pour, reply

BRIEF = timedelta(seconds=0.25)
OK_HEAD = b"HTTP/1.1 200 OK\r\n"


async def ends_in_time(courier, url, phase, **fields):
    """Deliver with a brief timeout; the attempt must end at it, in the phase named."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcome = await courier.deliver(url, timeout=BRIEF, **fields)
    elapsed = loop.time() - started

    assert (outcome.kind, outcome.reason) == (AttemptOutcome.TIMEOUT, Reason.TIMEOUT)
    assert phase in outcome.error
    assert "0.25 s" in outcome.error
    assert BRIEF.total_seconds() - 0.01 <= elapsed < BRIEF.total_seconds() + 0.5
    return outcome


async def test_silence(courier):
    """A target that accepts and never answers is left at the deadline."""
    async with RawServer((hang,)) as server:
        outcome = await ends_in_time(courier, server.url(), "waiting for the first byte")
        assert outcome.http_status is None
        await server.wait_for(lambda: server.open_count == 0)


async def test_dripping_head(courier):
    """A head that drips one byte at a time does not extend the deadline."""
    async with RawServer((drip(b"X-Slow: 1\r\n", every=0.02, prefix=OK_HEAD),)) as server:
        outcome = await ends_in_time(courier, server.url(), "receiving the answer")
        assert outcome.http_status is None


async def test_dripping_body(courier):
    """A body that drips does not extend the deadline; what came is kept."""
    prefix = OK_HEAD + b"Content-Length: 1000\r\n\r\n"
    async with RawServer((drip(b"y", every=0.02, prefix=prefix, forever=True),)) as server:
        outcome = await ends_in_time(courier, server.url(), "receiving the answer")
        assert outcome.http_status == 200
        assert outcome.response_bytes == len(outcome.response_excerpt) > 0


async def test_endless_chunk_extension(courier):
    """Framing without content ends at the deadline or at the cap, whichever comes first."""
    prefix = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;"
    async with RawServer((drip(b"x", every=0.02, prefix=prefix, forever=True),)) as server:
        await ends_in_time(courier, server.url(), "receiving the answer")


async def test_handshake_that_hangs(courier):
    """A server that accepts and never completes TLS is left at the deadline."""
    async with RawServer(reads=False) as server:
        url = server.url().replace("http:", "https:")
        await ends_in_time(courier, url, "in the TLS handshake")


async def test_server_that_does_not_read(courier):
    """A large body the server does not read is given up at the deadline."""
    async with RawServer(reads=False) as server:
        await ends_in_time(
            courier,
            server.url(),
            "sending the request",
            method="POST",
            body_type=BodyType.RAW,
            body_json='"' + "x" * 20_000_000 + '"',
        )


async def test_connection_that_is_never_accepted(courier):
    """A connection attempt nobody answers is left at the deadline."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await ends_in_time(courier, f"http://127.0.0.1:{port}/", "connecting")
        for filler in fillers:
            filler.close()


async def test_name_server_that_is_silent(courier):
    """A look-up that does not end is left at the deadline, and holds up nobody after it."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def lookup(host, port, flags):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        if host == "silent.test":
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return [Candidate(socket.AF_INET, ("127.0.0.1", port))]

    courier.lookup = lookup
    async with RawServer((reply(),)) as server:
        url = server.url(host="silent.test")
        await ends_in_time(courier, url, "looking up the host name")
        other = await courier.deliver(server.url(host="quick.test"))
        assert other.succeeded
    release.set()


async def test_endless_body_of_small_chunks(courier):
    """A flood is cut at the cap long before the deadline, and its connection closed."""
    chunk = b"400\r\n" + b"z" * 1024 + b"\r\n"
    prefix = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    async with RawServer((pour(chunk, prefix=prefix),)) as server:
        outcome = await courier.deliver(server.url())
        assert outcome.reason is Reason.RESPONSE_TOO_LARGE
        await server.wait_for(lambda: server.open_count == 0)


async def test_cancellation(courier):
    """Cancelling a run cancels it: the connection is closed and no outcome is made up."""
    async with RawServer((hang,)) as server:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(courier.deliver(server.url()))
            await server.wait_for(lambda: len(server.requests) == 1)
            run.cancel()
        assert run.cancelled()
        await server.wait_for(lambda: server.open_count == 0)


async def test_next_attempt_after_a_timeout(courier):
    """An attempt after one that timed out gets a connection and an answer of its own."""
    async with RawServer((hang, reply("second"))) as server:
        await ends_in_time(courier, server.url(), "waiting")
        outcome = await courier.deliver(server.url())
        assert outcome.response_excerpt == "second"
        assert [request.connection for request in server.requests] == [1, 2]
