"""Executions after real runs: whatever a target answers, the history stays readable."""

import json
import os
import socket
from datetime import datetime

import pytest

from tests.support.raw_server import RawServer, drop, hang, reply, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIELDS = {
    "execution_id": str,
    "job_id": str,
    "status": str,
    "cause": str,
    "scheduled_for": str,
    "started_at": str,
    "completed_at": str,
    "lateness_ms": int,
    "execution_time_ms": int,
    "attempts": int,
    "instant_count": int,
    "result": dict,
}
RESULT = {"success", "status_code", "response_size", "response_body", "error_message", "attempts"}


async def outcome(api, *steps, **fields):
    """Run a job once against these replies; every reader must be able to read its history."""
    async with RawServer(steps) as server:
        execution = await api.run(target_url=server.url("/hook"), **fields)
    job = await api.get(f"/{execution['job_id']}")
    recent = await api.get("/executions/recent")
    assert execution in job["executions"]
    assert execution in recent["executions"]
    return execution


async def test_fields_of_an_execution(api):
    """An execution has the frozen fields with their types; times have an offset."""
    execution = await outcome(api, reply("hello"))
    for name, kind in FIELDS.items():
        assert isinstance(execution[name], kind), name
    assert set(execution["result"]) == RESULT
    for name in ("scheduled_for", "started_at", "completed_at"):
        assert execution[name].endswith("+09:00")
    started, ended = (
        datetime.fromisoformat(execution[name]) for name in ("started_at", "completed_at")
    )
    assert execution["execution_time_ms"] == int((ended - started).total_seconds() * 1000)
    assert execution["lateness_ms"] >= 0
    assert (execution["http_status_code"], execution["response_size"]) == (200, 5)
    assert execution["result"] == {
        "success": True,
        "status_code": 200,
        "response_size": 5,
        "response_body": "hello",
        "error_message": None,
        "attempts": 1,
    }


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "299 Odd"])
async def test_success(api, status):
    """Every 2xx is a success without an error."""
    execution = await outcome(api, reply("x", status=status))
    assert execution["status"] == "completed"
    assert (execution["reason"], execution["error_message"]) == (None, None)
    assert execution["result"]["success"] is True


async def test_no_content(api):
    """204 without a body is a success of size 0."""
    execution = await outcome(api, send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert (execution["status"], execution["http_status_code"]) == ("completed", 204)
    assert execution["response_size"] == 0


@pytest.mark.parametrize("status", ["301 Moved", "400 Bad", "404 Not Found", "500 Oops", "503 No"])
async def test_failure(api, status):
    """3xx without following, 4xx and 5xx are failures with an error that is never empty."""
    execution = await outcome(
        api, reply("why", status=status, headers=("Location: http://127.0.0.1:1/",))
    )
    assert (execution["status"], execution["attempts"]) == ("failed", 1)
    assert execution["http_status_code"] == int(status[:3])
    assert execution["response_size"] == 3
    assert execution["error_message"]
    assert execution["result"]["error_message"] == execution["error_message"]
    assert execution["result"]["response_body"] == "why"
    assert execution["result"]["success"] is False


async def test_client_errors_are_not_retried(api):
    """A 404 is never retried."""
    execution = await outcome(
        api, reply(status="404 Not Found"), max_retries=3, retry_backoff_sec=0
    )
    assert (execution["status"], execution["attempts"]) == ("failed", 1)


@pytest.mark.parametrize(
    ("step", "reason"), [(drop, "protocol"), (hang, "timeout"), (send(b"HTTX\r\n\r\n"), "protocol")]
)
async def test_no_answer(api, step, reason):
    """Without an answer there is no status and no size, but an error and a reason."""
    execution = await outcome(api, step, timeout_sec=0.3)
    assert (execution["status"], execution["reason"]) == ("failed", reason)
    assert (execution["http_status_code"], execution["response_size"]) == (None, None)
    assert execution["error_message"]


async def test_nobody_listens(api):
    """A refused connection is a failure, told in words."""
    execution = await api.run(target_url="http://127.0.0.1:9/")
    assert (execution["status"], execution["reason"]) == ("failed", "connect")
    assert "127.0.0.1:9" in execution["error_message"]


async def test_retries_are_recorded(api):
    """5xx is retried, every attempt is kept, and the time counts from the first to the end."""
    execution = await outcome(
        api,
        reply("one", status="500 Oops"),
        drop,
        reply("three"),
        max_retries=5,
        retry_backoff_sec=0.05,
    )
    assert (execution["status"], execution["attempts"]) == ("completed", 3)
    assert (execution["http_status_code"], execution["result"]["response_body"]) == (200, "three")
    assert execution["error_message"] is None
    answer = await api.http.get(f"/api/v1/executions/{execution['execution_id']}")
    detail = answer.json()
    attempts = detail.pop("attempt_list")
    assert detail.pop("explanation") is None
    assert detail == execution
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3]
    assert execution["replica"].startswith(f"{socket.gethostname()}:{os.getpid()}")
    assert {attempt["replica"] for attempt in attempts} == {execution["replica"]}
    assert [attempt["http_status_code"] for attempt in attempts] == [500, None, 200]
    assert [bool(attempt["error_message"]) for attempt in attempts] == [True, True, False]
    assert attempts[0]["started_at"] == execution["started_at"]
    assert attempts[2]["ended_at"] == execution["completed_at"]
    assert execution["execution_time_ms"] >= 150  # the two waits: 50 and 100 ms


async def test_exhausted_retries(api):
    """When no retry is left the execution fails with the last answer."""
    execution = await outcome(
        api, reply("no", status="503 No"), max_retries=2, retry_backoff_sec=0.01
    )
    assert (execution["status"], execution["attempts"]) == ("failed", 3)
    assert execution["http_status_code"] == 503
    assert execution["error_message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"NaN",
        b'{"a": NaN, "b": Infinity}',
        b'"\\ud800"',
        "\ud800\udfff".encode("utf-8", "surrogatepass"),
        b"\x00\x01\x02",
        bytes(range(256)) * 4,
        b"\xff\xfe" + "text".encode("utf-16-le"),
        b"]]>\x1b[31m\r\n<script>",
        "\u2028\u202e日本".encode(),
        b"[" * 50_000,
    ],
)
async def test_any_bytes(api, body):
    """Any bytes a target answers leave the history readable, with the true size beside the text."""
    execution = await outcome(api, reply(body))
    assert execution["status"] == "completed"
    assert execution["response_size"] == len(body)
    text = execution["result"]["response_body"]
    assert isinstance(text, str)
    text.encode()
    json.dumps(execution, allow_nan=False).encode()


@pytest.mark.parametrize("size", [100_000, 1_000_000])
async def test_long_answers(api, size):
    """A long text is stored up to a cap, with its true size beside it."""
    execution = await outcome(api, reply(b"x" * size))
    assert (execution["status"], execution["response_size"]) == ("completed", size)
    assert 0 < len(execution["result"]["response_body"]) <= 65_536


async def test_five_megabytes(api):
    """An answer above what is read fails the attempt in words and stays readable."""
    execution = await outcome(api, reply(b"x" * 5_000_000))
    assert (execution["status"], execution["reason"]) == ("failed", "response_too_large")
    assert "larger than" in execution["error_message"]


async def test_what_is_sent(api):
    """Method, headers (stored secrets too) and an empty object as body go out as given."""
    async with RawServer((reply(),)) as server:
        fields = {"target_url": server.url("/a?b=%zz"), "method": "POST", "body": {}}
        headers = {"Authorization": "Bearer s3cr3t", "X-Name": "日本"}
        job_id = await api.stored(**fields, headers=headers)
        shown = (await api.get(f"/{job_id}"))["headers"]
        await api.create(job_id=job_id, **fields, headers=shown, replace_existing=True)
        await api.act(job_id, "trigger")
        await api.finished(job_id)
    request = server.requests[0]
    assert request.line == b"POST /a?b=%zz HTTP/1.1"
    assert request.headers["authorization"] == "Bearer s3cr3t"
    assert request.headers["x-name"] == "日本"
    assert request.body == b"{}"


@pytest.mark.parametrize(("method", "sent"), [("GET", b""), ("DELETE", b""), ("PATCH", b"[1]")])
async def test_when_a_body_is_sent(api, method, sent):
    """A body goes with POST, PUT and PATCH only."""
    async with RawServer((reply(),)) as server:
        await api.run(target_url=server.url(), method=method, body=[1])
    assert server.requests[0].body == sent
