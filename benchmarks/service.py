"""The real service as a process of its own, and what all its processes use."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from benchmarks.load import Client, RefusedError
from benchmarks.machine import ROOT, Usage, free_port

# All benchmarks call targets on one host.
DEFAULT_SETTINGS = MappingProxyType({"MYSCHEDULER_HOST_CONCURRENCY": "200"})

_START_SECONDS = 120
_STOP_SECONDS = 90
_POLL_SECONDS = 0.01


class Service:
    """``myscheduler serve`` on a database, with settings by the names of its environment.

    ``settings`` go on top of ``DEFAULT_SETTINGS``; ``module`` is what Python runs. Nothing else of
    this process's environment reaches it. Its log is ``service.log`` in ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        module: str = "app",
    ) -> None:
        self.port = free_port()
        self.database_url = database_url
        # From the start of the process until it was ready.
        self.start_seconds = 0.0
        self._log = folder / "service.log"
        self._command = (sys.executable, "-m", module, "serve")
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            **DEFAULT_SETTINGS,
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Tell the process id."""
        assert self._process is not None
        return self._process.pid

    def usage(self) -> Usage:
        """Tell what the service uses, all its processes together; a database server is not one."""
        return Usage.of(self.pid)

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(_START_SECONDS), Client(self.port) as client:
                while True:
                    if await self._is_ready(client):
                        break
                    await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await self.stop()
            raise
        self.start_seconds = time.perf_counter() - began

    async def stop(self) -> int | None:
        """Ask it to stop, wait for the end and return the exit code (None: it was not started).

        A process that does not end in time is killed, and that is an error.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is not None:
            return process.returncode
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise RuntimeError("the service did not stop") from None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _is_ready(self, client: Client) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(self._log.read_text(encoding="utf-8"))
        try:
            await client.get("/health/ready")
        except (OSError, RefusedError):
            return False
        return True
