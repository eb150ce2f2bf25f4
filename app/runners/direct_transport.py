"""The transport that delivers: connections to judged addresses, each request written once.

There is no code that could send twice: a connection is exchanged for another only before the first
byte is written. Nothing is kept of an answer but, for a moment, its connection.

Sends what ``request.py`` prepares, and nothing else: bytes that are ready, with the ``progress`` to
write down where they are. Responses carry the extension ``content_encoding`` (bytes, empty for
none). Raises ``DeliveryError`` and nothing else for what goes wrong outside.
"""

import asyncio
import ssl
from collections import deque
from typing import NamedTuple, cast

import httpx

from app.runners.answer_protocol import AnswerProtocol, Head
from app.runners.dialer import Dialer
from app.runners.failures import Phase, Progress, tls_error, unsent_error
from app.runners.http_options import HttpRunnerOptions
from app.runners.request import AttemptRequest

# The attempt's own deadline ends a handshake; asyncio insists on one of its own.
_HANDSHAKE_SECONDS = 86_400.0
_PORTS = {"http": 80, "https": 443}
_SWEEP_SECONDS_MIN = 0.01


class DirectTransport(httpx.AsyncBaseTransport):
    """Sends each request exactly once, over kept connections to judged addresses.

    Belongs to one event loop, the one of its first request. ``tls`` is for tests and private CAs;
    default: the platform's roots.
    """

    def __init__(
        self, options: HttpRunnerOptions, *, dialer: Dialer, tls: ssl.SSLContext | None = None
    ) -> None:
        self._dialer = dialer
        self._pool = _Pool(options, dialer=dialer, tls=tls or ssl.create_default_context())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return once the final answer's head is there."""
        assert isinstance(request, AttemptRequest)
        destination = _destination(request)
        progress: Progress = request.extensions["progress"]
        connection = await self._pool.lease(destination, progress)
        try:
            connection.send(request.wire, progress, bodiless=request.method == "HEAD")
            head = await connection.head()
        except BaseException:
            connection.locate(progress)
            self._pool.discard(connection)
            raise
        progress.phase = Phase.RECEIVING
        return _Received(head, _AnswerStream(self._pool, destination, connection))

    async def aclose(self) -> None:
        """Close every connection at once; safe to call twice."""
        self._pool.close()
        self._dialer.close()


class _Destination(NamedTuple):
    """Which connections serve a request."""

    host: str
    port: int
    tls: bool


class _Pool:
    """Connections: some lent, some at rest for a moment, the one used last goes first."""

    def __init__(self, options: HttpRunnerOptions, *, dialer: Dialer, tls: ssl.SSLContext) -> None:
        self._options = options
        self._keepalive = options.keepalive.total_seconds()
        self._dialer = dialer
        self._tls = tls
        self._idle: dict[_Destination, deque[AnswerProtocol]] = {}
        self._idle_count = 0
        self._lent: set[AnswerProtocol] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._slots = (
            asyncio.Semaphore(options.connections_max) if options.connections_max else None
        )
        self._closed = False

    async def lease(self, destination: _Destination, progress: Progress) -> AnswerProtocol:
        """Lend a connection nothing speaks on: a stale one is exchanged, since no byte has left.

        Raises ``DeliveryError``, also once the pool is closed.
        """
        if self._slots is not None:
            await self._slots.acquire()
        try:
            connection = None if self._closed else self._rested(destination)
            if connection is None:
                connection = await self._connect(destination, progress)
        except BaseException:
            self._give_slot()
            raise
        self._lent.add(connection)
        return connection

    def release(self, destination: _Destination, connection: AnswerProtocol) -> None:
        """Take back a connection whose answer was read to its end; keep it if nothing is amiss."""
        crowded = len(self._lent) + self._idle_count > self._options.connections_kept_max
        if crowded or self._closed or not connection.may_rest():
            self.discard(connection)
            return
        self._forget(connection)
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.setdefault(destination, deque()).append(connection)
        self._idle_count += 1
        if self._sweep is None:
            self._sweep_in(self._keepalive)

    def discard(self, connection: AnswerProtocol) -> None:
        """Close a lent connection; harmless for one that was taken back."""
        connection.abort()
        self._forget(connection)

    def close(self) -> None:
        """Close every connection at once; safe to call twice."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in (*self._lent, *(one for idle in self._idle.values() for one in idle)):
            connection.abort()
        self._idle.clear()
        self._idle_count = 0

    def _forget(self, connection: AnswerProtocol) -> None:
        if connection in self._lent:
            self._lent.discard(connection)
            self._give_slot()

    def _give_slot(self) -> None:
        if self._slots is not None:
            self._slots.release()

    def _rested(self, destination: _Destination) -> AnswerProtocol | None:
        idle = self._idle.get(destination)
        while idle:
            connection = idle.pop()
            self._idle_count -= 1
            if connection.is_quiet() and not self._is_stale(connection):
                return connection
            connection.abort()
        return None

    def _is_stale(self, connection: AnswerProtocol) -> bool:
        now = asyncio.get_running_loop().time()
        return now - connection.idle_since >= self._keepalive

    async def _connect(self, destination: _Destination, progress: Progress) -> AnswerProtocol:
        self._refuse_if_closed()
        connection = await self._open(destination, progress)
        # On a new connection of TLS session tickets may wait, which TLS alone reads.
        usable = connection.is_open() if destination.tls else connection.is_quiet()
        if usable and not self._closed:
            return connection
        connection.abort()
        self._refuse_if_closed()
        raise unsent_error(f"{progress.label} spoke or hung up before the request was sent")

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise unsent_error("The service is stopping")

    async def _open(self, destination: _Destination, progress: Progress) -> AnswerProtocol:
        sock = await self._dialer.dial(destination.host, destination.port, progress=progress)
        loop = asyncio.get_running_loop()
        if not destination.tls:
            _, connection = await loop.create_connection(self._protocol, sock=sock)
        else:
            progress.phase = Phase.HANDSHAKE
            try:
                _, connection = await loop.create_connection(
                    self._protocol,
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=destination.host.rstrip("."),
                    ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                )
            except OSError as error:
                raise tls_error(progress.label, error) from error
        return connection

    def _protocol(self) -> AnswerProtocol:
        return AnswerProtocol(self._options)

    def _sweep_in(self, seconds: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(seconds, self._close_stale)

    def _close_stale(self) -> None:
        """Close what has rested too long; look again when the next one has."""
        self._sweep = None
        for destination, idle in [*self._idle.items()]:
            while idle and self._is_stale(idle[0]):
                idle.popleft().abort()
                self._idle_count -= 1
            if not idle:
                del self._idle[destination]
        if self._idle:
            now = asyncio.get_running_loop().time()
            oldest = min(idle[0].idle_since for idle in self._idle.values())
            self._sweep_in(max(oldest + self._keepalive - now, _SWEEP_SECONDS_MIN))


class _Received(httpx.Response):
    """A response whose headers are put into httpx's shape when somebody asks for them."""

    def __init__(self, head: Head, stream: httpx.AsyncByteStream) -> None:
        # httpx's own constructor is left out: it takes as long as parsing the answer.
        self.status_code = head.status
        self.stream = stream
        coding = b""
        for name, value in head.fields:
            if name.lower() == b"content-encoding":
                coding = value
        self.extensions = {"content_encoding": coding}
        self._fields = head.fields
        self._headers: httpx.Headers | None = None

    @property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there
        """The headers as httpx knows them."""
        if self._headers is None:
            self._headers = httpx.Headers(self._fields)
        return self._headers

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await cast("httpx.AsyncByteStream", self.stream).aclose()


class _AnswerStream(httpx.AsyncByteStream):
    """A body as it arrives, undecoded. At its end the connection is kept if nothing is amiss."""

    def __init__(self, pool: _Pool, destination: _Destination, connection: AnswerProtocol) -> None:
        self._pool = pool
        self._destination = destination
        self._connection: AnswerProtocol | None = connection

    def __aiter__(self) -> "_AnswerStream":
        return self

    async def __anext__(self) -> bytes:
        """Tell the next piece of body."""
        if self._connection is None:
            raise StopAsyncIteration
        try:
            piece = await self._connection.piece()
        except BaseException:
            await self.aclose()
            raise
        if piece:
            return piece
        connection, self._connection = self._connection, None
        self._pool.release(self._destination, connection)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if self._connection is not None:
            self._pool.discard(self._connection)
            self._connection = None


def _destination(request: httpx.Request) -> _Destination:
    url = request.url
    return _Destination(
        url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme], url.scheme == "https"
    )
