"""Requests made ready once per job revision; an attempt adds only what varies.

Header rules: the user's order and spelling are kept; reserved names are never taken from the user
(GUARANTEES §3 Egress 6); for all other headers we add, a user's own of the same name wins. May
import the domain and httpx; called by ``runners/http.py``.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import quote

import httpx

from app.domain.execution import Attempt
from app.domain.ids import JobId
from app.domain.job import HttpTarget
from app.runners.address import Address, parse_address
from app.runners.failures import DeliveryError, Progress, config_error
from app.runners.http_options import HttpRunnerOptions
from app.runners.payload import content_type, encode_body

RESERVED_HEADERS = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"te",
        b"trailer",
    }
)
_RESERVED_PREFIX = b"webhook-"
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 §5.5
# What a user's header is called when it proves who calls; such headers stay with their origin.
_SENSITIVE = re.compile(rb"auth|cookie|token|secret|key|password|signature|credential")
_OURS = frozenset({b"idempotency-key"})
_VISIBLE_BUT_PERCENT = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "%")
_PLAIN = re.compile(r"[!-$&-~]*")
_SPANS = 2**64

RawHeader = tuple[bytes, bytes]


class PreparedRequest(NamedTuple):
    """All of a request that does not vary between attempts.

    ``headers`` are ready to send, and ``head`` is their bytes, the request line first; ``own``
    holds the lower-case names the user set, so that what an attempt adds gives way to them.
    """

    method: str
    address: Address
    headers: tuple[RawHeader, ...]
    head: bytes
    own: frozenset[bytes]
    body: bytes | None
    stream: httpx.ByteStream

    def request(self, varying: list[RawHeader], progress: Progress) -> "AttemptRequest":
        """Make the request of one attempt; the transport reports where it is in ``progress``."""
        return AttemptRequest(self, varying, progress)

    def redirected(self, address: Address, *, as_get: bool) -> "PreparedRequest":
        """Aim at where a redirect points; secrets and the body do not cross origins."""
        crossing = address.origin != self.address.origin
        bodiless = as_get or crossing
        method = "GET" if as_get else self.method
        dropped = {b"host"} | ({b"content-type", b"content-length"} if bodiless else set())
        headers = [(b"Host", address.origin.host_header)]
        headers += [
            (name, value)
            for name, value in self.headers
            if name.lower() not in dropped and not (crossing and _is_sensitive(name.lower()))
        ]
        if bodiless and method in _BODY_METHODS:
            headers.append((b"Content-Length", b"0"))
        return self._replace(
            method=method,
            address=address,
            headers=tuple(headers),
            head=_head(method, address, headers),
            body=None if bodiless else self.body,
            stream=httpx.ByteStream(b"") if bodiless else self.stream,
        )


class AttemptRequest(httpx.Request):
    """One attempt's request, made of what is prepared; ``wire`` is all of its bytes.

    httpx's view of the headers is made for a transport that asks for it: copying and normalising
    them takes as long as sending.
    """

    def __init__(
        self, prepared: PreparedRequest, varying: list[RawHeader], progress: Progress
    ) -> None:
        # httpx's own constructor is left out: it is what takes that long.
        self.method = prepared.method
        self.url = prepared.address.origin.url
        self.stream = prepared.stream
        self.extensions = {"target": prepared.address.target, "progress": progress}
        self._prepared = prepared
        self._varying = varying

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there
        """The headers as httpx knows them."""
        return httpx.Headers([*self._prepared.headers, *self._varying])

    @property
    def wire(self) -> bytes:
        """Tell the request's bytes for HTTP/1.1."""
        body = self._prepared.body or b""
        return b"%b%b\r\n%b" % (self._prepared.head, _lines(self._varying), body)


def prepare(target: HttpTarget, job_id: JobId, options: HttpRunnerOptions) -> PreparedRequest:
    """Build what does not vary. Raises ``DeliveryError`` (config_error)."""
    address = parse_address(target.url)
    method = target.method.upper()
    if not _TOKEN.fullmatch(method):
        raise config_error("The method is not a valid HTTP method")
    users = _users_headers(target, options) if target.headers else []
    own = frozenset([name.lower() for name, _ in users])
    body = None
    if method in _BODY_METHODS and target.body_json is not None:
        body = encode_body(target.body_json, target.body_type)
    ours: list[RawHeader] = [
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", _user_agent(options.version)),
        (b"X-Scheduler-Job-Id", header_text(job_id)),
    ]
    if body is not None:
        ours.append((b"Content-Type", content_type(target.body_type)))
    if own:
        ours = [(name, value) for name, value in ours if name.lower() not in own]
    headers = [(b"Host", address.origin.host_header), *users, *ours]
    if method in _BODY_METHODS:
        headers.append((b"Content-Length", b"%d" % len(body or b"")))
    return PreparedRequest(
        method=method,
        address=address,
        headers=tuple(headers),
        head=_head(method, address, headers),
        own=own,
        body=body,
        stream=httpx.ByteStream(body or b""),
    )


def varying_headers(attempt: Attempt, own: frozenset[bytes]) -> list[RawHeader]:
    """Make the headers that name this attempt; a user's own of the same name wins."""
    identity = header_text(attempt.execution_id)
    scheduled = attempt.scheduled_for.isoformat().replace("+00:00", "Z")
    headers: list[RawHeader] = [
        (b"webhook-id", identity),
        (b"webhook-timestamp", b"%d" % int(attempt.started_at.timestamp())),
        (b"Idempotency-Key", identity),
        (b"traceparent", traceparent(attempt)),
        (b"X-Scheduler-Scheduled-At", scheduled.encode("ascii")),
        (b"X-Scheduler-Attempt", b"%d" % attempt.number),
    ]
    if own:
        return [(name, value) for name, value in headers if name.lower() not in own]
    return headers


def traceparent(attempt: Attempt) -> bytes:
    """Derive the trace context (W3C, version 00): one trace per execution, a span per attempt."""
    identity = attempt.execution_id.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(identity).digest()
    # Attempts count from 1, and no two of them share a span; all zeros would mean none.
    first = int.from_bytes(digest[16:24], "big")
    span = (first + attempt.number) % _SPANS or _SPANS - 1
    return b"00-%b-%016x-01" % (digest[:16].hex().encode("ascii"), span)


def header_text(text: str) -> bytes:
    """Write any text as a header value: UTF-8, percent-encoded but for visible ASCII.

    ``urllib.parse.unquote`` gives the text back, since a percent sign is encoded too.
    """
    if _PLAIN.fullmatch(text):
        return text.encode("ascii")
    return quote(text, safe=_VISIBLE_BUT_PERCENT, errors="replace").encode("ascii")


class RequestCache:
    """Prepared requests, and the reasons why one cannot be prepared, of recent job revisions.

    Bounded; the least recently used goes. An entry is used only for an equal target, so a revision
    that resolves to another target (a changed secret) is prepared anew.
    """

    def __init__(self, options: HttpRunnerOptions) -> None:
        self._options = options
        self._entries: OrderedDict[
            tuple[JobId, int], tuple[HttpTarget, PreparedRequest | DeliveryError]
        ] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, attempt: Attempt) -> PreparedRequest:
        """Tell the prepared request of an attempt. Raises ``DeliveryError`` (config_error)."""
        key = (attempt.job_id, attempt.job_revision)
        entry = self._entries.get(key)
        if entry is None or entry[0] != attempt.target:
            entry = (attempt.target, self._prepared(attempt))
            self._entries[key] = entry
            if len(self._entries) > self._options.prepared_max:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        if isinstance(entry[1], DeliveryError):
            raise config_error(str(entry[1]))
        return entry[1]

    def _prepared(self, attempt: Attempt) -> PreparedRequest | DeliveryError:
        try:
            return prepare(attempt.target, attempt.job_id, self._options)
        except DeliveryError as error:
            return error


@lru_cache(maxsize=4)
def _user_agent(version: str) -> bytes:
    return f"MyScheduler/{version}".encode("ascii")


def _head(method: str, address: Address, headers: Sequence[RawHeader]) -> bytes:
    line = b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), address.target)
    return line + _lines(headers)


def _lines(headers: Sequence[RawHeader]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in headers])


def _users_headers(target: HttpTarget, options: HttpRunnerOptions) -> list[RawHeader]:
    if len(target.headers) > options.headers_max:
        raise config_error(f"The job has more than {options.headers_max} headers")
    encoded: list[RawHeader] = []
    for name, value in target.headers:
        if not _TOKEN.fullmatch(name):
            raise config_error("A header's name is not valid; use letters, digits and hyphens")
        if _VALUE_FORBIDDEN.search(value):
            raise config_error(f"The value of header {name} contains control characters")
        try:
            encoded.append((name.encode("ascii"), value.strip(" \t").encode()))
        except UnicodeEncodeError as error:
            raise config_error(f"The value of header {name} cannot be sent as UTF-8") from error
    if sum(len(name) + len(value) for name, value in encoded) > options.header_bytes_max:
        raise config_error(f"The job's headers exceed {options.header_bytes_max} bytes")
    return [(name, value) for name, value in encoded if not _is_reserved(name.lower())]


def _is_reserved(name: bytes) -> bool:
    return name in RESERVED_HEADERS or name.startswith(_RESERVED_PREFIX)


def _is_sensitive(name: bytes) -> bool:
    return name not in _OURS and _SENSITIVE.search(name) is not None
