"""Clients of the running service that mean harm: raw bytes, crowds, texts that try to escape."""

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from app.models.tables import metadata
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.http_server import statuses, talk
from tests.support.service import Service, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = "/api/v1/jobs"
JOB = {"schedule_type": "cron", "cron": {"year": "2099"}, "target_url": "http://127.0.0.1:9/"}
HALF_OPEN = 200
CROWD = 1000
ANSWERED_SECONDS = 0.5
REQUEST_BYTES_MAX = 8 * 1024 * 1024
GET = b"GET /health HTTP/1.1\r\nHost: service\r\nConnection: close\r\n"
POST = (
    b"POST /api/v1/jobs HTTP/1.1\r\nHost: service\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_home: Home):
    """Run one service for the tests here; none may hurt it, or write a line into its log."""
    async with Service(
        module_home,
        MYSCHEDULER_REQUEST_BYTES_MAX=str(REQUEST_BYTES_MAX),
        LOG_LEVEL="DEBUG",
    ) as running:
        yield running
        assert (await running.client.get("/health/ready")).json()["status"] == "ready"
        assert await running.stop() == 0
        check_log(running)


def check_log(service: Service) -> None:
    """Check that each line of the log so far is one object of ours, and none of them an error."""
    lines = service.log_path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert all(line.isascii() and line.startswith(b'{"timestamp":') for line in lines)
    read = [json.loads(line) for line in lines]
    assert [line for line in read if "forged" in line["event"]] == []
    assert [line for line in read if line["level"] in {"error", "critical"}] == []
    assert [line for line in read if "exception" in line] == []


def problem_of(answer: bytes) -> dict[str, Any]:
    """Read the problem document of the one answer on a connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == int(head[9:12])
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    return problem


def posted(body: bytes, *headers: bytes) -> bytes:
    """Write a request with a body."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return POST + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (b"CONNECT host:1 HTTP/1.1\r\nHost: host:1\r\n\r\n", 400),
        (b"GET http://host HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n", 404),
        (b"GET /\xff HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n", 400),
        (b"GET /%ff%00 HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\nHost: service\n\n", 400),
        (GET + b"A: b\r\n c\r\n\r\n", 400),
        (GET + b"A: b\x00c\r\n\r\n", 400),
        (GET + b"A b: c\r\n\r\n", 400),
        (GET + b"a: b\r\n" * 20_000 + b"\r\n", 431),
        (GET + b"a: " + b"b" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: -1\r\n\r\n{}", 400),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n{}", 400),
        (POST + b"Content-Length: 99999999\r\n\r\n{}", 413),
        (
            POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            400,
        ),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}", 400),
        (posted(b"{}" * 5), 422),
        (posted(b"\x1f\x8b\x08\x00", b"Content-Encoding: gzip"), 422),
        (posted('{"name": "é"}'.encode("latin-1"), b"Content-Type: text/json; charset=x"), 422),
        (posted(b"\xef\xbb\xbf{}"), 422),
        (posted(b"[" * 100_000), 422),
        (posted(b'{"body": ' + b"[" * 900 + b"]" * 900 + b"}"), 422),
        (posted(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), 422),
        (posted(b"[" + b"1," * 999_999 + b"1]"), 422),
        (posted(b'{"retry_statuses": [' + b"429," * 999_999 + b"429]}"), 422),
        (posted(b'{"headers": {' + b",".join(b'"%d": 1' % n for n in range(100_000)) + b"}}"), 422),
        (posted(b"{" + b",".join(b'"%d": 1' % n for n in range(100_000)) + b"}"), 422),
        (posted(b'{"timeout_sec": 1e400}'), 422),
        (posted(b'{"max_retries": -1e400}'), 422),
        (posted(b'{"max_retries": 1' + b"0" * 5000 + b"}"), 422),
        (posted(b'{"job_id": "a", "job_id": "b"}'), 422),
        (posted(b'{"timeout_sec": NaN}'), 422),
        (posted(b'{"name": "\\ud800"}'), 422),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
async def test_unreadable_requests(service: Service, request_bytes: bytes, status: int):
    """What cannot be read is answered by a documented problem, at once, and the connection ends."""
    begun = time.monotonic()
    answer = await talk(service.port, [request_bytes])
    assert problem_of(answer)["status"] == status
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET http://elsewhere/health HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n",
        GET + b"Host: again\r\n\r\n",
        GET + b"Accept: \xff\xfe\r\n\r\n",
    ],
)
async def test_odd_but_readable_requests(service: Service, request_bytes: bytes):
    """HTTP/1.0, a whole URL as the target and strange header values are served."""
    assert statuses((await talk(service.port, [request_bytes])).replace(b"1.0 ", b"1.1 ")) == [200]


async def test_half_open_clients(service: Service):
    """While 200 clients keep requests half sent, everybody else is answered in half a second."""
    halves = [b"", b"G", GET, POST + b"Content-Length: 99\r\n\r\n", POST + b"Content-Length: 9\r\n"]
    seconds = []
    with contextlib.ExitStack() as stack:
        for number in range(HALF_OPEN):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            half.sendall(halves[number % len(halves)])
        for number in range(20):
            job = {**JOB, "job_id": f"meanwhile-{number}"}
            for method, path, body in (("GET", "/health/ready", None), ("POST", JOBS, job)):
                begun = time.monotonic()
                answer = await service.client.request(method, path, json=body)
                seconds.append(time.monotonic() - begun)
                assert answer.status_code == 200
    assert max(seconds) < ANSWERED_SECONDS


@pytest.mark.slow
async def test_a_crowd(service: Service):
    """A thousand clients at once are all served, and leave neither files nor memory behind.

    Nobody is sent away but by PostgreSQL, which is not waited for beyond seconds: who is told by a
    503 to come back comes back.
    """
    await be_a_crowd(service, 20)  # opens what is kept open
    before = measure(service)
    counted = await be_a_crowd(service, CROWD)
    sent_away = counted.pop(503, 0)
    assert counted == {200: 3 * CROWD}
    assert sent_away == 0 or service.home.kind is DatabaseKind.POSTGRES
    await eventually(lambda: measure(service)["files"] <= before["files"] + 2)
    assert measure(service)["memory"] - before["memory"] < 150 * 1024


async def be_a_crowd(service: Service, clients: int) -> Counter[int]:
    """Let so many clients connect and then ask at once; count their answers."""
    gate = asyncio.Event()
    connected = asyncio.Semaphore(0)
    counted: Counter[int] = Counter()

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        connected.release()
        await gate.wait()
        for request in requests_of(f"crowd-{clients}-{number}"):
            status = 503
            while status == 503:
                writer.write(request)
                status = await read_status(reader)
                counted[status] += 1
        writer.transport.abort()

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(ask(number))
        for _ in range(clients):
            await connected.acquire()
        gate.set()
    return counted


def measure(service: Service) -> dict[str, int]:
    """Count a process's open files, and its memory in KiB."""
    folder = Path("/proc") / str(service.pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return {
        "files": len(list((folder / "fd").iterdir())),
        "memory": int(status["VmRSS"].split()[0]),
    }


def requests_of(name: str) -> list[bytes]:
    """Write what one client of the crowd asks for: to read, to write, to read."""
    body = json.dumps({**JOB, "job_id": name}).encode()
    kept = POST.replace(b"Connection: close\r\n", b"")
    return [
        b"GET /health HTTP/1.1\r\nHost: service\r\n\r\n",
        kept + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        b"GET /api/v1/jobs/%b HTTP/1.1\r\nHost: service\r\n\r\n" % name.encode(),
    ]


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read one answer whole; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


SPITEFUL = [
    "' OR 1=1 --",
    '"; DROP TABLE jobs; --',
    "<script>alert(1)</script>",
    "{{7*7}} ${7*7} %s %(x)s {0}",
    "../../etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2f",
    "%00",
    "a\nlevel=error forged",
    'a"}\n{"event": "forged"}',
    "\x1b[31mred\x1b[0m",
    "\x00",
    "\u202egnp.exe",
    "\u2066isolate",
    "zero\u200bwidth",
    "e\u0301",
    "é",
    "👩‍👩‍👧‍👦",
    "🇯🇵" * 60,
    "日" * 255,
    "日" * 256,
    "\u0301" * 100,
    "\u2028",
    "\ufeff",
    "\ufffe\uffff",
    "NUL",
    "null",
    "-rf",
    "executions",
    ".",
    "..",
    " padded ",
]


@pytest.mark.parametrize("text", SPITEFUL, ids=ascii)
async def test_spiteful_ids(service: Service, text: str):
    """An id is stored and answered as it is, under its own path, or refused in a sentence."""
    answer = await service.client.post(JOBS, json={**JOB, "job_id": text, "replace_existing": True})
    if answer.status_code == 422:
        assert "job_id: " in answer.json()["title"]
        assert text not in answer.json()["title"] or len(text) < 3
        return
    assert answer.status_code == 200, answer.text
    path = f"{JOBS}/{quote(text, safe='')}"
    found = (await service.client.get(path)).json()
    assert (found["id"], found["name"]) == (text, text)
    assert (await service.client.post(f"{path}/trigger")).json()["job_id"] == text
    assert (await service.client.delete(path)).json() == {"job_id": text, "status": "deleted"}
    assert (await service.client.get(path)).json()["detail"] == f"Job {text} not found"


@pytest.mark.parametrize("text", SPITEFUL, ids=ascii)
async def test_spiteful_names(service: Service, text: str):
    """A name is stored and answered as it is, or refused in a sentence."""
    job = {**JOB, "job_id": "named", "name": text, "replace_existing": True}
    answer = await service.client.post(JOBS, json=job)
    if answer.status_code == 422:
        assert "name: " in answer.json()["title"]
        return
    assert answer.status_code == 200, answer.text
    assert (await service.client.get(f"{JOBS}/named")).json()["name"] == text


@pytest.mark.parametrize(
    "path",
    [
        *("%2e%2e%2f%2e%2e%2fetc%2fpasswd", "a%2fb", "a%252fb", "a%5cb", "a;b=c", "a%0d%0aX:y"),
        *("%ff", "%c0%af", "%ed%a0%80", "%u0041", "%", "%zz", "a%00b", "<script>", "'--", "%20"),
    ],
)
async def test_spiteful_paths(service: Service, path: str):
    """A path names one job or nothing; nothing in it reaches a file, a header or a second path."""
    request = f"GET {JOBS}/{path} HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"
    answer = await talk(service.port, [request.encode()])
    assert problem_of(answer)["status"] == 404
    assert answer.count(b"\r\n\r\n") == 1


async def test_a_clients_address_is_its_own(service: Service):
    """Who asked is who connected, whatever the request says."""
    headers = {"X-Forwarded-For": "forged-address", "Forwarded": "for=forged-address"}
    await service.client.post(JOBS, json={**JOB, "job_id": "asked"}, headers=headers)
    await service.client.post(f"{JOBS}/asked/pause", headers=headers)
    tables = (service.home.rows(f"SELECT * FROM {table}") for table in metadata.tables)  # noqa: S608
    stored = "".join(map(str, tables))
    assert "forged-address" not in stored


async def test_nobody_writes_lines_into_the_log(service: Service):
    """Paths, headers and ids that look like lines of the log stay within one line each."""
    spiteful = ['x"}\r\n{"event":"forged"}', "\x1b[2Jforged", "\u2028forged", "forged\x85"]
    for text in spiteful:
        raw = text.replace("\r\n", " ").encode("utf-8", "replace")
        await talk(
            service.port,
            [
                b"GET /" + quote(text).encode() + b" HTTP/1.1\r\nHost: " + raw + b"\r\n"
                b"User-Agent: " + raw + b"\r\nX-Request-ID: " + raw + b"\r\n"
                b"Connection: close\r\n\r\n"
            ],
        )
    job_id = 'quote"{forged}\u202e\u200b'
    answer = await service.client.post(JOBS, json={**JOB, "job_id": job_id})
    assert answer.status_code == 200
    await service.client.post(f"{JOBS}/{quote(job_id, safe='')}/trigger")
    await eventually(lambda: job_id in {line.get("job_id") for line in service.log_lines()})
    check_log(service)
