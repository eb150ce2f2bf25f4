"""What a client may cost the HTTP server: connections, unread heads and bodies, unread answers.

uvicorn bounds none of them: its one timer is for connections idle between two requests, and one
byte stops it. Here a connection without a request under way has a deadline that bytes do not move,
so that slow senders (slow-loris) end; bodies have theirs in ``api/strict_json.py``. Every refusal
made here is a problem document, then the end of the connection. Built by ``main/serving.py``.
"""

import asyncio
import resource
from dataclasses import dataclass, field, replace
from http import HTTPStatus

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.errors import problem_bytes

log = structlog.get_logger(__name__)

# Enough for every connection and attempt there can be; some systems allow a thousand million.
_FILES_WANTED = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """The bounds of connections; times are seconds."""

    # Open at once. Beyond it the connection goes that has been without a request for longest.
    connections_max: int = 4096
    # From connecting, or from the last answer, until the next head is whole (nginx: 60).
    head_seconds: float = 30
    # Bytes in a row that complete neither a head nor part of a body (uvicorn's own bound for h11).
    head_bytes_max: int = 65_536
    # What still comes after an answer that did not wait for it is thrown away so long (nginx: 5).
    linger_seconds: float = 5
    # An answer that the client does not read is given up after this (nginx: 60).
    stall_seconds: float = 60

    def __post_init__(self) -> None:
        assert self.connections_max > 0
        assert self.head_bytes_max > 0


@dataclass(slots=True)
class Connections:
    """What the connections of one server share."""

    options: ConnectionOptions
    # Those without a request under way, the longest waiting first.
    waiting: dict["BoundedProtocol", None] = field(default_factory=dict)


def fit_to_files(options: ConnectionOptions) -> ConnectionOptions:
    """Raise the process's limit of open files as far as is allowed, and leave half to others.

    Attempts and the database need files too, and must not lose them to clients of the API.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.info("files.limit_raised", before=soft, now=wanted)
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return options
    return replace(options, connections_max=max(1, min(options.connections_max, soft // 2)))


def bounded_protocol(options: ConnectionOptions) -> type[asyncio.Protocol]:
    """Make the protocol class of one server, for ``uvicorn.Config(http=…)``."""
    shared = Connections(options)

    class Protocol(BoundedProtocol):
        connections_shared = shared

    return Protocol


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It waits for a head, has a request under way, or throws away what comes."""

    connections_shared: Connections
    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _discards = False
    # Bytes since the parser last got anywhere.
    _quiet_bytes = 0
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection; when there are too many, the longest waiting one makes room."""
        super().connection_made(transport)
        shared = self.connections_shared
        if len(self.connections) > shared.options.connections_max:
            longest = next(iter(shared.waiting), None)
            if longest is None:
                self._refuse(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "too_many_connections",
                    "All connections are busy; try again in a moment",
                )
                return
            longest.end()
        self._wait(shared.options.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._stop_stalling()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, within bounds; after a refusal, only wait for the end."""
        if self._discards:
            return
        self._unset_keepalive_if_required()
        self._quiet_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse_unreadable()
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        if self._quiet_bytes > self.connections_shared.options.head_bytes_max:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head; what trails a body is not wanted by anything here."""
        if self._in_head:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request, if its head is not too large."""
        lengths = (len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
        if len(self.url) + sum(lengths) > self.connections_shared.options.head_bytes_max:
            self._refuse_head()
            raise ValueError("the head is too large")  # which ends the parser's work on it
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._in_head = False
        self._quiet_bytes = 0
        self._stop_waiting()

    def on_body(self, body: bytes) -> None:
        """Take part of a body."""
        self._quiet_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a body; one that the answer did not wait for may be followed by more."""
        if self.parser.should_upgrade():
            return
        self._quiet_bytes = 0
        super().on_message_complete()
        if self._lingers():
            self.cycle.more_body = False
            self._wait(self.connections_shared.options.head_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one, but not for long."""
        has_next = bool(self.pipeline)
        super().on_response_complete()
        options = self.connections_shared.options
        if self.transport.is_closing():
            self._abort_after(options.linger_seconds)
        elif not has_next:
            self._wait(options.linger_seconds if self._lingers() else options.head_seconds)

    def pause_writing(self) -> None:
        """Give a client that does not read its answer some time."""
        super().pause_writing()
        self._abort_after(self.connections_shared.options.stall_seconds)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_stalling()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, whether or not the client has read all of its answer."""
        super().timeout_keep_alive_handler()
        self._abort_after(self.connections_shared.options.linger_seconds)

    def end(self) -> None:
        """Close the connection, whether or not the client has read all that was written."""
        self._stop_waiting()
        self.transport.close()
        self._abort_after(self.connections_shared.options.linger_seconds)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request anew without its offer to upgrade, which may be ignored (RFC 9110 §7.8).

        Java's client makes it with every first request, and the parser takes the body for the new
        protocol's. CONNECT has no place here.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse_unreadable()
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse_unreadable(self) -> None:
        self._refuse(
            HTTPStatus.BAD_REQUEST,
            "bad_request",
            "The request could not be read; send well-formed JSON over HTTP",
        )

    def _refuse_head(self) -> None:
        bytes_max = self.connections_shared.options.head_bytes_max
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
            f"The request line and headers are too large; at most {bytes_max} bytes are accepted",
        )

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        """Answer with a problem where an answer can stand, and end the connection."""
        if self._discards:
            return
        if self._lingers():
            self.end()
            return
        self._discards = True
        if self._is_answering():
            self.cycle.keep_alive = False
            return
        if self._latest is not None:
            # A body that broke off: the application must not wait for the rest, nor answer.
            self._latest.disconnected = True
            self._latest.message_event.set()
        body = problem_bytes(status, code=code, detail=detail)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # Half of it is closed and the rest read on: a reset would take the answer from the client.
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(self.connections_shared.options.linger_seconds)

    def _is_answering(self) -> bool:
        """Tell whether an answer comes from the application, and a refusal would cut into it."""
        cycle = self._latest
        if cycle is None or cycle.response_complete:
            return False
        return bool(self.pipeline) or cycle.response_started or not cycle.more_body

    def _lingers(self) -> bool:
        """Tell whether the rest of a request that was answered is still to come."""
        cycle = self._latest
        return cycle is not None and cycle.response_complete and cycle.more_body

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The newest request; uvicorn's own type forgets that there is none at first."""
        return self.cycle

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self.connections_shared.waiting[self] = None
        self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _stop_waiting(self) -> None:
        self.connections_shared.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        if self._discards or self._lingers():
            self._stop_waiting()
            self.transport.abort()
        elif self._in_head or self._quiet_bytes:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                "request_timeout",
                "The request did not arrive in time; send it again",
            )
        else:
            self.end()

    def _abort_after(self, seconds: float) -> None:
        self._stop_stalling()
        self._stall = self.loop.call_later(seconds, self.transport.abort)

    def _stop_stalling(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
