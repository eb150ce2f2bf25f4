"""A loopback HTTP target that is never the bottleneck: one protocol object per connection.

It answers every request with 200 and notes when which execution arrived, so that lost and doubled
runs are counted at the receiving end. Run as a process: ``python -m benchmarks.target PORT``; it
writes its log to standard output when its input closes.
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
_END_OF_HEAD = b"\r\n\r\n"


class Target(asyncio.Protocol):
    """Reads requests (with a Content-Length or without a body) and answers each at once."""

    def __init__(self, arrivals: list[tuple[str, float]]) -> None:
        self._arrivals = arrivals
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection to answer on."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that has arrived."""
        self._buffer += data
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = self._buffer[:end].lower()
            length = int(_field(head, b"content-length") or 0)
            total = end + len(_END_OF_HEAD) + length
            if len(self._buffer) < total:
                return
            self._buffer = self._buffer[total:]
            self._arrivals.append((_field(head, b"webhook-id").decode(), time.time()))  # noqa: TID251 - the receiving end's clock
            assert self._transport is not None
            self._transport.write(_ANSWER)


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


async def _serve(port: int) -> None:
    arrivals: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Target(arrivals), "127.0.0.1", port, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    json.dump(arrivals, sys.stdout)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
