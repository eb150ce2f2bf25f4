"""An httpx transport on aiohttp's connection pool and response parser.

aiohttp's ``ClientSession`` is not used: it re-sends idempotent requests whose connection broke,
rewrites URLs, keeps cookies and adds headers. Here the request's bytes are written once, as given,
and only parsing answers and keeping connections is aiohttp's. There is no code that could send
twice: a connection is exchanged for another only before the first byte is written.

Understands the request extensions ``target`` (as httpx) and ``progress`` (``failures.Progress``);
its responses carry the extension ``content_encoding`` (bytes, empty for none).
Raises ``DeliveryError`` and nothing else for what goes wrong outside. Its one subtlety with
aiohttp: ``BaseConnector`` takes our ``_Destination`` where it expects a ``ClientRequest``, of which
it reads ``connection_key`` and ``proxy`` only; the integration tests pin that.
"""

import asyncio
import select
import ssl
from typing import Any, cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

from app.runners.dialer import Dialer
from app.runners.failures import (
    DeliveryError,
    Phase,
    Progress,
    dropped_error,
    framing_error,
    protocol_error,
    tls_error,
    truncated_error,
)
from app.runners.http_options import HttpRunnerOptions
from app.runners.request import AttemptRequest

_SWITCHING_PROTOCOLS = 101
_FINAL_MIN = 200
# The attempt's own deadline ends a handshake; asyncio insists on one of its own.
_HANDSHAKE_SECONDS = 86_400.0
# A head is parsed so much at a time: a flood of interim answers is counted after every piece, and
# thirty of them fit into one.
_HEAD_PIECE_BYTES = 1024
# aiohttp pauses at twice as much content waiting, or at a sixteenth as many chunks (2,048), which
# take 2 ms to parse.
_READ_BUFFER_BYTES = 32 * 1024
# It resumes at half of either, so that from pause to pause comes as much content as the buffer
# holds, or 1,024 chunks; if they bring less than this, they are crumbs of under 16 bytes.
_CONTENT_BETWEEN_PAUSES_MIN = _READ_BUFFER_BYTES // 2
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
_PORTS = {"http": 80, "https": 443}


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends each request exactly once, over pooled connections to judged addresses.

    Belongs to one event loop, the one of its first request. ``tls`` is for tests and private CAs;
    default: the platform's roots.
    """

    def __init__(
        self, options: HttpRunnerOptions, *, dialer: Dialer, tls: ssl.SSLContext | None = None
    ) -> None:
        self._options = options
        self._dialer = dialer
        self._tls = tls or ssl.create_default_context()
        self._connector: _Connector | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return once the final answer's head is there."""
        destination = _Destination(request)
        wire = await _serialized(request)
        connection = await self._leased(destination)
        protocol = cast("_AnswerProtocol", connection.protocol)
        try:
            protocol.send(wire, bodiless=request.method == "HEAD")
            message, payload = await protocol.read()
        except BaseException as error:
            protocol.locate(destination.progress)
            connection.close()
            raise _translated(error, destination.progress) from error
        destination.progress.phase = Phase.RECEIVING
        stream = _AnswerStream(connection, payload, progress=destination.progress)
        return _Received(message, stream)

    async def aclose(self) -> None:
        """Close every connection at once; safe to call twice."""
        if self._connector is not None:
            await self._connector.close()
        self._dialer.close()

    async def _leased(self, destination: "_Destination") -> Connection:
        """Get a connection nothing speaks on: a stale one is exchanged, since no byte has left."""
        if self._connector is None:
            self._connector = _Connector(self._options, dialer=self._dialer, tls=self._tls)
        request = cast("aiohttp.ClientRequest", destination)
        while True:
            try:
                connection = await self._connector.connect(request, [], _NO_TIMEOUT)
            except BaseException as error:
                raise _translated(error, destination.progress) from error
            protocol = cast("_AnswerProtocol", connection.protocol)
            if protocol.is_quiet():
                return connection
            fresh = not protocol.used
            connection.close()
            if fresh:
                raise protocol_error(
                    f"{destination.progress.label} spoke or hung up before the request was sent; "
                    "nothing was sent"
                )


class _Received(httpx.Response):
    """A response whose headers are put into httpx's shape when somebody asks for them."""

    def __init__(self, message: RawResponseMessage, stream: httpx.AsyncByteStream) -> None:
        self._fields = message.raw_headers
        self._headers: httpx.Headers | None = None
        coding = b""
        for name, value in self._fields:
            if name.lower() == b"content-encoding":
                coding = value
        super().__init__(message.code, stream=stream, extensions={"content_encoding": coding})

    @property
    def headers(self) -> httpx.Headers:
        """The headers as httpx knows them."""
        if self._headers is None:
            self._headers = httpx.Headers(list(self._fields))
        return self._headers

    @headers.setter
    def headers(self, given: httpx.Headers) -> None:
        """Ignore the empty ones that httpx's constructor gives."""


class _Destination:
    """What the connector needs to know of a request."""

    __slots__ = ("connection_key", "host", "port", "progress", "proxy", "tls")

    def __init__(self, request: httpx.Request) -> None:
        url = request.url
        self.host = url.raw_host.decode("ascii")
        self.tls = url.scheme == "https"
        self.port = url.port or _PORTS[url.scheme]
        self.progress: Progress = request.extensions.get("progress") or Progress(
            label=f"{self.host}:{self.port}"
        )
        self.proxy = None
        self.connection_key = ConnectionKey(
            self.host, self.port, self.tls, ssl=True, proxy=None, proxy_auth=None,
            proxy_headers_hash=None,
        )  # fmt: skip


class _Connector(aiohttp.BaseConnector):
    """aiohttp's pool over our own dialling."""

    def __init__(self, options: HttpRunnerOptions, *, dialer: Dialer, tls: ssl.SSLContext) -> None:
        super().__init__(
            keepalive_timeout=options.keepalive.total_seconds(),
            limit=options.connections_max,
            limit_per_host=options.connections_per_host_max,
        )
        self._options = options
        self._dialer = dialer
        self._tls = tls
        self.open_count = 0

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],  # noqa: ARG002 - aiohttp's signature
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        destination = cast("_Destination", req)
        progress = destination.progress
        sock = await self._dialer.dial(destination.host, destination.port, progress=progress)
        loop = asyncio.get_running_loop()
        if not destination.tls:
            _, protocol = await loop.create_connection(self._answer_protocol, sock=sock)
            return protocol
        progress.phase = Phase.HANDSHAKE
        try:
            _, protocol = await loop.create_connection(
                self._answer_protocol,
                sock=sock,
                ssl=self._tls,
                server_hostname=destination.host.rstrip("."),
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except (OSError, ssl.SSLError, ssl.CertificateError) as error:
            raise tls_error(progress.label, error) from error
        return protocol

    def _answer_protocol(self) -> "_AnswerProtocol":
        return _AnswerProtocol(self, self._options)


class _AnswerProtocol(ResponseHandler):
    """aiohttp's response parser, deaf while idle and bounded while listening."""

    def __init__(self, connector: _Connector, options: HttpRunnerOptions) -> None:
        super().__init__(asyncio.get_running_loop())
        self.used = False
        self._connector = connector
        self._options = options
        self._idle = True
        self._head_pending = False
        self._informational = 0
        self._received = 0
        self._head_received = 0
        self._content_at_pause = 0
        self._poll = select.poll()

    def is_quiet(self) -> bool:
        """Tell whether a request may be written: connected, and nothing waits to be read.

        A byte or an end that waits on an idle connection is a stale close or a forged answer.
        """
        if not self.is_connected() or self.exception() is not None:
            return False
        return not self._poll.poll(0)

    def send(self, wire: bytes, *, bodiless: bool) -> None:
        """Write a whole request and listen for its answer."""
        self.used = True
        self._idle = False
        self._head_pending = True
        self._informational = 0
        self._received = 0
        self._content_at_pause = 0
        self._payload = None
        self.set_response_params(
            skip_payload=bodiless,
            read_until_eof=True,
            read_bufsize=_READ_BUFFER_BYTES,
            auto_decompress=False,
            max_line_size=self._options.head_bytes_max,
            max_field_size=self._options.head_bytes_max,
            max_headers=self._options.head_fields_max,
        )
        assert self.transport is not None
        self.transport.write(wire)

    def locate(self, progress: Progress) -> None:
        """Write down where a request stands that is waiting for its answer's head."""
        if self._received:
            progress.phase = Phase.RECEIVING
        elif self.has_unsent():
            progress.phase = Phase.SENDING
        else:
            progress.phase = Phase.WAITING

    def has_unsent(self) -> bool:
        """Tell whether bytes of the request still wait for the network."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def rest(self) -> bool:
        """Stop listening; tell whether the connection may serve another request."""
        self._idle = True
        crowded = self._connector.open_count > self._options.connections_kept_max
        return not (self.should_close or self.has_unsent() or crowded)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connector.open_count += 1
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connector.open_count -= 1
        if exc is not None and self._payload is not None and not self._payload.is_eof():
            # Else aiohttp takes a reset for the end of a body that ends with the connection.
            self._payload.set_exception(aiohttp.ClientPayloadError("connection reset"))
        super().connection_lost(exc)

    def close(self) -> None:
        """Close at once: the rest of an answer is not worth waiting for, nor a TLS farewell."""
        self.abort()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            if data:
                self.abort()
            return
        begin = 0
        while self._head_pending and begin + _HEAD_PIECE_BYTES < len(data):
            if not self._take(data[begin : begin + _HEAD_PIECE_BYTES]):
                return
            begin += _HEAD_PIECE_BYTES
        self._take(data[begin:] if begin else data)

    def _take(self, data: bytes) -> bool:
        """Parse a piece; tell whether there is sense in parsing more."""
        if data and self._is_excessive():
            self._refuse_excess()
            return False
        self._received += len(data)
        super().data_received(data)
        return not self._idle and self.exception() is None

    def pause_reading(self) -> None:
        """Stop reading until the body's reader has caught up; refuse a body of crumbs."""
        if self._payload is not None and not self._reading_paused:
            content = self._payload.total_bytes - self._content_at_pause
            self._content_at_pause = self._payload.total_bytes
            if content < _CONTENT_BETWEEN_PAUSES_MIN:
                self._refuse_excess()
        super().pause_reading()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a parsed head: informational ones are counted and dropped."""
        code = data[0].code
        if code < _FINAL_MIN and code != _SWITCHING_PROTOCOLS:
            self._informational += 1
            limit = self._options.informational_max
            if self._informational > limit:
                self._refuse(
                    protocol_error(f"The target sent more than {limit} interim (1xx) answers")
                )
            return
        if self._head_pending and self._is_oversized(data[0]):
            self._refuse_excess()
            return
        if self._head_pending:
            self._head_pending = False
            self._head_received = self._received
        super().feed_data(data, size)

    def _is_excessive(self) -> bool:
        """Tell whether too much has come before a body, or too much of one is framing.

        A body's content is the reader's to count. What waits in a paused parser is not yet either.
        """
        if self._head_pending:
            return self._received > self._options.head_bytes_max
        if self._payload is None or self._reading_paused:
            return False
        framing = self._received - self._head_received - self._payload.total_bytes
        return framing > self._options.framing_bytes_max

    def _is_oversized(self, head: RawResponseMessage) -> bool:
        """Tell a head that is too large though it came in one piece, perhaps with its body."""
        if self._received <= self._options.head_bytes_max:
            return False
        fields = sum(len(name) + len(value) + len(": \r\n") for name, value in head.raw_headers)
        return fields > self._options.head_bytes_max

    def _refuse_excess(self) -> None:
        if self._head_pending:
            limit = self._options.head_bytes_max
            self._refuse(protocol_error(f"The answer's head is larger than {limit} bytes"))
        else:
            self._refuse(framing_error())

    def _refuse(self, error: DeliveryError) -> None:
        self._idle = True
        payload = self._payload
        self.set_exception(error)
        if payload is not None:
            payload.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class _AnswerStream(httpx.AsyncByteStream):
    """A body as it arrives, undecoded. At its end the connection is kept if nothing is amiss."""

    def __init__(
        self, connection: Connection, payload: StreamReader, *, progress: Progress
    ) -> None:
        self._connection: Connection | None = connection
        self._payload = payload
        self._progress = progress

    def __aiter__(self) -> "_AnswerStream":
        return self

    async def __anext__(self) -> bytes:
        """Tell the next piece of body."""
        if self._connection is None:
            raise StopAsyncIteration
        try:
            chunk = await self._payload.readany()
        except BaseException as error:
            await self.aclose()
            raise _translated_body(error, self._progress) from error
        if chunk:
            return chunk
        connection, self._connection = self._connection, None
        if cast("_AnswerProtocol", connection.protocol).rest():
            connection.release()
        else:
            connection.close()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _serialized(request: httpx.Request) -> bytes:
    if isinstance(request, AttemptRequest):
        return request.wire
    target = request.extensions.get("target") or request.url.raw_path
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), target)]
    lines += [b"%b: %b\r\n" % field for field in request.headers.raw]
    lines.append(b"\r\n")
    if isinstance(request.stream, httpx.ByteStream):
        lines += request.stream
    else:
        stream = cast("httpx.AsyncByteStream", request.stream)
        lines += [part async for part in stream]
    return b"".join(lines)


def _translated(error: BaseException, progress: Progress) -> BaseException:
    """Make a ``DeliveryError`` of what aiohttp or the network raised before a head came."""
    match error:
        case HttpProcessingError():
            return _malformed(error, progress)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientError() | OSError():
            return dropped_error(progress.label, error)
        case _:
            return error


def _translated_body(error: BaseException, progress: Progress) -> BaseException:
    match error:
        case aiohttp.ClientError() | OSError() | HttpProcessingError():
            return truncated_error(progress.label)
        case _:
            return error


def _malformed(error: HttpProcessingError, progress: Progress) -> DeliveryError:
    cause = error.__cause__
    if isinstance(cause, LineTooLong):
        return protocol_error(f"{progress.label} answered with a header line that is too long")
    if cause is not None and "Too many headers" in str(cause):
        return protocol_error(f"{progress.label} answered with too many headers")
    return protocol_error(
        f"{progress.label} answered with something that is not valid HTTP/1.1; "
        "does that port speak HTTP?"
    )
