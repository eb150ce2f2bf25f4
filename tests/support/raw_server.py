"""A raw-socket HTTP server for tests, whose replies are scripted byte by byte.

One step per request, in order; the last one repeats. The steps here send, drip, hang, drop or
reset; any coroutine function of an ``Exchange`` is a step. What arrived is recorded as raw bytes
with monotonic times. Waits have deadlines; nothing here sleeps.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

WAIT_SECONDS = 5.0

# A self-signed certificate for "localhost", valid until 2126, and its key; of no worth elsewhere.
_CERTIFICATE = (
    "MIIBpTCCAUugAwIBAgIUUFGMCmxwqFSr6pJFCYuuAzG8t6YwCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxo"
    "b3N0MCAXDTI2MTEyMTA2NTY1NVoYDzIxMjYxMDI4MDY1NjU1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcq"
    "hkjOPQIBBggqhkjOPQMBBwNCAATr6Du3z1GXIBR+dyIopfgem814hg0qjH6Iy8DCsW0Nl9reUXKOEvjLLY+sHUKw"
    "aTDoaJDmCarvJ+AUIbTEbgA6o3kwdzAdBgNVHQ4EFgQUUedoGagUQIaGc0ooi6a4c2E+FI4wHwYDVR0jBBgwFoAU"
    "UedoGagUQIaGc0ooi6a4c2E+FI4wDwYDVR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwDgYDVR0P"
    "AQH/BAQDAgKEMAoGCCqGSM49BAMCA0gAMEUCIBnjnmmXTX6Pg2nJ0KszYoB+DBu/4xk/X3t9/zmQSjsZAiEA0M6h"
    "IuI+pVVYt/BNGmJgk5YM6AUAhirPWH7Nrv4O3bU="
)
_KEY = (
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHGHdpv9y5k45H9KiSkv05JuZeASMFKGFU9dR+gC2"
    "uO+hRANCAATr6Du3z1GXIBR+dyIopfgem814hg0qjH6Iy8DCsW0Nl9reUXKOEvjLLY+sHUKwaTDoaJDmCarvJ+AU"
    "IbTEbgA6"
)


@dataclass(slots=True)
class Request:
    """One request as it arrived."""

    raw: bytes
    connection: int
    at: float

    @property
    def line(self) -> bytes:
        """Tell the request line."""
        return self.raw.partition(b"\r\n")[0]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Tell the header fields in order, names as spelt."""
        head = self.raw.partition(b"\r\n\r\n")[0].decode("utf-8")
        pairs = (line.partition(": ") for line in head.split("\r\n")[1:])
        return [(name, value) for name, _, value in pairs]

    @property
    def headers(self) -> dict[str, str]:
        """Tell the header fields by lower-case name."""
        return {name.lower(): value for name, value in self.fields}

    @property
    def body(self) -> bytes:
        """Tell what followed the head."""
        return self.raw.partition(b"\r\n\r\n")[2]


@dataclass(slots=True)
class Exchange:
    """A request being answered: where a step writes to."""

    server: "RawServer"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: Request

    async def send(self, data: bytes) -> None:
        """Write and flush; a client that has gone is not an error."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def pause(self, seconds: float) -> bool:
        """Wait a beat between drips; tell whether the server is stopping."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.server.stopping.wait()
        return self.server.stopping.is_set() or self.writer.transport.is_closing()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Exchange], Awaitable[None]]


def reply(
    body: bytes | str = b"ok", *, status: str = "200 OK", headers: tuple[str, ...] = ()
) -> Step:
    """Answer properly and keep the connection."""
    content = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"

    async def step(exchange: Exchange) -> None:
        await exchange.send(head if exchange.request.raw.startswith(b"HEAD ") else head + content)

    return step


def send(data: bytes) -> Step:
    """Send these bytes and keep the connection."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(data)

    return step


def send_and_close(data: bytes) -> Step:
    """Send these bytes, then end the connection in order."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return step


def send_and_reset(data: bytes) -> Step:
    """Send these bytes, wait until they are out, then reset the connection."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(data)
        await exchange.pause(0.05)
        exchange.reset()

    return step


def drip(data: bytes, *, every: float, prefix: bytes = b"", forever: bool = False) -> Step:
    """Send a prefix at once, then one byte at a time, over and over if asked."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(prefix)
        while True:
            for byte in data:
                await exchange.send(bytes([byte]))
                if await exchange.pause(every):
                    return
            if not forever:
                return

    return step


def pour(chunk: bytes, *, prefix: bytes) -> Step:
    """Send a prefix, then a chunk without end, as fast as the client takes it."""

    async def step(exchange: Exchange) -> None:
        await exchange.send(prefix)
        while not exchange.server.stopping.is_set() and not exchange.writer.transport.is_closing():
            await exchange.send(chunk)
            exchange.server.poured_bytes += len(chunk)
            await exchange.pause(0)

    return step


async def hang(exchange: Exchange) -> None:
    """Never answer; wait for the client to give up."""
    with contextlib.suppress(ConnectionError):
        await exchange.reader.read()


async def drop(exchange: Exchange) -> None:
    """End the connection in order, without an answer."""
    exchange.writer.close()


async def reset(exchange: Exchange) -> None:
    """Reset the connection without an answer."""
    exchange.reset()


@dataclass(slots=True)
class RawServer:
    """Listens on a free loopback port while used as a context manager.

    ``reads`` False accepts and never reads. ``greeting`` is sent on accept. ``hangs_up`` ends each
    connection at its first byte.
    """

    steps: tuple[Step, ...] = ()
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    reads: bool = True
    greeting: bytes = b""
    hangs_up: bool = False
    requests: list[Request] = field(default_factory=list)
    connection_count: int = 0
    poured_bytes: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.stopping.set()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self.wait_for(lambda: not self._writers)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Tell the port in use."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_count(self) -> int:
        """Tell how many connections are open now."""
        return len(self._writers)

    def url(self, target: str = "/", *, host: str = "127.0.0.1") -> str:
        """Tell a URL of this server."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host}:{self.port}{target}"

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition over this server's state holds."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connection_count += 1
        number = self.connection_count
        try:
            await self._converse(reader, writer, number=number)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone; tests look at what it did before
        finally:
            writer.close()
            self._writers.discard(writer)
            await self._notify()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, number: int
    ) -> None:
        if self.greeting:
            writer.write(self.greeting)
        if self.hangs_up:
            await reader.readexactly(1)
            return
        if not self.reads:
            await self.stopping.wait()
            return
        while not writer.transport.is_closing():
            raw = await _read_request(reader)
            at = asyncio.get_running_loop().time()
            request = Request(raw=raw, connection=number, at=at)
            self.requests.append(request)
            await self._notify()
            step = self.steps[min(len(self.requests), len(self.steps)) - 1]
            await step(Exchange(self, reader, writer, request))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def server_tls() -> ssl.SSLContext:
    """Make a server's context with the certificate for "localhost"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(_pem("PRIVATE KEY", _KEY) + _pem("CERTIFICATE", _CERTIFICATE))
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context


def client_tls() -> ssl.SSLContext:
    """Make a client's context that trusts that certificate and nothing else."""
    return ssl.create_default_context(cadata=_pem("CERTIFICATE", _CERTIFICATE))


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return head + await reader.readexactly(sum(lengths))


def _pem(label: str, base64_text: str) -> str:
    rows = [base64_text[i : i + 64] for i in range(0, len(base64_text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *rows, f"-----END {label}-----", ""))
