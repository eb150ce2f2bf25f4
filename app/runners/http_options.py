"""What can be set about HTTP delivery, with the reason for each default."""

from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum

from app import __version__


class TransportKind(StrEnum):
    """Which code carries the bytes."""

    DIRECT = "direct"  # our own; a tenth of the CPU
    HTTPX = "httpx"  # httpx's own; the fallback


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRunnerOptions:
    """Limits and habits of HTTP delivery; a nonsensical value is a ``ValueError``.

    ``version``: what follows ``MyScheduler/`` in User-Agent; default this program's.
    ``response_bytes_max``: body bytes read, on the wire and decompressed each; default 1 MiB, more
    is a failure, because a webhook's answer is a receipt.
    ``excerpt_bytes_max``: bytes of body text kept for history; default 64 KiB.
    ``head_bytes_max``: bytes from the first to the end of the final head, informational answers
    included; default 64 KiB, four times what common servers send at most.
    ``head_fields_max``: header fields of an answer; default 128.
    ``framing_bytes_max``: bytes of an answer's chunked framing; default 64 KiB, which a body of
    1 MiB in chunks of 112 bytes stays below; a million chunks of one byte would cost a second of
    CPU. The httpx transport counts pieces of body, at five bytes each.
    ``informational_max``: 1xx answers before the final one; default 10; real servers send one.
    ``connections_max``: connections in use at once, beside those at rest; default 1,024, above the
    dispatcher's cap of runs, so that no run waits here; 0 is unlimited.
    ``connections_kept_max``: beyond this many open connections none is kept after its answer;
    default 512, for the sake of file descriptors.
    ``keepalive``: how long an idle connection is kept; default 1.5 s, below the 2 s after which
    gunicorn closes its own and the 5 s of Node.js and uvicorn, so that we seldom write into a
    connection being closed. The httpx transport keeps none.
    ``candidate_wait``: how long one of several addresses may take to connect before the next is
    tried; default 1 s, the wait before a lost SYN is sent again. The last one gets the rest.
    ``dns_ttl``: how long a name's addresses are remembered; default 5 s; they are judged anew at
    every connection. 0 asks every time.
    ``dns_threads_max``: simultaneous look-ups, and as many again of slow names, which thus delay no
    others; default 128, more than the names that are likely to turn slow at once.
    ``dns_slow``: a name is slow whose last look-up took longer; default 1 s.
    ``redirects_max``: hops followed where a job asks for it; default 5.
    ``retry_after_max``: upper bound of what a target may ask for; default 1 h.
    ``headers_max`` and ``header_bytes_max``: a job's own headers; default 64 and 16 KiB.
    ``prepared_max``: job revisions whose requests are kept ready, about 2 KiB each; default 1,024.
    Making one takes 6 µs.
    ``trust_env_proxy``: obey HTTP_PROXY, HTTPS_PROXY and NO_PROXY; default no. The proxy then
    decides what may be called, not the egress policy.
    """

    version: str = __version__
    response_bytes_max: int = 1024 * 1024
    excerpt_bytes_max: int = 64 * 1024
    head_bytes_max: int = 64 * 1024
    head_fields_max: int = 128
    framing_bytes_max: int = 64 * 1024
    informational_max: int = 10
    connections_max: int = 1024
    connections_kept_max: int = 512
    keepalive: timedelta = timedelta(seconds=1.5)
    candidate_wait: timedelta = timedelta(seconds=1)
    dns_ttl: timedelta = timedelta(seconds=5)
    dns_threads_max: int = 128
    dns_slow: timedelta = timedelta(seconds=1)
    redirects_max: int = 5
    retry_after_max: timedelta = timedelta(hours=1)
    headers_max: int = 64
    header_bytes_max: int = 16 * 1024
    prepared_max: int = 1024
    trust_env_proxy: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.version.isascii() or not self.version.isprintable() or " " in self.version:
            raise ValueError("version must be printable ASCII without spaces")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, timedelta) and value < timedelta(0):
                raise ValueError(f"{field.name} must not be negative")
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{field.name} must not be negative")
        if self.excerpt_bytes_max > self.response_bytes_max:
            raise ValueError("excerpt_bytes_max must not exceed response_bytes_max")


_AT_LEAST_ONE = (
    "response_bytes_max",
    "head_bytes_max",
    "head_fields_max",
    "framing_bytes_max",
    "connections_kept_max",
    "dns_threads_max",
    "headers_max",
    "header_bytes_max",
    "prepared_max",
)
