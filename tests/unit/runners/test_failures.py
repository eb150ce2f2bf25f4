"""Network errors become sentences a person can act on."""

import errno
import ssl

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.runners.failures import Phase, Progress, connect_error, timeout_error, tls_error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "refused"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route"),
        (OSError(errno.ENETUNREACH, "x"), "no route"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "reset by the other side while connecting"),
        (OSError(errno.EMFILE, "x"), "no free file descriptors"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "got no answer"),
        (TimeoutError(), "got no answer"),
        (OSError("x"), "failed"),
        (RuntimeError("x"), "failed"),
    ],
)
def test_connect(cause, words):
    """Each way not to connect has its sentence, with host and port."""
    error = connect_error("h:1", cause)
    assert (error.kind, error.reason) == (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT)
    assert "h:1" in str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionResetError(), "closed during the handshake"),
        (ssl.SSLEOFError(), "closed during the handshake"),
        (ssl.SSLError(), "unknown error"),
    ],
)
def test_tls(cause, words):
    """Each way not to agree on TLS has its sentence."""
    error = tls_error("h:1", cause)
    assert error.reason is Reason.TLS
    assert words in str(error)


@pytest.mark.parametrize("phase", list(Phase))
def test_timeout(phase):
    """A timeout names its seconds, its phase and the host."""
    sentence = str(timeout_error(Progress("h:1", phase), 1.50))
    assert "1.5 s" in sentence
    assert phase in sentence
    assert "h:1" in sentence


def test_timeout_before_a_host_is_known():
    """A timeout without a host leaves it out."""
    assert "()" not in str(timeout_error(Progress(), 1))


@pytest.mark.parametrize("error", [ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError])
def test_a_connection_closed_in_the_handshake_is_told_as_such(error):
    """However this OpenSSL reports a hang-up in the handshake, the sentence is the same."""
    told = str(tls_error("h:443", error(1, "closed")))
    assert "the connection was closed during the handshake" in told
