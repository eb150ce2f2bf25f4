"""The program as a process of its own: of any version's sources, in any network namespace."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import httpx

from tests.support.service import ROOT, WAIT_SECONDS, eventually, free_port


class Program:
    """The service on a PostgreSQL database; killed at the end of its block.

    ``command`` is how it is started; ``sources`` is the folder that holds ``app``; ``within`` are
    words before it all; ``host`` is where it listens.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        command: Iterable[str] = ("serve",),
        sources: Path = ROOT,
        within: Iterable[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.port = free_port()
        self.log_path = folder / "service.log"
        self.sources = sources
        self._command = (*within, sys.executable, "-m", "app", *command)
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": url,
            "HOST": host,
            "PORT": str(self.port),
            "MYSCHEDULER_LOG_FORMAT": "json",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        folder.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.AsyncClient(base_url=f"http://{host}:{self.port}", timeout=10)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self._process is not None and self._process.poll() is None:
            await self.stop(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Tell the process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.begin()
        await eventually(self.is_ready, seconds=3 * WAIT_SECONDS)

    def begin(self) -> None:
        """Start it, without waiting."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.sources, env=self._environment, stdout=log, stderr=log
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and return the exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, 2 * WAIT_SECONDS)

    async def is_ready(self) -> bool:
        """Tell whether it is ready; fail if it is gone."""
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        with contextlib.suppress(httpx.TransportError):
            return (await self.client.get("/health/ready")).status_code == 200
        return False

    def log_text(self) -> str:
        """Read what it wrote."""
        return self.log_path.read_text(encoding="utf-8")

    def told(self, event: str) -> int:
        """Count an event in the log."""
        return self.log_text().count(f'"{event}"')
