"""What leaves for the target is what the job says, and nothing else."""

import json
import re
from datetime import timedelta
from urllib.parse import unquote

import pytest

from app import __version__
from app.domain.job import BodyType
from app.runners.http_options import HttpRunnerOptions
from tests.support.raw_server import RawServer, reply

OURS = {
    "webhook-id": "exe_abcdefghijklmnopqrstuvwx",
    "webhook-timestamp": "1795251601",
    "idempotency-key": "exe_abcdefghijklmnopqrstuvwx",
    "x-scheduler-job-id": "job-1",
    "x-scheduler-scheduled-at": "2026-11-21T09:00:00Z",
    "x-scheduler-attempt": "1",
    "user-agent": f"MyScheduler/{__version__}",
}


async def sent(courier, target="/", **fields):
    """Deliver once and tell the request as the server saw it."""
    async with RawServer((reply(),)) as server:
        outcome = await courier.deliver(server.url(target), **fields)
        assert outcome.succeeded, outcome.error
        (request,) = server.requests
        return request


@pytest.mark.parametrize(
    "target",
    [
        "/?a=%41%2Fb&sig=x%3D%3d",
        "/a/../b//c/.",
        "/%7euser/~user?q=a+b&c=%20",
        "/path;v=1,2/(x)?y=[1]{2}|'\"<>^`\\",
        "/?",
        "/?a=1?b=2",
    ],
)
async def test_url_bytes(courier, target):
    """Path and query go out byte for byte."""
    request = await sent(courier, target)
    assert request.line == f"GET {target} HTTP/1.1".encode()


async def test_url_that_http_cannot_carry(courier):
    """Spaces and non-ASCII are percent-encoded as UTF-8, and a fragment stays at home."""
    request = await sent(courier, "/予定 表?q=é#part")
    assert request.line == b"GET /%E4%BA%88%E5%AE%9A%20%E8%A1%A8?q=%C3%A9 HTTP/1.1"


async def test_url_without_path(courier):
    """A query right after the host gets the slash HTTP needs, and nothing more."""
    request = await sent(courier, "?a=1")
    assert request.line == b"GET /?a=1 HTTP/1.1"


async def test_headers_of_a_get(courier):
    """A GET carries Host, our names for the execution, identity encoding, and no other header."""
    request = await sent(courier)
    headers = request.headers
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers.pop("traceparent"))
    assert headers.pop("host").startswith("127.0.0.1:")
    assert headers == {**OURS, "accept-encoding": "identity"}
    assert request.body == b""


async def test_headers_of_a_post(courier):
    """A POST adds Content-Type and Content-Length, and no other header."""
    request = await sent(courier, method="POST", body_json='{"a": 1}')
    headers = request.headers
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == "7"
    others = set(headers) - set(OURS) - {"host", "traceparent", "accept-encoding"}
    assert others == {"content-type", "content-length"}


async def test_users_headers_win(courier):
    """The user's headers keep order and spelling and replace ours of the same name."""
    mine = (
        ("X-One", "1"),
        ("user-AGENT", "mine/1"),
        ("Accept-Encoding", "gzip"),
        ("Idempotency-Key", "my-key"),
        ("Traceparent", "00-11111111111111111111111111111111-2222222222222222-00"),
        ("X-Scheduler-Attempt", "seven"),
        ("X-One", "2"),
        ("X-Text", "日本"),
    )
    request = await sent(courier, headers=mine)
    fields = [field for field in request.fields if field[0] in {name for name, _ in mine}]
    assert fields == list(mine)
    names = [name.lower() for name, _ in request.fields]
    assert {name for name in names if names.count(name) > 1} == {"x-one"}


async def test_reserved_headers(courier):
    """Framing, connection and signature headers are never taken from the user."""
    reserved = (
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "webhook-id",
        "Webhook-Timestamp",
        "webhook-signature",
    )
    request = await sent(courier, headers=tuple((name, "evil") for name in reserved))
    assert b"evil" not in request.raw
    assert request.headers["webhook-id"] == OURS["webhook-id"]


async def test_attempts_of_an_execution(courier):
    """All attempts carry one id and one trace; span, number and timestamp are the attempt's own."""
    async with RawServer((reply(),)) as server:
        start = courier.attempt(server.url()).started_at
        for number in (1, 2):
            await courier.deliver(
                server.url(), number=number, started_at=start + timedelta(seconds=number)
            )
        first, second = (request.headers for request in server.requests)

    same = ("webhook-id", "idempotency-key", "x-scheduler-scheduled-at", "x-scheduler-job-id")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert first["traceparent"][:36] == second["traceparent"][:36]
    assert first["traceparent"][36:] != second["traceparent"][36:]
    assert (first["x-scheduler-attempt"], second["x-scheduler-attempt"]) == ("1", "2")
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 1


async def test_job_id_that_is_not_ascii(courier):
    """Any job id travels as percent-encoded UTF-8 that decodes to itself."""
    job_id = "日次 バックアップ 100%\x7f"
    request = await sent(courier, job_id=job_id)
    encoded = request.headers["x-scheduler-job-id"]
    assert encoded.isascii()
    assert unquote(encoded) == job_id


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
async def test_methods_without_body(courier, method):
    """A body is not sent with GET, DELETE, HEAD or OPTIONS."""
    request = await sent(courier, method=method, body_json='{"a":1}')
    assert request.body == b""
    assert not {"content-length", "content-type"} & set(request.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_methods_with_body(courier, method):
    """POST, PUT and PATCH send the body; an empty object is sent as one."""
    request = await sent(courier, method=method, body_json="{}")
    assert request.body == b"{}"


async def test_post_without_body(courier):
    """A POST without a body says that its length is zero and names no type."""
    request = await sent(courier, method="POST")
    assert request.headers["content-length"] == "0"
    assert "content-type" not in request.headers


async def test_json_is_compact_and_exact(courier):
    """JSON loses white space between tokens and nothing else."""
    text = '{ "n" : 1.00, "big": 123456789012345678901, "s": "a  \\"b\\" \\u00e9é" }'
    request = await sent(courier, method="POST", body_json=text)
    assert request.body.decode() == text.replace(" : ", ":").replace(": ", ":").replace(
        ", ", ","
    ).replace("{ ", "{").replace(" }", "}")
    assert json.loads(request.body) == json.loads(text)


@pytest.mark.parametrize(
    ("body_type", "body_json", "expected", "media_type"),
    [
        (
            BodyType.FORM,
            '{"a": "x y&z", "n": 1.50, "b": true, "e": null, "l": [1, "é"], "o": {"k": 1.0}}',
            b"a=x+y%26z&n=1.50&b=true&e=&l=1&l=%C3%A9&o=%7B%22k%22%3A1.0%7D",
            "application/x-www-form-urlencoded",
        ),
        (BodyType.RAW, '"line\\nいち"', "line\nいち".encode(), "text/plain; charset=utf-8"),
        (BodyType.RAW, '{"a": 1}', b'{"a":1}', "text/plain; charset=utf-8"),
        (BodyType.RAW, "12.50", b"12.50", "text/plain; charset=utf-8"),
    ],
)
async def test_body_types(courier, body_type, body_json, expected, media_type):
    """Forms and raw text go out as such, under their media types."""
    request = await sent(courier, method="POST", body_type=body_type, body_json=body_json)
    assert request.body == expected
    assert request.headers["content-type"] == media_type


@pytest.mark.parametrize("body_type", list(BodyType))
async def test_users_content_type_wins(courier, body_type):
    """A job's own Content-Type is sent, whatever the body's type."""
    request = await sent(
        courier,
        method="POST",
        body_type=body_type,
        body_json="{}",
        headers=(("content-type", "application/vnd.mine+json"),),
    )
    sent_types = [value for name, value in request.fields if name.lower() == "content-type"]
    assert sent_types == ["application/vnd.mine+json"]


async def test_version_in_user_agent(courier):
    """The version in User-Agent is the one configured."""
    courier.options = HttpRunnerOptions(version="9.9-test")
    request = await sent(courier)
    assert request.headers["user-agent"] == "MyScheduler/9.9-test"


async def test_large_body(courier):
    """A body far larger than socket buffers arrives whole."""
    text = json.dumps("x" * 3_000_000)
    request = await sent(courier, method="POST", body_type=BodyType.RAW, body_json=text)
    assert request.body == b"x" * 3_000_000
