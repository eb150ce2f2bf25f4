"""Options of HTTP delivery are checked when made."""

from datetime import timedelta

import pytest

from app import __version__
from app.runners.http_options import HttpRunnerOptions


def test_defaults():
    """The defaults are those the guarantees name."""
    options = HttpRunnerOptions()
    assert options.version == __version__
    assert (options.response_bytes_max, options.excerpt_bytes_max) == (2**20, 2**16)
    assert (options.head_bytes_max, options.informational_max) == (2**16, 10)
    assert options.trust_env_proxy is False
    assert options.redirects_max == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "1 2"},
        {"version": "1\n"},
        {"version": "版"},
        {"response_bytes_max": 0},
        {"head_bytes_max": 0},
        {"dns_threads_max": 0},
        {"prepared_max": 0},
        {"redirects_max": -1},
        {"connections_max": -1},
        {"keepalive": timedelta(seconds=-1)},
        {"retry_after_max": timedelta(seconds=-1)},
        {"response_bytes_max": 10, "excerpt_bytes_max": 11},
    ],
)
def test_nonsense(wrong):
    """A value that cannot work is refused by name."""
    with pytest.raises(ValueError, match=next(reversed(wrong))):
        HttpRunnerOptions(**wrong)
