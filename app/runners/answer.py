"""An answer, read within limits: sizes counted, text for history, what Retry-After asks.

Nothing here trusts the target: bodies are counted on the wire and decompressed, text is made safe
for UTF-8 and PostgreSQL, JSON is not parsed. May import the domain and httpx; called by
``runners/http.py``.
"""

import zlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

import httpx

from app.runners.failures import too_large_error
from app.runners.http_options import HttpRunnerOptions

_GZIP = zlib.MAX_WBITS | 16
_ZLIB_HEADER_NIBBLE = 8  # RFC 1950 §2.2: the compression method of every zlib stream
_SECONDS_DIGITS_MAX = 10
# A gzip member may be empty: in a megabyte there is room for 52,000, each with an inflater's cost.
_MEMBERS_MAX = 16
_REPLACEMENT = "\ufffd"


class Answer:
    """What has been received of an answer so far; complete once ``read`` has returned.

    Kept outside the reading, so that an attempt that ends early still tells what it got:
    ``status`` (None before a head), ``wire_bytes``, ``excerpt()``.
    """

    def __init__(self, options: HttpRunnerOptions) -> None:
        self.status: int | None = None
        self.wire_bytes = 0
        self._bytes_max = options.response_bytes_max
        self._excerpt_max = options.excerpt_bytes_max
        self._decoder: _Decoder | None = None
        self._encoding = ""
        self._decoded_bytes = 0
        self._kept = bytearray()

    def begin(self, response: httpx.Response) -> None:
        """Take note of a head."""
        self.status = response.status_code
        coding = response.extensions.get("content_encoding")
        if coding is None:
            coding = response.headers.get("content-encoding", "").encode("latin-1", "replace")
        self._encoding = coding.strip().lower().decode("latin-1")
        self._decoder = _decoder(self._encoding)

    def forget(self) -> None:
        """Take back the note of a redirect that is followed: it is not this attempt's answer."""
        self.status = None

    def feed(self, chunk: bytes) -> None:
        """Take a piece of body. Raises ``DeliveryError`` (response_too_large)."""
        self.wire_bytes += len(chunk)
        if self.wire_bytes > self._bytes_max:
            self._take(chunk)
            raise too_large_error(self._bytes_max)
        if self._decoder is not None:
            room = self._bytes_max - self._decoded_bytes
            chunk = self._decoder.decode(chunk, room + 1)
        self._decoded_bytes += len(chunk)
        self._take(chunk)
        if self._decoded_bytes > self._bytes_max:
            raise too_large_error(self._bytes_max)

    def excerpt(self) -> str:
        """Tell the body's beginning as text that UTF-8 and PostgreSQL can store."""
        if self._decoder is not None and self._decoder.failed and not self._kept:
            return f"({self._encoding} body of {self.wire_bytes} bytes, not shown)"
        return _safe_text(bytes(self._kept), self._excerpt_max)

    def _take(self, chunk: bytes) -> None:
        room = self._excerpt_max - len(self._kept)
        if room > 0:
            self._kept += chunk[:room]


class _Decoder(Protocol):
    """Undoes a content coding piece by piece; ``failed`` once it cannot."""

    failed: bool

    def decode(self, chunk: bytes, room: int) -> bytes:
        """Decode at most ``room`` bytes; what does not fit may be forgotten."""
        ...


class _Inflater:
    """gzip and deflate, several gzip members included; rubbish ends the text, not the attempt.

    So does the seventeenth member.
    """

    def __init__(self, *, gzip: bool) -> None:
        self.failed = False
        self._members_left = _MEMBERS_MAX if gzip else 1
        self._inflate = zlib.decompressobj(_GZIP) if gzip else None

    def decode(self, chunk: bytes, room: int) -> bytes:
        decoded = bytearray()
        while chunk and not self.failed and len(decoded) < room:
            if self._inflate is None:
                self._inflate = _deflater(chunk)
            try:
                decoded += self._inflate.decompress(chunk, room - len(decoded))
            except zlib.error:
                self.failed = True
            if not self._inflate.eof:
                break
            chunk = self._inflate.unused_data
            self._inflate = zlib.decompressobj(_GZIP)
            self._members_left -= 1
            self.failed = self.failed or self._members_left == 0
        return bytes(decoded)


class _Unknown:
    """A coding we cannot undo: its bytes are counted on the wire and not shown."""

    def __init__(self) -> None:
        self.failed = True

    def decode(self, chunk: bytes, room: int) -> bytes:  # noqa: ARG002 - the decoder's shape
        return b""


def retry_after(response: httpx.Response, *, now: datetime, cap: timedelta) -> timedelta | None:
    """Tell the wait a target asks for, between zero and ``cap``; None if it asks nothing sane.

    Both forms of RFC 9110 §10.2.3: seconds, or an HTTP date.
    """
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        if len(value) > _SECONDS_DIGITS_MAX:
            return cap
        return min(timedelta(seconds=int(value)), cap)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(timedelta(0), min(until - now, cap))


def status_sentence(status: int) -> str:
    """Say what the target answered, in the standard's words rather than the target's."""
    try:
        return f"The target answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"The target answered {status}"


def _decoder(encoding: str) -> _Decoder | None:
    match encoding:
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Inflater(gzip=True)
        case "deflate":
            return _Inflater(gzip=False)
        case _:
            return _Unknown()


def _deflater(chunk: bytes) -> "zlib._Decompress":
    """Tell zlib streams, which the standard means by deflate, from the raw ones some send."""
    wrapped = chunk[0] & 0x0F == _ZLIB_HEADER_NIBBLE
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _safe_text(raw: bytes, bytes_max: int) -> str:
    text = raw.decode("utf-8", "replace").replace("\x00", _REPLACEMENT)
    encoded = text.encode()
    if len(encoded) <= bytes_max and len(raw) < bytes_max:
        return text
    # Cut: neither half a character nor the growth of replaced bytes goes beyond the cap.
    return encoded[:bytes_max].decode("utf-8", "ignore").removesuffix(_REPLACEMENT)
