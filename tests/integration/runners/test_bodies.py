"""Bodies are counted, cut and made safe to store."""

import gzip
import zlib

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.runners.http_options import HttpRunnerOptions
from tests.support.raw_server import RawServer, pour, reply

MIB = 1024 * 1024
KIB64 = 64 * 1024


async def answered(courier, body, *headers):
    """Deliver to a target that answers 200 with this body."""
    async with RawServer((reply(body, headers=headers),)) as server:
        return await courier.deliver(server.url(), headers=(("Accept-Encoding", "gzip, deflate"),))


async def test_sizes(courier):
    """The true size is told beside the excerpt, which is cut at its cap."""
    outcome = await answered(courier, b"a" * 200_000)
    assert outcome.succeeded
    assert outcome.response_bytes == 200_000
    assert outcome.response_excerpt == "a" * KIB64


async def test_exactly_the_limit(courier):
    """A body of exactly the limit is read whole."""
    outcome = await answered(courier, b"a" * MIB)
    assert outcome.succeeded
    assert outcome.response_bytes == MIB


async def test_one_byte_more(courier):
    """One byte beyond the limit is too large."""
    outcome = await answered(courier, b"a" * (MIB + 1))
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.TOO_LARGE, Reason.RESPONSE_TOO_LARGE)
    assert outcome.http_status == 200
    assert outcome.response_excerpt == "a" * KIB64


async def test_endless_body(courier):
    """An endless body is cut near the limit and its connection closed, not drained."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    async with RawServer((pour(b"e" * KIB64, prefix=head), reply("next"))) as server:
        outcome = await courier.deliver(server.url())
        await server.wait_for(lambda: server.open_count == 0)
        assert server.poured_bytes < 16 * MIB
        following = await courier.deliver(server.url())
    assert outcome.reason is Reason.RESPONSE_TOO_LARGE
    assert following.response_excerpt == "next"


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda raw: zlib.compress(raw, wbits=-15)),
        ("gzip", lambda raw: gzip.compress(raw[:5]) + gzip.compress(raw[5:])),
    ],
    ids=["gzip", "x-gzip", "zlib", "raw-deflate", "members"],
)
async def test_compressed(courier, encoding, compress):
    """A compressed body is shown decompressed and counted as it came."""
    text = "héllo wörld " * 20
    compressed = compress(text.encode())
    outcome = await answered(courier, compressed, f"Content-Encoding: {encoding}")
    assert outcome.response_excerpt == text
    assert outcome.response_bytes == len(compressed)


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_bomb(courier, encoding, compress):
    """A decompression bomb ends at the cap of decompressed bytes."""
    bomb = compress(b"\0" * 50 * MIB)
    assert len(bomb) < MIB
    outcome = await answered(courier, bomb, f"Content-Encoding: {encoding}")
    assert outcome.reason is Reason.RESPONSE_TOO_LARGE
    assert len(outcome.response_excerpt.encode()) <= KIB64


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
async def test_unknown_encoding(courier, encoding):
    """A coding we cannot undo does not fail the run; the excerpt says what it was."""
    outcome = await answered(courier, b"\x8b\x02\x80abc", f"Content-Encoding: {encoding}")
    assert outcome.succeeded
    assert outcome.response_excerpt == f"({encoding} body of 6 bytes, not shown)"


async def test_unknown_encoding_is_counted(courier):
    """What cannot be decoded is still limited as it comes."""
    outcome = await answered(courier, b"\x8b" * (MIB + 1), "Content-Encoding: br")
    assert outcome.reason is Reason.RESPONSE_TOO_LARGE


async def test_corrupt_encoding(courier):
    """A body that is not what its coding says does not fail the run."""
    outcome = await answered(courier, b"this is no gzip", "Content-Encoding: gzip")
    assert outcome.succeeded
    assert outcome.response_excerpt == "(gzip body of 15 bytes, not shown)"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\xff\xfe\x00\x01", "\ufffd\ufffd\ufffd\x01"),
        (b"nul\x00nul", "nul\ufffdnul"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b'{"a": NaN, "b": "\\ud800"}', '{"a": NaN, "b": "\\ud800"}'),
        ("日本語".encode("shift_jis"), "日本語".encode("shift_jis").decode("utf-8", "replace")),
        (b"", ""),
    ],
    ids=["binary", "nul", "surrogate", "json", "shift-jis", "empty"],
)
async def test_text_is_safe(courier, body, expected):
    """Whatever bytes come, the excerpt is text UTF-8 can encode and PostgreSQL can store."""
    outcome = await answered(courier, body)
    assert outcome.response_excerpt == expected
    assert "\x00" not in outcome.response_excerpt
    outcome.response_excerpt.encode()


@pytest.mark.parametrize("body", ["あ".encode() * 40_000, b"\xff" * 100_000])
async def test_cut_text(courier, body):
    """A cut excerpt neither ends in half a character nor outgrows its cap as UTF-8."""
    outcome = await answered(courier, body)
    assert len(outcome.response_excerpt.encode()) <= KIB64
    if body[0] != 0xFF:
        assert set(outcome.response_excerpt) == {"あ"}


async def test_answer_to_head(courier):
    """HEAD has no body, whatever length it announces."""
    async with RawServer((reply("content"),)) as server:
        for _ in range(2):
            outcome = await courier.deliver(server.url(), method="HEAD")
            assert outcome.succeeded
            assert (outcome.response_bytes, outcome.response_excerpt) == (0, "")


async def test_configured_caps(courier):
    """The caps are options."""
    courier.options = HttpRunnerOptions(response_bytes_max=100, excerpt_bytes_max=10)
    assert (await answered(courier, b"x" * 100)).response_excerpt == "x" * 10
    assert (await answered(courier, b"x" * 101)).reason is Reason.RESPONSE_TOO_LARGE
