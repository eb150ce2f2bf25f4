"""A start without a database: it ends soon, with a sentence that says what to correct."""

import socket
import time
from pathlib import Path

import pytest

from tests.e2e.world import run_python

# A connection has three seconds; the rest is the start of a process on a busy machine.
ENDS_WITHIN = 15.0


@pytest.mark.slow
async def test_a_server_that_never_answers(tmp_path: Path):
    """A start against an address that takes connections and says nothing ends with a sentence."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        port = hole.getsockname()[1]
        clock = time.monotonic()
        code, out, err = await run_python(
            tmp_path, "-m", "app", "serve",
            DATABASE_URL=f"postgresql://me:hunter2@127.0.0.1:{port}/jobs",
        )  # fmt: skip
    assert time.monotonic() - clock < ENDS_WITHIN
    assert code == 1
    assert (
        f"PostgreSQL cannot be reached at 127.0.0.1 port {port} (it did not answer in time); "
        "check DATABASE_URL, and that the server runs and takes connections from here"
    ) in out + err
    assert "hunter2" not in out + err


async def test_an_address_without_a_server(tmp_path: Path):
    """A start where nothing listens says where that was, and why it failed."""
    code, out, err = await run_python(
        tmp_path, "-m", "app", "serve", DATABASE_URL="postgresql:///jobs?host=/nowhere"
    )
    assert code == 1
    assert "PostgreSQL cannot be reached at /nowhere (" in out + err
