"""Failures are told apart, with a kind, a reason and a sentence that gives nothing away."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.domain.job import BodyType
from app.runners.dialer import Candidate
from app.runners.http_options import HttpRunnerOptions
from tests.support.raw_server import (
    RawServer,
    pour,
    reply,
    send,
    send_and_close,
    send_and_reset,
    server_tls,
)

SECRET = "s3cr3t"


def closed_port() -> int:
    """Tell a port nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_success(courier, status):
    """Every 2xx is a success: no reason, no error."""
    async with RawServer(
        (send(f"HTTP/1.1 {status} Fine\r\nContent-Length: 0\r\n\r\n".encode()),)
    ) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded
    assert (outcome.kind, outcome.http_status) == (AttemptOutcome.RESPONSE, status)
    assert (outcome.reason, outcome.error) == (None, None)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (304, "The target answered 304 Not Modified"),
        (404, "The target answered 404 Not Found"),
        (500, "The target answered 500 Internal Server Error"),
        (599, "The target answered 599"),
    ],
)
async def test_other_statuses(courier, status, sentence):
    """Any other status is a failure that shows the status and keeps the body."""
    async with RawServer(
        (reply(f"why {status}" if status != 304 else "", status=f"{status} Nice words"),)
    ) as server:
        outcome = await courier.deliver(server.url())
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.RESPONSE, Reason.STATUS)
    assert (outcome.http_status, outcome.error) == (status, sentence)
    assert outcome.response_excerpt == (f"why {status}" if status != 304 else "")


async def test_switching_protocols_unasked(courier):
    """An upgrade nobody asked for is a failure, and its connection is not kept."""
    head = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with RawServer((send(head), reply())) as server:
        outcome = await courier.deliver(server.url())
        assert outcome.reason in {Reason.STATUS, Reason.PROTOCOL}
        assert (await courier.deliver(server.url())).succeeded
        assert server.connection_count == 2


async def test_refused(courier):
    """A port nobody listens on is a connect error that says refused."""
    port = closed_port()
    outcome = await courier.deliver(f"http://127.0.0.1:{port}/?token={SECRET}")
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT)
    assert f"127.0.0.1:{port} was refused" in outcome.error
    assert SECRET not in outcome.error
    assert outcome.http_status is None
    assert outcome.response_bytes is None


@pytest.mark.parametrize(
    ("code", "words"),
    [(socket.EAI_NONAME, "does not exist"), (socket.EAI_AGAIN, "name server gave no answer")],
)
async def test_name_without_address(courier, code, words):
    """A name that does not resolve is a DNS error that names it."""

    def lookup(*_):
        raise socket.gaierror(code, "no")

    courier.lookup = lookup
    outcome = await courier.deliver(f"http://nowhere.test/{SECRET}?{SECRET}")
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.DNS)
    assert "nowhere.test" in outcome.error
    assert words in outcome.error
    assert SECRET not in outcome.error


async def test_second_address_answers(courier):
    """Where the first address of a name refuses, the next one is tried."""

    def lookup(_host, port, flags):
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        return [
            Candidate(socket.AF_INET, ("127.0.0.2", port)),
            Candidate(socket.AF_INET, ("127.0.0.1", port)),
        ]

    courier.lookup = lookup
    async with RawServer((reply(),)) as server:
        assert (await courier.deliver(server.url(host="two.test"))).succeeded


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without answering"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "ended the answer's body early"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "ended the answer's body early",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\nninebytes", "not valid HTTP"),
    ],
    ids=["nothing", "ssh", "status", "short", "chunked", "length"],
)
async def test_broken_answers(courier, answer, words):
    """What is not a whole HTTP answer is a protocol error."""
    async with RawServer((send_and_close(answer),)) as server:
        outcome = await courier.deliver(server.url())
        assert len(server.requests) == 1
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)
    assert words in outcome.error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length : 10\r\n\r\nshort", "ended the answer's body early"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
            "ended the answer's body early",
        ),
        (
            b"HTTP/1.1 104 Odd\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
            "not valid HTTP",
        ),
        (
            b"HTTP/1.1 099 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "answered 99",
        ),
    ],
    ids=["space", "two-codings", "interim-content", "below-interim"],
)
async def test_answers_that_pretend(direct_courier, answer, words):
    """A body that is announced in an odd way is not taken for whole, nor one for an answer's."""
    async with RawServer((send_and_close(answer),)) as server:
        outcome = await direct_courier.deliver(server.url())
    assert not outcome.succeeded
    assert words in outcome.error


async def test_half_close_while_the_request_is_sent(direct_courier):
    """A target that has no more to say is not waited for, whatever is left to be sent to it."""

    async def turn_away(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    listener = await asyncio.start_server(turn_away, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    outcome = await direct_courier.deliver(
        url, method="POST", body_json='"' + "x" * 20_000_000 + '"', timeout=timedelta(seconds=20)
    )
    over.set()
    listener.close()
    await listener.wait_closed()
    assert outcome.reason is Reason.PROTOCOL
    assert "closed the connection without answering" in outcome.error


async def test_reset_inside_a_body_that_ends_with_the_connection(courier):
    """A reset is not the end of a body, even of one without announced length."""
    async with RawServer((send_and_reset(b"HTTP/1.1 200 OK\r\n\r\nhalf"),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.reason is Reason.PROTOCOL
    assert (outcome.http_status, outcome.response_excerpt) == (200, "half")


async def test_body_that_ends_with_the_connection(courier):
    """A body without announced length ends where the connection ends in order."""
    async with RawServer((send_and_close(b"HTTP/1.0 200 OK\r\n\r\nall of it"),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded
    assert outcome.response_excerpt == "all of it"


@pytest.mark.parametrize(
    "flood",
    [
        pour(b"X-Pad: " + b"x" * 1000 + b"\r\n", prefix=b"HTTP/1.1 200 OK\r\n"),
        pour(b"x" * 4096, prefix=b"HTTP/1.1 200 OK\r\nX-Endless: "),
        pour(b"HTTP/1.1 100 Continue\r\n\r\n", prefix=b""),
        pour(b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 9000 + b"\r\n\r\n", prefix=b""),
    ],
    ids=["fields", "line", "continue", "hints"],
)
async def test_floods_before_a_body(courier, flood):
    """A head without end is left after 64 KiB or ten interim answers, not at the deadline."""
    async with RawServer((flood,)) as server:
        outcome = await courier.deliver(server.url(), timeout=timedelta(seconds=20))
        await server.wait_for(lambda: server.open_count == 0)
        assert server.poured_bytes < 8_000_000
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\xff\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: trailer\r\n\r\n",
    ],
    ids=["bare-line-feeds", "no-phrase", "odd-field", "space-after-size", "trailer"],
)
async def test_careless_answers(direct_courier, answer):
    """What old servers write and browsers read is read, and its connection serves again."""
    async with RawServer((send(answer),)) as server:
        for _ in range(2):
            outcome = await direct_courier.deliver(server.url())
            assert (outcome.succeeded, outcome.response_excerpt) == (True, "ok"), outcome.error
        assert server.connection_count == 1


async def test_interim_answers(courier):
    """A few interim answers before the final one are fine."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3
    async with RawServer(
        (send(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),)
    ) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded
    assert outcome.response_excerpt == "ok"


@pytest.mark.parametrize(("count", "succeeds"), [(10, True), (11, False)])
async def test_number_of_interim_answers(direct_courier, count, succeeds):
    """Ten interim answers are the limit."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" * count + b"HTTP/1.1 204 Done\r\n\r\n"
    async with RawServer((send(answer),)) as server:
        outcome = await direct_courier.deliver(server.url())
    assert outcome.succeeded is succeeds
    if not succeeds:
        assert "more than 10 interim" in outcome.error


async def test_large_head(courier):
    """A head of more than 64 KiB is a protocol error, even where no field of it is large."""
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"v" * 1500) for number in range(100))
    async with RawServer((send(b"HTTP/1.1 204 Done\r\n" + fields + b"\r\n"),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.reason is Reason.PROTOCOL


async def test_large_head_in_one_piece(direct_courier):
    """A head beyond the limit counts as such even if it arrives at one stroke."""
    direct_courier.options = HttpRunnerOptions(head_bytes_max=1000)
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"v" * 100) for number in range(20))
    async with RawServer((send(b"HTTP/1.1 204 Done\r\n" + fields + b"\r\n"),)) as server:
        outcome = await direct_courier.deliver(server.url())
    assert "larger than 1000 bytes" in outcome.error


async def test_head_within_the_limit(courier):
    """A head of 50 KiB is read, along with a body of a megabyte in the same breath."""
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"v" * 1000) for number in range(50))
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 1000000\r\n\r\n"
    async with RawServer((send(head + b"b" * 1_000_000),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.succeeded, outcome.error


async def test_endless_framing(courier):
    """A chunk header without end is left long before the deadline."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    async with RawServer((pour(b"x" * 65536, prefix=head),)) as server:
        outcome = await courier.deliver(server.url(), timeout=timedelta(seconds=20))
        await server.wait_for(lambda: server.open_count == 0)
        assert server.poured_bytes < 32_000_000
    assert outcome.reason in {Reason.PROTOCOL, Reason.RESPONSE_TOO_LARGE}


async def test_too_many_fields(direct_courier):
    """More header fields than allowed are a protocol error, though short."""
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
    async with RawServer((send(head),)) as server:
        outcome = await direct_courier.deliver(server.url())
    assert outcome.reason is Reason.PROTOCOL
    assert "too many headers" in outcome.error


async def test_tls(courier):
    """TLS works against a certificate the client trusts."""
    async with RawServer((reply("safe"),), tls=server_tls()) as server:
        outcome = await courier.deliver(server.url(host="localhost"))
        assert outcome.response_excerpt == "safe", outcome.error
        assert (await courier.deliver(server.url(host="localhost"))).succeeded


async def test_certificate_of_an_unknown_authority(courier):
    """An untrusted certificate is a TLS error that says why."""
    courier.tls = ssl.create_default_context()
    async with RawServer((reply(),), tls=server_tls()) as server:
        outcome = await courier.deliver(server.url(host="localhost"))
        assert not server.requests
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.TLS)
    assert "self-signed certificate" in outcome.error


async def test_certificate_of_another_name(courier):
    """A certificate for another name is a TLS error that says so."""
    async with RawServer((reply(),), tls=server_tls()) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.reason is Reason.TLS
    assert "IP address mismatch" in outcome.error


async def test_tls_to_a_plain_port(courier):
    """A port that does not speak TLS is a TLS error that asks about it."""
    async with RawServer((reply(),), greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        outcome = await courier.deliver(server.url().replace("http:", "https:"))
    assert outcome.reason is Reason.TLS
    assert "does that port speak TLS?" in outcome.error


async def test_connection_closed_in_the_handshake(courier):
    """A server that hangs up during the handshake is a TLS error."""
    async with RawServer(hangs_up=True) as server:
        outcome = await courier.deliver(server.url().replace("http:", "https:"))
    assert outcome.reason is Reason.TLS
    assert "closed during the handshake" in outcome.error


async def test_plain_http_to_a_tls_port(courier):
    """Plain HTTP to a TLS port is a protocol error."""
    async with RawServer((reply(),), tls=server_tls()) as server:
        outcome = await courier.deliver(server.url().replace("https:", "http:"))
    assert outcome.reason is Reason.PROTOCOL


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "ftp://127.0.0.1/"}, "http://"),
        ({"url": "http:///nohost"}, "host"),
        ({"url": f"http://user:{SECRET}@127.0.0.1/"}, "credentials"),
        ({"url": "http://127.0.0.1:99999/"}, "port"),
        ({"url": "http://127.0.0.1/a\r\nX-Evil: 1"}, "control characters"),
        ({"url": "http://exa mple.test/"}, "host"),
        ({"url": "http://a%41.test/"}, "host"),
        ({"url": "http://[::1/"}, "host"),
        ({"method": "GE T"}, "method"),
        ({"headers": (("X-A", f"{SECRET}\r\nX-Evil: 1"),)}, "X-A"),
        ({"headers": (("X A", "1"),)}, "header's name"),
        ({"headers": (("X-A", "\ud800"),)}, "X-A"),
        ({"headers": tuple((f"X-{n}", "1") for n in range(65))}, "64"),
        ({"headers": (("X-A", "x" * 17_000),)}, "16384"),
        ({"method": "POST", "body_json": f'{{"a": {SECRET}'}, "not valid JSON"),
        ({"method": "POST", "body_json": '"\ud800"'}, "UTF-8"),
        ({"method": "POST", "body_json": "[1]", "body_type": BodyType.FORM}, "object"),
    ],
)
async def test_requests_that_cannot_be_built(courier, fields, words):
    """A request that cannot be built is a config error; nothing is sent and nothing echoed."""
    async with RawServer((reply(),)) as server:
        fields = {"url": server.url(), **fields}
        outcome = await courier.deliver(**fields)
        again = await courier.deliver(**fields)
        assert not server.requests
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.BLOCKED, Reason.CONFIG_ERROR)
    assert words in outcome.error
    assert SECRET not in outcome.error
    assert again == outcome


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", timedelta(seconds=120)),
        ("0", timedelta(0)),
        ("99999999999999999999", timedelta(hours=1)),
        ("-5", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", timedelta(0)),
        (format_datetime(datetime(2100, 1, 1, tzinfo=UTC), usegmt=True), timedelta(hours=1)),
    ],
)
async def test_retry_after(courier, value, expected):
    """Retry-After is understood in both forms and bounded on both sides."""
    async with RawServer((reply(status="503 Busy", headers=(f"Retry-After: {value}",)),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.retry_after == expected


async def test_retry_after_cap(courier):
    """The cap of Retry-After is configurable."""
    courier.options = HttpRunnerOptions(retry_after_max=timedelta(seconds=7))
    async with RawServer((reply(status="429 Slow", headers=("Retry-After: 60",)),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.retry_after == timedelta(seconds=7)
