"""The load generator: prepared requests over kept connections, at the least cost of its own.

One process drives the service from the machine that also runs it, so every microsecond here is
taken from what is measured: no HTTP library, no task per request, one callback per answer.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, cast

# status, body, seconds since it was sent
OnAnswer = Callable[[int, bytes, float], None]

_CALL_SECONDS = 60
_SUCCESS = range(200, 300)
_END_OF_HEAD = b"\r\n\r\n"
# A progress bar that moved with each answer would cost as much as the request.
_REPORT_EVERY = 64


class RefusedError(RuntimeError):
    """The service answered something else than 2xx, or closed the connection."""


class Connection(asyncio.Protocol):
    """One kept connection. Requests may be sent before earlier ones are answered, in order."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: deque[tuple[OnAnswer, float]] = deque()

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to a port of this machine."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, "127.0.0.1", port)
        return protocol

    @property
    def is_closed(self) -> bool:
        """Tell whether the other side, or ``close``, ended it."""
        return self._transport is None or self._transport.is_closing()

    @property
    def pending(self) -> int:
        """Tell how many requests wait for their answer."""
        return len(self._waiting)

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Send a prepared request; a connection that breaks answers with status 0."""
        if self._transport is None or self._transport.is_closing():
            on_answer(0, b"the connection is closed", 0)
            return
        self._waiting.append((on_answer, time.perf_counter()))
        self._transport.write(request)

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's are no subclasses of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer those who still wait."""
        while self._waiting:
            on_answer, began = self._waiting.popleft()
            on_answer(0, str(exc or "closed").encode(), time.perf_counter() - began)

    def data_received(self, data: bytes) -> None:
        """Hand out every answer that is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body_at = end + len(_END_OF_HEAD)
            if len(self._buffer) < body_at + length:
                return
            body = self._buffer[body_at : body_at + length]
            self._buffer = self._buffer[body_at + length :]
            on_answer, began = self._waiting.popleft()
            on_answer(int(head[9:12]), body, time.perf_counter() - began)


class Client:
    """Calls one after the other over a kept connection, which is opened anew when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Connection | None = None

    async def get(self, path: str) -> bytes:
        """Read; return the body."""
        return (await self.call(prepare("GET", path)))[0]

    async def post(self, path: str, document: Mapping[str, Any] | None = None) -> bytes:
        """Write; return the body."""
        return (await self.call(prepare("POST", path, document)))[0]

    async def delete(self, path: str) -> bytes:
        """Delete; return the body."""
        return (await self.call(prepare("DELETE", path)))[0]

    async def call(self, request: bytes) -> tuple[bytes, float]:
        """Send a prepared request; return body and milliseconds. Raises ``RefusedError``."""
        if self._connection is None or self._connection.is_closed:
            self._connection = await Connection.open(self._port)
        answered: asyncio.Future[tuple[int, bytes, float]] = (
            asyncio.get_running_loop().create_future()
        )

        def note(status: int, body: bytes, seconds: float) -> None:
            if not answered.done():
                answered.set_result((status, body, seconds))

        self._connection.send(request, note)
        async with asyncio.timeout(_CALL_SECONDS):
            status, body, seconds = await answered
        _check(status, body)
        return body, seconds * 1000

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What sending came to: seconds in all, milliseconds of each answer, own CPU seconds."""

    seconds: float
    answers_ms: list[float]
    cpu_seconds: float


async def send_all(
    port: int,
    requests: Iterable[bytes],
    *,
    clients: int,
    advanced: Callable[[int], None] = lambda _count: None,
) -> Load:
    """Send prepared requests over ``clients`` connections, each its next one when it is answered.

    ``advanced`` is told now and then how many more were answered. Raises ``RefusedError`` at the
    first answer that is no success; nothing more is sent then.
    """
    crowd = _Crowd(iter(requests), advanced)
    connections = [await Connection.open(port) for _ in range(clients)]
    began, cpu = time.perf_counter(), time.process_time()
    try:
        await crowd.run(connections)
    finally:
        for connection in connections:
            connection.close()
    return Load(
        seconds=time.perf_counter() - began,
        answers_ms=crowd.answers_ms,
        cpu_seconds=time.process_time() - cpu,
    )


class _Crowd:
    def __init__(self, requests: Iterator[bytes], advanced: Callable[[int], None]) -> None:
        self.answers_ms: list[float] = []
        self._requests = requests
        self._advanced = advanced
        self._busy = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._busy += 1
            self._send_next(connection)
        await self._over
        self._advanced(len(self.answers_ms) % _REPORT_EVERY)

    def _send_next(self, connection: Connection) -> None:
        request = None if self._over.done() else next(self._requests, None)
        if request is None:
            self._busy -= 1
            if not self._busy and not self._over.done():
                self._over.set_result(None)
            return

        def note(status: int, body: bytes, seconds: float) -> None:
            if status not in _SUCCESS:
                self._fail(status, body)
            self.answers_ms.append(seconds * 1000)
            if len(self.answers_ms) % _REPORT_EVERY == 0:
                self._advanced(_REPORT_EVERY)
            self._send_next(connection)

        connection.send(request, note)

    def _fail(self, status: int, body: bytes) -> None:
        if not self._over.done():
            self._over.set_exception(RefusedError(f"{status}: {body.decode(errors='replace')}"))


def prepare(method: str, path: str, document: Mapping[str, Any] | None = None) -> bytes:
    """Write a request, whole."""
    head = f"{method} {path} HTTP/1.1\r\nHost: benchmark\r\n"
    if document is None:
        return f"{head}Content-Length: 0\r\n\r\n".encode()
    body = json.dumps(document).encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def creation(job_id: str, url: str, **fields: Any) -> bytes:
    """Write the request that creates a job which posts a small body to ``url``."""
    document = {"job_id": job_id, "target_url": url, "method": "POST", "body": {"job": job_id}}
    return prepare("POST", "/api/v1/jobs", document | fields)


def one_off(due: float) -> dict[str, Any]:
    """Write the schedule of a job that is due once."""
    return {"schedule_type": "date", "run_at": datetime.fromtimestamp(due, UTC).isoformat()}


def _check(status: int, body: bytes) -> None:
    if status not in _SUCCESS:
        raise RefusedError(f"{status}: {body.decode(errors='replace')}")
