"""Ways to start the service, and starts that are refused."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.world import create, run_python, soon, wait_for_end
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import ROOT, WAIT_SECONDS, Service, eventually, free_port


def files_in(folder: Path) -> list[Path]:
    """List what a folder holds."""
    return list(folder.iterdir())


@pytest.mark.only_on(DatabaseKind.SQLITE, because="processes share PostgreSQL: see test_replicas")
async def test_a_second_process_is_refused(home: Home):
    """A second process on the same data ends with 1, naming the first, which is not harmed."""
    async with RawServer((reply(),)) as target, Service(home) as service:
        code, out, err = await run_python(
            home.folder, "-m", "app", "serve", DATABASE_URL=home.url, PORT=str(free_port())
        )
        assert (code, out) == (1, "")
        named = re.fullmatch(
            r"Another MyScheduler process uses (.+): process (\d+) on (.+), since (\S+)\. "
            r"Stop it first, or give this one a database of its own by DATABASE_URL\n",
            err,
        )
        assert named is not None, err
        folder, pid, host, since = named.groups()
        assert (folder, int(pid)) == (str(home.file.parent), service.pid)
        assert host == socket.gethostname()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", since)

        assert (await service.client.get("/health/ready")).status_code == 200
        await create(
            service.client, "on", target.url("/on"), schedule_type="date", run_at=soon(0.2)
        )
        assert (await wait_for_end(service.client, "on"))["status"] == "completed"


async def test_a_kill_frees_the_data(home: Home):
    """The data of a process that was killed can be opened at once."""
    async with Service(home) as service:
        first = service.pid
        await service.kill()
        await service.start()
        assert service.pid != first


async def test_uvicorn_serves_the_app(home: Home):
    """`uvicorn app.main:app` is a way to start it: jobs run, and a stop is in order."""
    port = free_port()
    async with (
        RawServer((reply("hello"),)) as target,
        _uvicorn(home.folder, port, DATABASE_URL=home.url) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        await eventually(lambda: _answers(client, process))
        await create(client, "on", target.url("/on"), schedule_type="date", run_at=soon(0.2))
        assert (await wait_for_end(client, "on"))["result"]["response_body"] == "hello"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            # uvicorn's own command ends by the signal once the application is closed.
            assert await process.wait() in {0, -signal.SIGTERM}
    assert "scheduler.stopped" in (home.folder / "log").read_text(encoding="utf-8")


@contextlib.asynccontextmanager
async def _uvicorn(
    folder: Path, port: int, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port),
            cwd=folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _answers(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


WRONG = {
    "DATABASE_URL": "mysql://user:hunter2@host/data",
    "PORT": "eighty",
    "TIMEZONE": "Asia/Tokio",
    "MYSCHEDULER_CONCURENCY": "1",
}
PROBLEMS = [
    "MYSCHEDULER_CONCURENCY is not a setting; did you mean MYSCHEDULER_CONCURRENCY?",
    (
        "DATABASE_URL begins with mysql://, which is not supported; use "
        "sqlite:///path/to/jobs.db or postgresql://user:password@host:5432/database"
    ),
    "TIMEZONE is 'Asia/Tokio', which is not an IANA time zone; did you mean Asia/Tokyo?",
    "PORT is 'eighty'; it must be a whole number from 0 to 65535",
]


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_wrong_configuration_is_refused(tmp_path: Path, command: str):
    """All problems are listed at once, the exit code is 2, and nothing is made."""
    code, out, err = await run_python(tmp_path, "-m", "app", command, **WRONG)

    heading, *lines = err.splitlines()
    assert (code, out) == (2, "")
    assert heading == "The configuration has 4 problems:"
    assert sorted(lines) == sorted(f"  - {problem}" for problem in PROBLEMS)
    assert files_in(tmp_path) == []


async def test_uvicorn_refuses_a_wrong_configuration(tmp_path: Path):
    """`uvicorn app.main:app` lists the same problems and ends with the same code."""
    code, _, err = await run_python(tmp_path, "-m", "uvicorn", "app.main:app", **WRONG)

    assert code == 2
    assert sorted(err.splitlines()) == sorted(PROBLEMS)


async def test_an_absent_postgresql_is_told_in_words(tmp_path: Path):
    """A PostgreSQL that cannot be reached ends the start by a sentence, with code 1."""
    url = "postgresql://user:hunter2@localhost:1/jobs"
    code, out, err = await run_python(tmp_path, "-m", "app", "serve", DATABASE_URL=url)

    assert (code, out) == (1, "")
    assert err.startswith("PostgreSQL cannot be reached at localhost port 1 (")
    assert "hunter2" not in err


async def test_a_role_needs_replicas(tmp_path: Path):
    """A role other than all is refused on an SQLite file, where one process does everything."""
    code, out, err = await run_python(tmp_path, "-m", "app", "serve", MYSCHEDULER_ROLE="worker")

    assert (code, out) == (1, "")
    assert err.startswith("MYSCHEDULER_ROLE divides the work among replicas on PostgreSQL; ")


async def test_a_port_in_use_is_refused_in_words(home: Home):
    """A port that another process listens on is refused before anything is opened, with code 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = await run_python(
            home.folder, "-m", "app", "serve", DATABASE_URL=home.url, PORT=str(port)
        )
    assert (code, out) == (1, "")
    assert err == (
        f"The service cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "stop what listens there, or choose another address by HOST and PORT\n"
    )
    assert not (home.folder / "data").exists()
