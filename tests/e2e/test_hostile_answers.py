"""Whatever bytes a target answers, the history of the real process stays readable for everybody."""

import json
from typing import Any, NoReturn

import httpx

from tests.e2e.world import Row, Script, create, trigger, wait_for_end
from tests.support.homes import Home
from tests.support.raw_server import RawServer, Step, reply, send
from tests.support.service import Service

_HEAD = b"HTTP/1.1 200 \xff\xfe\x80\r\nX-Odd: \xf0\x28\x8c\r\nContent-Length: 2\r\n\r\nok"

# What is answered, and the text that the history shows of it.
ANSWERS: dict[str, tuple[Step, str]] = {
    "nan": (reply('{"a": NaN, "b": [Infinity, 1e999]}'), '{"a": NaN, "b": [Infinity, 1e999]}'),
    "escaped-surrogate": (reply(b'"\\ud800"'), '"\\ud800"'),
    "raw-surrogate": (reply(b"\xed\xa0\x80"), "\ufffd" * 3),
    "nul": (reply(b"a\x00b"), "a\ufffdb"),
    "binary": (reply(b"\x89PNG\r\n\x1a\n\xff\xfe\x01"), "\ufffdPNG\r\n\x1a\n\ufffd\ufffd\x01"),
    "deep-json": (reply(b"[" * 500_000), "[" * 65_536),
    "deep-objects": (reply(b'{"a":' * 100_000), ('{"a":' * 100_000)[:65_536]),
    "separators": (reply("\u2028\u2029\u202e]]>\x1b[31m"), "\u2028\u2029\u202e]]>\x1b[31m"),
    "reason-phrase": (send(_HEAD), "ok"),
    "nothing": (reply(b""), ""),
}


async def test_any_answer_stays_readable(home: Home):
    """NaN, lone surrogates, NUL, binary and deep JSON are read back from every list and the log."""
    script = Script({f"/{name}": (step,) for name, (step, _) in ANSWERS.items()})
    async with RawServer((script,)) as target, Service(home) as service:
        client = service.client
        ended = {}
        for name in ANSWERS:
            never = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}
            await create(client, name, target.url(f"/{name}"), **never)
            await trigger(client, name)
            ended[name] = await wait_for_end(client, name)
        recent = await _strict(client, "/api/v1/jobs/executions/recent")
        assert {row["job_id"]: _text(row) for row in recent["executions"]} == {
            name: text for name, (_, text) in ANSWERS.items()
        }
        for name, (_, text) in ANSWERS.items():
            assert ended[name]["status"] == "completed"
            await _check_readers(client, name, ended[name], text)
        finished = [
            line for line in service.log_lines() if line.get("event") == "execution.finished"
        ]
        assert {line["job_id"] for line in finished} == set(ANSWERS)


async def _check_readers(client: httpx.AsyncClient, name: str, ended: Row, text: str) -> None:
    """Read an execution through the job, the job's history and by itself."""
    job = await _strict(client, f"/api/v1/jobs/{name}")
    history = await _strict(client, f"/api/v1/jobs/{name}/executions")
    alone = await _strict(client, f"/api/v1/executions/{ended['execution_id']}")
    for row in (*job["executions"], *history["executions"], alone):
        assert _text(row) == text
        assert row["response_size"] == ended["response_size"]


async def _strict(client: httpx.AsyncClient, path: str) -> Any:
    """Read an answer as the strictest of clients would."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.content.decode("utf-8"), parse_constant=_refuse)
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return found


def _refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def _text(row: Row) -> str:
    return str(row["result"]["response_body"])
