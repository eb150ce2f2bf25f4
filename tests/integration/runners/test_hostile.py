"""Targets that mean harm: each costs its own attempt, little work, and nothing else."""

import asyncio
import base64
import gzip
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.execution import AttemptOutcome, Reason
from tests.support.raw_server import (
    RawServer,
    drip,
    hang,
    pour,
    reply,
    send,
    send_and_close,
    send_and_reset,
)

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENT = timedelta(seconds=20)
BRIEF = timedelta(seconds=0.25)
# 93 bytes that brotli makes 50 MiB of.
BROTLI_BOMB = base64.b64decode(
    "y///P/gnAOKxQCD3/o///3/wTwDEYRGA7v0f////4J8AiMMCAN37P/7//8E/ARCHBQC693/8//+DfwIgDgsAdO//+P//"
    "B/8EQBwWAOje/+X//wf+CYA4LADQvf8A"
)


def open_descriptors() -> int:
    """Count this process's open files and sockets."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("prefix", "chunk"),
    [
        (OK + b"Content-Length: 2147483648\r\n\r\n", b"h" * 65_536),
        (CHUNKED, b"10000\r\n" + b"h" * 65_536 + b"\r\n"),
        (OK + b"\r\n", b"h" * 65_536),
    ],
    ids=["announced", "chunked", "until-close"],
)
async def test_two_gigabytes(courier, prefix, chunk):
    """Of a body of gigabytes, however framed, a megabyte is read and the connection is closed."""
    async with RawServer((pour(chunk, prefix=prefix),)) as server:
        outcome = await courier.deliver(server.url(), timeout=PATIENT)
        await server.wait_for(lambda: server.open_count == 0)
        assert server.poured_bytes < 16 * MIB
    assert outcome.reason is Reason.RESPONSE_TOO_LARGE
    assert outcome.response_bytes < 2 * MIB


@pytest.mark.parametrize(
    "crumbs",
    [b"1\r\nx\r\n" * 10_000, b"1\r\nx\r\n" * 100, b"1;" + b"e" * 1000 + b"\r\nx\r\n"],
    ids=["herds", "groups", "extensions"],
)
async def test_crumbs(courier, crumbs):
    """A body in chunks of one byte is left after 64 KiB of framing, not after a million chunks."""
    async with RawServer((pour(crumbs, prefix=CHUNKED),)) as server:
        outcome = await courier.deliver(server.url(), timeout=PATIENT)
        await server.wait_for(lambda: server.open_count == 0)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert "too many small chunks" in outcome.error
    assert outcome.response_bytes < 65_536
    assert set(outcome.response_excerpt) <= {"x"}


@pytest.mark.parametrize(("size", "count"), [(100, 10_000), (10, 2_000), (1, 2_000)])
async def test_small_chunks(courier, size, count):
    """Small chunks in a reasonable number are read whole, even at one stroke."""
    chunk = b"%x\r\n%b\r\n" % (size, b"s" * size)
    async with RawServer((send(CHUNKED + chunk * count + b"0\r\n\r\n"), reply())) as server:
        outcome = await courier.deliver(server.url())
        assert (await courier.deliver(server.url())).succeeded
    assert outcome.succeeded, outcome.error
    assert outcome.response_bytes == size * count


async def test_chunks_in_one_stroke_with_poison(courier):
    """Bytes after a chunked body are not taken for the next answer."""
    forged = OK + b"Content-Length: 6\r\n\r\nforged"
    async with RawServer(
        (send(CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + forged), reply("real"))
    ) as server:
        assert (await courier.deliver(server.url())).response_excerpt == "ok"
        assert (await courier.deliver(server.url())).response_excerpt == "real"


async def test_brotli_bomb(courier):
    """A brotli bomb is not decompressed: we do not ask for brotli and do not undo it."""
    bomb = reply(BROTLI_BOMB, headers=("Content-Encoding: br",))
    async with RawServer((bomb,)) as server:
        outcome = await courier.deliver(server.url())
        assert server.requests[0].headers["accept-encoding"] == "identity"
    assert outcome.succeeded
    assert outcome.response_bytes == 93
    assert outcome.response_excerpt == "(br body of 93 bytes, not shown)"


async def test_gzip_members(courier):
    """Of thousands of gzip members sixteen are undone, so that empty ones cost no time."""
    body = gzip.compress(b"m") * 10_000
    async with RawServer((reply(body, headers=("Content-Encoding: gzip",)),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded
    assert outcome.response_bytes == len(body)
    assert outcome.response_excerpt == "m" * 16


async def test_redirect_loop_over_two_targets(courier):
    """Two targets that redirect to each other get six requests together."""
    async with RawServer() as there:
        back = f"Location: {there.url('/back')}"
        async with RawServer((reply(status="307 Go", headers=(back,)),)) as here:
            onward = f"Location: {here.url('/on')}"
            there.steps = (reply(status="307 Go", headers=(onward,)),)
            outcome = await courier.deliver(here.url(), follow_redirects=True)
        assert len(here.requests) + len(there.requests) == 6
    assert outcome.reason is Reason.STATUS
    assert "one redirect too many" in outcome.error


async def test_redirect_with_an_endless_body(courier):
    """The body of a redirect that is followed is not read."""
    prefix = b"HTTP/1.1 302 Found\r\nLocation: /next\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"400\r\n" + b"z" * 1024 + b"\r\n"
    async with RawServer((pour(chunk, prefix=prefix), reply("end"))) as server:
        outcome = await courier.deliver(server.url(), follow_redirects=True, timeout=PATIENT)
        await server.wait_for(lambda: server.poured_bytes > 0)
        assert server.poured_bytes < 16 * MIB
    assert outcome.response_excerpt == "end"


@pytest.mark.parametrize("field", [b"X-Many-Headers: 1\r\n", b"a:\r\n"], ids=["long", "short"])
async def test_ten_thousand_headers(courier, field):
    """Ten thousand header fields are a protocol error, however short they are."""
    head = OK + field * 10_000 + b"Content-Length: 2\r\n\r\nok"
    async with RawServer((send(head), reply("next"))) as server:
        outcome = await courier.deliver(server.url())
        assert (await courier.deliver(server.url())).response_excerpt == "next"
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert outcome.http_status is None


async def test_header_of_a_megabyte(courier):
    """A header of a megabyte is a protocol error, long before the deadline."""
    head = OK + b"X-Large: " + b"v" * MIB + b"\r\nContent-Length: 2\r\n\r\nok"
    async with RawServer((send(head),)) as server:
        outcome = await courier.deliver(server.url(), timeout=PATIENT)
        await server.wait_for(lambda: server.open_count == 0)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)


@pytest.mark.parametrize(
    "begun",
    [OK + b"Content-Length: 100\r\n\r\nhalf", CHUNKED + b"4\r\nhalf\r\n"],
    ids=["announced", "chunked"],
)
async def test_reset_inside_a_body(courier, begun):
    """A reset inside a body is a protocol error; what had come is kept."""
    async with RawServer((send_and_reset(begun), reply("next"))) as server:
        outcome = await courier.deliver(server.url())
        assert (await courier.deliver(server.url())).response_excerpt == "next"
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert (outcome.http_status, outcome.response_excerpt) == (200, "half")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x03\xff\xff" + b"\xa5" * 65_536,
        b"\x15\x03\x03\x00\x02\x02\x28",
        bytes(range(256)) * 1000,
        b"\x00" * 65_536,
    ],
    ids=["record", "alert", "bytes", "zeros"],
)
async def test_tls_nonsense(courier, nonsense):
    """Whatever answers a TLS greeting but TLS is a TLS error."""
    async with RawServer((hang,), greeting=nonsense) as server:
        outcome = await courier.deliver(server.url().replace("http:", "https:"), timeout=PATIENT)
        await server.wait_for(lambda: server.open_count == 0)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.TLS)


async def test_tls_record_that_never_ends(courier):
    """Half a TLS record, then silence, is left at the deadline."""
    async with RawServer(reads=False, greeting=b"\x16\x03\x03\x40\x00\x02") as server:
        url = server.url().replace("http:", "https:")
        outcome = await courier.deliver(url, timeout=BRIEF)
        await server.wait_for(lambda: server.connection_count == 1)
    assert outcome.reason is Reason.TIMEOUT
    assert "in the TLS handshake" in outcome.error


async def test_refused_storm(courier):
    """Two hundred refused connections at once leave no descriptor behind and others alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        async with RawServer((reply(headers=("Connection: close",)),)) as server:
            assert (await courier.deliver(server.url())).succeeded
            await server.wait_for(lambda: server.open_count == 0)
            before = open_descriptors()
            refused = [courier.deliver(closed) for _ in range(200)]
            *storm, innocent = await asyncio.gather(*refused, courier.deliver(server.url()))
            await server.wait_for(lambda: server.open_count == 0)
            assert open_descriptors() <= before
    assert innocent.succeeded
    assert {outcome.reason for outcome in storm} == {Reason.CONNECT}


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 3\r\nContent-Length: 5\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 1" + b"0" * 40 + b"\r\n",
        b"Content-Length: 5, 3\r\n",
    ],
    ids=["two", "negative", "signed", "astronomic", "list"],
)
async def test_lengths_that_contradict(courier, fields):
    """A Content-Length that cannot be one is a protocol error, and its connection is not used."""
    async with RawServer((send(OK + fields + b"\r\nabcde"), reply("next"))) as server:
        outcome = await courier.deliver(server.url())
        assert (await courier.deliver(server.url())).response_excerpt == "next"
        assert server.connection_count == 2
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)


async def test_length_that_promises_too_much(courier):
    """A body that stops short of its Content-Length on an open connection ends at the deadline."""
    async with RawServer((send(OK + b"Content-Length: 10\r\n\r\nshort"),)) as server:
        outcome = await courier.deliver(server.url(), timeout=BRIEF)
        await server.wait_for(lambda: server.open_count == 0)
    assert outcome.reason is Reason.TIMEOUT
    assert (outcome.http_status, outcome.response_excerpt) == (200, "short")


async def test_length_that_promises_too_little(courier):
    """What exceeds its Content-Length is in no answer: it may break this one, not the next."""
    async with RawServer(
        (send(OK + b"Content-Length: 2\r\n\r\nokOK OK OK"), reply("next"))
    ) as server:
        outcome = await courier.deliver(server.url())
        assert outcome.response_excerpt == "ok" or outcome.reason is Reason.PROTOCOL
        assert (await courier.deliver(server.url())).response_excerpt == "next"
        assert server.connection_count == 2


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"1\r\nx\r\n" * 500_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000,
        OK
        + b"Content-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n"
        + gzip.compress(b"") * 50_000,
        OK + b"a:\r\n" * 250_000,
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50 * MIB)) * 10,
    ],
    ids=["crumbs", "interim", "members", "fields", "bomb"],
)
async def test_work(direct_courier, answer):
    """A megabyte made to be laborious costs milliseconds of CPU, as any other does."""
    async with RawServer((send_and_close(answer),)) as server:
        await direct_courier.deliver(server.url())
        # The coverage's tracer would be measured, too, where it is on.
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            began = time.process_time()
            for _ in range(10):
                await direct_courier.deliver(server.url(), timeout=PATIENT)
            spent = time.process_time() - began
        finally:
            sys.settrace(tracer)
        assert spent < 0.15


async def test_interim_answers_that_drip(courier):
    """Interim answers that drip do not extend the deadline."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with RawServer((drip(interim, every=0.01, forever=True),)) as server:
        outcome = await courier.deliver(server.url(), timeout=BRIEF)
    assert outcome.reason in {Reason.TIMEOUT, Reason.PROTOCOL}


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 100_000, b'{"n": NaN, "i": -Infinity, "x": 1e999}'],
    ids=["arrays", "objects", "nan"],
)
async def test_json_is_not_parsed(courier, body):
    """An answer that would break a JSON parser is text like any other."""
    async with RawServer((reply(body, headers=("Content-Type: application/json",)),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded
    assert outcome.response_bytes == len(body)
    assert outcome.response_excerpt == body[: 64 * 1024].decode()
