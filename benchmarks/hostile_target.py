"""Loopback targets that misbehave, one raw-socket behaviour per path, and an honest one.

Run as a process: ``python -m benchmarks.hostile_target PORT``. ``/honest`` answers at once and
notes when which execution arrived; the notes go to standard output when the input closes. Every
other path is a key of ``BEHAVIOURS``. A connection that opens with a TLS handshake gets nonsense.
"""

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_OK_BODY = _OK + b"Content-Length: 2\r\n\r\nok"
# Not kept, so that each run looks its name up and connects.
_HONEST = _OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"
_TLS_HANDSHAKE = 0x16
_MIB = 1024 * 1024
# brotli.compress(bytes(50 MiB), quality=11): 93 bytes, of which the stream is made 50 MiB again.
_BROTLI_BOMB = base64.b64decode(
    "y///P/gnAOKxQCD3/o///3/wTwDEYRGA7v0f////4J8AiMMCAN37P/7//8E/ARCHBQC693/8//+DfwIgDgsA"
    "dO//+P//B/8EQBwWAOje/+X//wf+CYA4LADQvf8A"
)

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


def _send(data: bytes, *, then_close: bool = False) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then_close:
            writer.close()

    return behave


def _answer(body: bytes, *fields: bytes) -> Behaviour:
    head = b"\r\n".join((*fields, b"Content-Length: %d" % len(body)))
    return _send(_OK + head + b"\r\n\r\n" + body)


def _pour(prefix: bytes, piece: bytes, *, pieces: int | None = None) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(prefix)
        poured = 0
        while pieces is None or poured < pieces:
            writer.write(piece)
            await writer.drain()
            poured += 1

    return behave


def _drip(prefix: bytes, piece: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(prefix)
        while not writer.transport.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    return behave


def _redirect(location: bytes) -> Behaviour:
    head = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
    return _send(head)


async def _reset(writer: asyncio.StreamWriter) -> None:
    writer.write(_OK + b"Content-Length: 100000\r\n\r\n" + b"r" * 50_000)
    await writer.drain()
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


_MANY_FIELDS = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))

BEHAVIOURS: dict[str, Behaviour] = {
    "hang": _send(b""),
    "drip-head": _drip(_OK, b"X-Slow: 1\r\n"),
    "drip-body": _drip(_CHUNKED, b"1\r\ny\r\n"),
    "endless-body": _pour(_CHUNKED, b"10000\r\n" + b"e" * 65_536 + b"\r\n"),
    "tiny-chunks": _pour(_CHUNKED, b"1\r\nx\r\n" * 10_000),
    "huge-body": _pour(_OK + b"Content-Length: 2147483648\r\n\r\n", b"h" * 65_536, pieces=32_768),
    "gzip-bomb": _answer(gzip.compress(bytes(50 * _MIB)), b"Content-Encoding: gzip"),
    "gzip-members": _answer(gzip.compress(b"") * 50_000, b"Content-Encoding: gzip"),
    "brotli-bomb": _answer(_BROTLI_BOMB, b"Content-Encoding: br"),
    "redirect-loop": _redirect(b"/redirect-loop"),
    "redirect-forbidden": _redirect(b"http://169.254.169.254/latest/meta-data"),
    "invalid-http": _send(b"SSH-2.0-OpenSSH_9.2\r\n\x00\xff\r\n\r\n"),
    "many-headers": _send(_OK + _MANY_FIELDS + b"Content-Length: 0\r\n\r\n"),
    "large-header": _send(_OK + b"X-Large: " + b"v" * _MIB + b"\r\nContent-Length: 0\r\n\r\n"),
    "reset": _reset,
    "nan": _answer(b'{"a": NaN, "b": -Infinity, "c": 1e999}' * 1_000),
    "surrogates": _answer(b'"\\ud800"' + b"\xed\xa0\x80" * 20_000),
    "binary": _answer(bytes(range(256)) * 400),
    "deep-json": _answer(b"[" * 1_000_000),
    "interim-flood": _pour(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_500),
    "lying-length": _send(_OK + b"Content-Length: 1000\r\n\r\nshort"),
    "poison": _send(_OK_BODY + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
}


class Target:
    """Serves every behaviour; ``arrivals`` holds execution and wall clock of honest requests."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, float]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the client leaves."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first[0] == _TLS_HANDSHAKE:
            await _send(b"\x16\x03\x03\x40\x00" + b"\xa5" * 65_536, then_close=True)(writer)
            return
        while not writer.transport.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().strip("/")
            if path == "honest":
                self._note(head)
                await _send(_HONEST, then_close=True)(writer)
            else:
                await BEHAVIOURS[path](writer)

    def _note(self, head: bytes) -> None:
        name = head.lower().partition(b"webhook-id: ")[2].partition(b"\r\n")[0].decode()
        self.arrivals.append((name, time.time()))  # noqa: TID251 - the receiving end's clock


async def _serve(port: int) -> None:
    target = Target()
    server = await asyncio.start_server(target.serve, "127.0.0.1", port, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    json.dump(target.arrivals, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
