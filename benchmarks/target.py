"""A loopback HTTP target that is never the bottleneck, and the handle of its process.

``async with Target(folder) as target`` starts ``python -m benchmarks.target PORT FILE``. It notes
each request's arrival before it parses it, and answers by the path's first segment: ``/ok/KEY``
200 at once, ``/fail/KEY`` 500 at once, ``/after/SECONDS/KEY`` 200 after a while. ``/count`` tells
how many have arrived. Requests have a Content-Length or no body. The log is written when the
process's standard input closes, so that it also ends with whoever started it.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import uvloop

from benchmarks.figures import Arrival
from benchmarks.load import Client
from benchmarks.machine import ROOT, free_port

_HEAD = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s"
_OK = _HEAD % (b"200 OK", 2, b"ok")
_FAIL = _HEAD % (b"500 Internal Server Error", 4, b"fail")
_END_OF_HEAD = b"\r\n\r\n"
_STOP_SECONDS = 60


class Target:
    """A target's process. ``arrivals`` are there once it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.arrivals: list[Arrival] = []
        self._log = folder / f"arrivals-{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Tell the process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, key: str, *, way: str = "ok") -> str:
        """Name the address of a key: ``way`` is ``ok``, ``fail`` or ``after/SECONDS``."""
        return f"http://127.0.0.1:{self.port}/{way}/{key}"

    async def count(self) -> int:
        """Tell how many requests have arrived by now."""
        async with Client(self.port) as client:
            return int(await client.get("/count"))

    async def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.target", str(self.port), str(self._log),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the target did not start")

    async def stop(self) -> None:
        """End the process and read what arrived."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(_STOP_SECONDS):
            await self._process.wait()
        lines = self._log.read_text(encoding="latin-1").splitlines()
        fields = (line.split(" ") for line in lines)
        self.arrivals = [Arrival(key, identity, float(at)) for at, key, identity in fields]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Connection(asyncio.Protocol):
    """Reads requests and answers each; ``note`` gets path, ``webhook-id`` and arrival."""

    def __init__(
        self, note: Callable[[tuple[bytes, bytes, float]], None], count: Callable[[], int]
    ) -> None:
        self._note = note
        self._count = count
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        at = time.time()  # noqa: TID251 - the receiving end's clock
        self._buffer += data
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = self._buffer[:end]
            lower = head.lower()
            total = end + len(_END_OF_HEAD) + int(_field(lower, b"content-length") or 0)
            if len(self._buffer) < total:
                return
            self._buffer = self._buffer[total:]
            path = head.split(b" ", 2)[1]
            if path == b"/count":
                number = b"%d" % self._count()
                self._write(_HEAD % (b"200 OK", len(number), number))
                continue
            self._note((path, _field(lower, b"webhook-id"), at))
            self._answer(path)

    def _answer(self, path: bytes) -> None:
        if path.startswith(b"/after/"):
            seconds = float(path.split(b"/")[2])
            asyncio.get_running_loop().call_later(seconds, self._write, _OK)
        else:
            self._write(_FAIL if path.startswith(b"/fail/") else _OK)

    def _write(self, answer: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(answer)


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def _serve(port: int, log: Path) -> None:
    arrivals: list[tuple[bytes, bytes, float]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(arrivals.append, arrivals.__len__), "127.0.0.1", port, backlog=4096
    )
    # Nothing here makes cycles; a collection would hold up whoever arrives.
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    with log.open("wb") as file:
        file.writelines(
            b"%.6f %b %b\n" % (at, path.rpartition(b"/")[2], identity)
            for path, identity, at in arrivals
        )


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
