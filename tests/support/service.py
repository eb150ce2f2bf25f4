"""The service under test: in this process (``open_api``), or as its own (``Service``)."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import httpx

from app.core.config import Settings
from app.main import create_app, open_service
from tests.support.homes import Home

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 20.0


def settings_for(home: Home, **changes: Any) -> Settings:
    """Make settings that keep everything at ``home`` and depend on nothing else."""
    values: dict[str, Any] = {"database_url": home.url, **changes}
    return Settings(**values)


@contextlib.asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Run the whole service in this process and give a client of its API."""
    async with open_service(settings) as services:
        transport = httpx.ASGITransport(create_app(settings, services), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


async def eventually(
    condition: Callable[[], Any], *, seconds: float = WAIT_SECONDS, every: float = 0.02
) -> Any:
    """Wait until ``condition`` (plain or async) gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not come true within {seconds} s")
        await asyncio.sleep(every)


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """``myscheduler serve`` in a process of its own, at a home that outlives it."""

    def __init__(self, home: Home, **environment: str) -> None:
        self.home = home
        self.folder = home.folder
        self.port = free_port()
        self.log_path = self.folder / "service.log"
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def pid(self) -> int:
        """Tell the process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process and wait until it is ready."""
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.home.url,
            "PORT": str(self.port),
            "MYSCHEDULER_LOG_FORMAT": "json",
            **self._environment,
        }
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app", "serve",
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        await eventually(self._is_ready)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        async with asyncio.timeout(WAIT_SECONDS * 2):
            return await self._process.wait()

    async def kill(self) -> None:
        """End the process at once, as a crash does."""
        await self.stop(signal.SIGKILL)

    def log_lines(self) -> list[dict[str, Any]]:
        """Read the JSON log."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"the service ended: {self.log_path.read_text(encoding='utf-8')}")
        try:
            return (await self.client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False
