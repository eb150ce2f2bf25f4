"""`make run`, as the README prints it, in a folder where nothing is set up."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.service import ROOT, eventually, free_port

# What the surrounding `make test` and `uv run` left in the environment is not a newcomer's.
FOREIGN = ("MAKE", "MFLAGS", "UV", "VIRTUAL_ENV", "PYTEST", "COV", "PYTHONPATH")
SET_UP_SECONDS = 90.0


def copy_tree(target: Path) -> None:
    """Copy what a clone would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


@pytest.mark.slow
async def test_make_run_sets_everything_up_and_serves(tmp_path: Path):
    """In a fresh copy `make run` installs, serves, keeps data/jobs.db, and Ctrl+C stops it."""
    copy_tree(tmp_path)
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    log = tmp_path / "make.log"
    with log.open("wb") as output:
        make = await asyncio.create_subprocess_exec(
            *("make", "run"),
            cwd=tmp_path,
            env={**kept, "PORT": str(port)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def answer():
                assert make.returncode is None, log.read_text()
                try:
                    return await client.get("/health")
                except httpx.TransportError:
                    return None

            health = await eventually(answer, seconds=SET_UP_SECONDS)
        assert health.json()["message"] == "MyScheduler API is running"
        assert (tmp_path / "data" / "jobs.db").is_file()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGINT)  # what Ctrl+C does to all in a terminal
        async with asyncio.timeout(20):
            await make.wait()
    await eventually(lambda: '"event":"scheduler.stopped"' in log.read_text())
