"""How a delivery fails: where it was, which kind it is, and the sentence a person can act on.

Transports raise ``DeliveryError``; the HTTP runner makes an outcome of it. Sentences name hosts and
ports, never header values, queries or credentials. May import the domain and httpx.
"""

import errno
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

import httpx

from app.domain.execution import AttemptOutcome, Reason


class Phase(StrEnum):
    """What an attempt was doing, in words that complete "… while"."""

    QUEUED = "waiting for a free connection"
    RESOLVING = "looking up the host name"
    CONNECTING = "connecting"
    HANDSHAKE = "in the TLS handshake"
    SENDING = "sending the request"
    WAITING = "waiting for the first byte of the answer"
    RECEIVING = "receiving the answer"


@dataclass(slots=True)
class Progress:
    """Where one attempt is; written by the transport, read when the deadline strikes.

    It travels to the transport in ``request.extensions["progress"]``. ``label`` is ``host:port``.
    """

    label: str = ""
    phase: Phase = Phase.QUEUED


class DeliveryError(httpx.TransportError):
    """An attempt got no complete answer; ``str(error)`` is the sentence for people."""

    def __init__(self, sentence: str, *, kind: AttemptOutcome, reason: Reason) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.reason = reason

    def again(self) -> "DeliveryError":
        """Make one to raise that says the same; one that is kept would keep a traceback."""
        return DeliveryError(str(self), kind=self.kind, reason=self.reason)


def config_error(sentence: str) -> DeliveryError:
    """Tell that the request cannot be built from the job; nothing was sent."""
    return DeliveryError(sentence, kind=AttemptOutcome.BLOCKED, reason=Reason.CONFIG_ERROR)


def egress_error(host: str, why: str) -> DeliveryError:
    """Tell that the egress policy forbids the address; nothing was sent."""
    return DeliveryError(
        f"The egress policy does not allow calling {host}: {why}; "
        "ask the operator to allow it, or change the URL",
        kind=AttemptOutcome.BLOCKED,
        reason=Reason.EGRESS_DENIED,
    )


def protocol_error(sentence: str) -> DeliveryError:
    """Tell that the peer broke HTTP; the request may have been processed."""
    return DeliveryError(sentence, kind=AttemptOutcome.PROTOCOL_ERROR, reason=Reason.PROTOCOL)


def too_large_error(limit_bytes: int) -> DeliveryError:
    """Tell that the answer's body exceeds what is read."""
    return DeliveryError(
        f"The answer's body is larger than {limit_bytes} bytes; the rest was not read. "
        "Let the endpoint answer briefly",
        kind=AttemptOutcome.TOO_LARGE,
        reason=Reason.RESPONSE_TOO_LARGE,
    )


def framing_error() -> DeliveryError:
    """Tell that an answer's body costs more to take apart than to read."""
    return protocol_error(
        "The answer's body is cut into too many small chunks; let the endpoint write larger pieces"
    )


def timeout_error(progress: Progress, seconds: float) -> DeliveryError:
    """Tell that the attempt's total time ran out, and where."""
    where = f" ({progress.label})" if progress.label else ""
    return DeliveryError(
        f"The attempt did not end within its timeout of {seconds:g} s; it ended while "
        f"{progress.phase}{where}",
        kind=AttemptOutcome.TIMEOUT,
        reason=Reason.TIMEOUT,
    )


def dropped_error(label: str, cause: BaseException | None = None) -> DeliveryError:
    """Tell that the connection ended after the request was sent and before an answer came."""
    how = "reset" if isinstance(cause, ConnectionResetError | BrokenPipeError) else "closed"
    return protocol_error(
        f"{label} {how} the connection without answering; "
        "the request was sent and may have been processed"
    )


def truncated_error(label: str) -> DeliveryError:
    """Tell that a body ended before its announced length."""
    return protocol_error(
        f"{label} ended the answer's body early: fewer bytes arrived than were announced"
    )


def dns_error(host: str, cause: BaseException) -> DeliveryError:
    """Tell that the name has no address."""
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
        why = "the name server gave no answer; check this machine's DNS"
    else:
        why = "the name does not exist or has no address; check its spelling"
    return _connect(f"The host name {host} could not be resolved: {why}", Reason.DNS)


def connect_error(label: str, cause: BaseException) -> DeliveryError:
    """Tell that no connection came about; nothing was sent."""
    number = cause.errno if isinstance(cause, OSError) else None
    match number:
        case errno.ECONNREFUSED:
            why = "was refused: nothing listens on that port, or a firewall rejects it"
        case errno.EHOSTUNREACH | errno.ENETUNREACH | errno.EADDRNOTAVAIL:
            why = "failed: the network has no route there"
        case errno.ECONNRESET | errno.ECONNABORTED | errno.EPIPE:
            why = "was reset by the other side while connecting"
        case errno.EMFILE | errno.ENFILE:
            why = "failed: this machine has no free file descriptors"
        case _ if isinstance(cause, TimeoutError):
            why = "got no answer: the address is down, or a firewall drops packets"
        case _:
            why = "failed"
    return _connect(f"The connection to {label} {why}", Reason.CONNECT)


def unsent_error(what: str) -> DeliveryError:
    """Tell that a connection was of no use; nothing was sent."""
    return _connect(f"{what}; nothing was sent", Reason.CONNECT)


# Which of the two it is depends on the version of OpenSSL.
_CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


def tls_error(label: str, cause: BaseException) -> DeliveryError:
    """Tell why no secure connection came about; nothing was sent."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate was not accepted: {cause.verify_message}"
    elif isinstance(cause, ssl.SSLError) and not isinstance(cause, _CLOSED):
        detail = (getattr(cause, "reason", None) or "unknown error").replace("_", " ").lower()
        why = f"the handshake failed ({detail}); does that port speak TLS?"
    else:
        why = "the connection was closed during the handshake"
    return _connect(f"No secure connection to {label}: {why}", Reason.TLS)


def _connect(sentence: str, reason: Reason) -> DeliveryError:
    return DeliveryError(sentence, kind=AttemptOutcome.CONNECT_ERROR, reason=reason)
