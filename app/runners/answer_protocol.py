"""One connection: it writes a request whole and takes its answer apart, bounded in everything.

httptools (llhttp, the parser of Node.js and of our own server) tells heads, pieces of body and
ends; what is counted, what is refused, and whether the connection may serve again is decided here.
A byte that comes while nothing was asked ends the connection, and so does one behind an answer.
"""

import asyncio
import select
from typing import NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from app.runners.failures import (
    DeliveryError,
    Phase,
    Progress,
    dropped_error,
    framing_error,
    protocol_error,
    truncated_error,
)
from app.runners.http_options import HttpRunnerOptions

_SWITCHING_PROTOCOLS = 101
_INTERIM = range(100, 200)
# So much is parsed between two looks at the bounds: 3,000 chunks of a byte, some milliseconds.
_PIECE_BYTES = 16 * 1024
# Of an answer's line and fields: the bytes around them.
_FIELD_BYTES = len(b": \r\n")

# What old servers do and browsers accept: bare line feeds in a head, odd characters in a field, a
# space behind its name or behind a chunk's size.
_LENIENCIES = {
    "lenient_headers": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}

RawFields = list[tuple[bytes, bytes]]


class _EnoughError(Exception):
    """Ends the parser's work on what it has."""


class Head(NamedTuple):
    """A final answer's status and fields."""

    status: int
    fields: RawFields


class AnswerProtocol(asyncio.Protocol):
    """A connection for one request at a time: ``send``, ``head``, ``piece`` until empty.

    Of a body that is larger than may be read as much is kept as tells so.
    """

    def __init__(self, options: HttpRunnerOptions) -> None:
        self.idle_since = 0.0
        self._options = options
        self._transport: asyncio.Transport | None = None
        self._is_tls = self._aborted = self._paused = False
        self._poll = select.poll()
        self._writable: list[tuple[int, int]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._parser: HttpResponseParser | None = None
        # Of one answer, from here on: see ``_begin``.
        self._progress = Progress()
        self._bodiless = self._keeps = self._ends_with_connection = False
        self._complete = True
        self._head: Head | None = None
        self._fields: RawFields = []
        self._body: list[bytes] = []
        self._failure: DeliveryError | None = None
        self._informational = self._received = self._head_received = self._body_bytes = 0

    def is_open(self) -> bool:
        """Tell whether it is connected, as far as is known."""
        return self._transport is not None and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Tell whether a request may be written: connected, and nothing waits to be read.

        A byte or an end that waits on an idle connection is a stale close or a forged answer; but
        on a new one of TLS, the session tickets that servers send after a handshake.
        """
        return self.is_open() and self._poll.poll(0) == self._writable

    def send(self, wire: bytes, progress: Progress, *, bodiless: bool) -> None:
        """Write a whole request and listen for its answer; ``bodiless``: its head alone."""
        assert self._transport is not None
        self._begin(progress, bodiless=bodiless)
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_LENIENCIES)
        self._transport.write(wire)

    async def head(self) -> Head:
        """Wait for the final answer's head. Raises ``DeliveryError``."""
        while self._head is None:
            if self._failure is not None:
                raise self._failure.again()
            await self._news()
        return self._head

    async def piece(self) -> bytes:
        """Wait for the next piece of body; empty at its end. Raises ``DeliveryError``."""
        while not self._body:
            if self._failure is not None:
                raise self._failure.again()
            if self._complete:
                return b""
            await self._news()
        body, self._body = self._body, []
        if self._paused:
            self._paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return body[0] if len(body) == 1 else b"".join(body)

    def locate(self, progress: Progress) -> None:
        """Write down where a request stands that is waiting for its answer's head."""
        if self._received:
            progress.phase = Phase.RECEIVING
        elif self._has_unsent():
            progress.phase = Phase.SENDING
        else:
            progress.phase = Phase.WAITING

    def may_rest(self) -> bool:
        """Tell whether it may serve another request, the answer having been read to its end."""
        return self._keeps and not self._has_unsent()

    def abort(self) -> None:
        """Close at once: the rest of an answer is not worth waiting for, nor a TLS farewell."""
        if self._transport is not None:
            self._aborted = True
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, at rest."""
        self._transport = cast("asyncio.Transport", transport)
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        descriptor = transport.get_extra_info("socket").fileno()
        self._poll.register(descriptor, select.POLLIN | select.POLLOUT)
        self._writable = [(descriptor, select.POLLOUT)]

    def eof_received(self) -> None:
        """End with the other side, which has no more to say; that may be how a body ends.

        Also while the request is being sent: nobody would answer it any more.
        """
        if self._head is not None and self._ends_with_connection and not self._complete:
            self._end(keeps=False)
        self._parser = None
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever answer was on its way; under TLS, too, that may be how a body ends.

        Not everybody takes leave as TLS has it, and an answer that says it was received is not
        asked for again for that.
        """
        self._transport = self._parser = None
        if self._complete or self._failure is not None:
            return
        if self._head is None:
            self._fail(dropped_error(self._progress.label, exc))
        elif exc is None and self._ends_with_connection and not self._aborted:
            self._end(keeps=False)
        else:
            self._fail(truncated_error(self._progress.label))

    def data_received(self, data: bytes) -> None:
        """Take apart what came, piece by piece."""
        if len(data) <= _PIECE_BYTES:
            self._take(data)
            return
        view = memoryview(data)
        for begin in range(0, len(data), _PIECE_BYTES):
            if not self._take(view[begin : begin + _PIECE_BYTES]):
                return
        self._rest_from_reading()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of a head; those after a body are not of interest."""
        if self._head is not None:
            return
        self._fields.append((name, value))
        if len(self._fields) > self._options.head_fields_max:
            self._refuse(protocol_error(f"{self._progress.label} answered with too many headers"))

    def on_headers_complete(self) -> None:
        """Take a head: interim ones are counted and dropped."""
        assert self._parser is not None
        if self._head is not None:
            return
        status = self._parser.get_status_code()
        if status in _INTERIM and status != _SWITCHING_PROTOCOLS:
            self._count_interim()
            return
        self._refuse_large_head()
        self._head = Head(status, self._fields)
        self._head_received = self._received
        self._ends_with_connection = not _announces_end(self._fields)
        if self._bodiless or status == _SWITCHING_PROTOCOLS:
            # Where chunks are announced and not meant, the parser would take for one what follows.
            plain = not any(_is_named(b"transfer-encoding", name) for name, _ in self._fields)
            self._end(keeps=self._bodiless and plain and self._parser.should_keep_alive())
        else:
            self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of body."""
        if self._complete:
            self._keeps = False
            return
        if self._head is None:
            # An interim answer has none.
            self._refuse(_malformed(self._progress))
        self._body.append(body)
        self._body_bytes += len(body)
        self._wake()

    def on_message_begin(self) -> None:
        """Notice an answer behind the answer, which nobody asked for."""
        if self._complete:
            self._keeps = False

    def on_message_complete(self) -> None:
        """Notice the end of an answer, unless it was an interim one."""
        if self._head is not None and not self._complete:
            assert self._parser is not None
            self._end(keeps=self._parser.should_keep_alive())

    def _begin(self, progress: Progress, *, bodiless: bool) -> None:
        self._progress = progress
        self._bodiless = bodiless
        self._head = self._failure = None
        self._fields, self._body = [], []
        self._complete = self._keeps = self._ends_with_connection = False
        self._informational = self._received = self._head_received = self._body_bytes = 0

    def _has_unsent(self) -> bool:
        """Tell whether bytes of the request still wait for the network.

        TLS does not count those that it has made and the network has not taken.
        """
        if self._transport is None:
            return False
        if self._is_tls and not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
            return True
        return self._transport.get_write_buffer_size() > 0

    def _take(self, data: bytes | memoryview) -> bool:
        """Parse a piece; tell whether there is sense in parsing more."""
        parser = self._parser
        if parser is None or self._failure is not None:
            self._keeps = False
            self.abort()
            return False
        self._received += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._keeps = False
            if not self._complete and self._failure is None:
                self._fail(_malformed(self._progress))
        if self._complete:
            self._parser = None
        elif self._failure is None:
            self._look_at_bounds()
        return self._failure is None

    def _look_at_bounds(self) -> None:
        """Refuse an endless head, and a body that is mostly framing; take no more than is read.

        That a body is too large is the reader's to say.
        """
        if self._head is None:
            if self._received > self._options.head_bytes_max:
                self._fail(self._large_head())
            return
        framing = self._received - self._head_received - self._body_bytes
        if framing > self._options.framing_bytes_max:
            self._fail(framing_error())
        elif self._body_bytes > self._options.response_bytes_max:
            self._parser = None
            self.abort()

    def _rest_from_reading(self) -> None:
        """Let a body's reader come first: the event loop brings up to 8 MB of it in one go.

        Not under TLS, where uvloop drops at the other side's end what was not read by then.
        """
        if self._body and not self._complete and not self._is_tls and self.is_open():
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def _count_interim(self) -> None:
        self._fields = []
        self._informational += 1
        limit = self._options.informational_max
        if self._informational > limit:
            self._refuse(protocol_error(f"The target sent more than {limit} interim (1xx) answers"))

    def _refuse_large_head(self) -> None:
        """Refuse a head that is too large though it came in one piece, perhaps with its body."""
        limit = self._options.head_bytes_max
        if self._received <= limit:
            return
        size = sum(len(name) + len(value) + _FIELD_BYTES for name, value in self._fields)
        if size > limit:
            self._refuse(self._large_head())

    def _large_head(self) -> DeliveryError:
        limit = self._options.head_bytes_max
        return protocol_error(f"The answer's head is larger than {limit} bytes")

    def _refuse(self, error: DeliveryError) -> None:
        """Fail, and end the parser's work on what it has."""
        self._fail(error)
        # Not the error, whose traceback would hold this connection and be held by it.
        raise _EnoughError

    def _fail(self, error: DeliveryError) -> None:
        self._failure = error
        self._keeps = False
        self._parser = None
        self.abort()
        self._wake()

    def _end(self, *, keeps: bool) -> None:
        self._complete = True
        self._keeps = keeps
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def _announces_end(fields: RawFields) -> bool:
    """Tell whether a body's length is announced, so that its end is not the connection's.

    As llhttp does: by the last transfer coding, whatever length stands beside it.
    """
    announces = False
    for name, value in fields:
        if _is_named(b"content-length", name):
            announces = True
        elif _is_named(b"transfer-encoding", name):
            announces = value.lower().rstrip().endswith(b"chunked")
    return announces


def _is_named(wanted: bytes, name: bytes) -> bool:
    """Compare a field's name, which may have a space behind it."""
    return len(name) >= len(wanted) and name.rstrip().lower() == wanted


def _malformed(progress: Progress) -> DeliveryError:
    return protocol_error(
        f"{progress.label} answered with something that is not valid HTTP/1.1; "
        "does that port speak HTTP?"
    )
