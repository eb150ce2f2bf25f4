"""The databases that contenders share: a durable PostgreSQL, and Redis as its makers advise."""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Self

from benchmarks.installed import Installed
from tests.support.databases import PostgresServer

_START_SECONDS = 20
_POLL_SECONDS = 0.02


class DurablePostgres(PostgresServer):
    """A server whose commits reach the disk, as in production."""

    fsync = True

    @property
    def url(self) -> str:
        """Name the database in which others are made."""
        return self.url_of("postgres")

    def version(self) -> str:
        """Tell its version."""
        said = subprocess.run(
            [self._binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        return said.stdout.strip()

    @property
    def pid(self) -> int:
        """Tell the id of its first process, whose children the others are."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])


class Redis:
    """A Redis that keeps its jobs: append-only file, flushed each second, nothing evicted.

    That loses up to a second of jobs in a power cut, which the others here do not; waiting for the
    disk at each command (``appendfsync always``) is what nobody runs BullMQ or Celery with.
    """

    def __init__(self, installed: Installed, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self._installed = installed
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Tell its process id."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._installed.program("redis-server"), *options,
                env=self._installed.environment(), stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(_START_SECONDS):
            while not self.socket.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(_POLL_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
