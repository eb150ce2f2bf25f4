"""Starts the service quickly and often: each one a fork of a process that has imported it.

A start costs a tenth of ``python -m app serve``, whose time goes into imports. The fork is a
process of its own that reads its settings, opens its database and recovers as any other; nothing
of the service has run before the fork.

The other side (``python -m tests.support.nursery``) speaks lines of JSON: an order comes in, the
process id goes out, and the exit code when that process is gone. When its own input ends, so does
what it started.
"""

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn, Self

import httpx

from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.service import ROOT, WAIT_SECONDS, Service, eventually

KILLED = -signal.SIGKILL


class Nursery:
    """Starts one service at a time, while used as a context manager.

    ``environment`` is for the interpreter; settings belong to a service.
    """

    def __init__(self, **environment: str) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            cwd=ROOT, env={**os.environ, **self._environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=WAIT_SECONDS)

    def start(self, order: dict[str, Any]) -> int:
        """Start a service; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Wait until the service is gone; return its exit code, or minus the signal's number."""
        return self._read()

    def has_news(self) -> bool:
        """Tell whether the service is gone."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery ended"
        return int(json.loads(line))


class CrashingService(Service):
    """The service at a home that outlives it; a start may name the point where it dies.

    ``hurries``: on PostgreSQL, what it had claimed when it died is found lost after seconds.
    """

    hurries = True

    def __init__(self, nursery: Nursery, home: Home, **environment: str) -> None:
        super().__init__(home, **environment)
        self._nursery = nursery
        self._pid = 0
        self._alive = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self._alive:
            await self.kill()

    @property
    def pid(self) -> int:
        """Tell the process id."""
        return self._pid

    async def start(self, point: str | None = None) -> None:
        """Start it and wait until it is ready."""
        self.begin(point)
        await eventually(self.is_ready)

    def begin(self, point: str | None = None) -> None:
        """Start it, without waiting."""
        environment = {
            "DATABASE_URL": self.home.url,
            "PORT": str(self.port),
            "MYSCHEDULER_LOG_FORMAT": "json",
            **self._environment,
        }
        order = {
            "environment": environment,
            "log": str(self.log_path),
            "point": point,
            "hurried": self.hurries and self.home.kind is DatabaseKind.POSTGRES,
        }
        self._pid = self._nursery.start(order)
        self._alive = True

    async def ended(self) -> int:
        """Wait until it is gone by itself, and return the exit code."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                code = await asyncio.to_thread(self._nursery.wait)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"it did not die: {self._log_end()}") from None
        finally:
            self._alive = False
        return code

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        assert await self.ended() == KILLED, self._log_end()

    def is_suspended(self) -> bool:
        """Tell whether it has been stopped by SIGSTOP."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] == "T"

    def _log_end(self) -> str:
        return self.log_path.read_text(encoding="utf-8")[-3000:]

    async def is_ready(self) -> bool:
        """Tell whether it is ready; fail if it is gone."""
        if self._nursery.has_news():
            raise AssertionError(f"it ended with {await self.ended()}: {self._log_end()}")
        try:
            return (await self.client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False


def main() -> None:
    """Take orders until the input ends."""
    from tests.support import failpoint  # noqa: F401 - with all that every start would import

    # Its own collections need not look at what it shares.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _serve(order)
        _say(pid)
        code = _watch(pid)
        if code is None:
            return
        _say(code)


def _watch(pid: int) -> int | None:
    """Wait for a process's end; None if nobody is interested any more, and it was killed."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        readable, _, _ = select.select([sys.stdin], [], [], 0.005)
        if readable:
            os.kill(pid, signal.SIGKILL)
            return None


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _serve(order: dict[str, Any]) -> NoReturn:
    """Be the service; nothing of the process that was forked is left to use."""
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = _run(order["point"], order["environment"], hurried=order["hurried"])
    except BaseException:  # noqa: BLE001 - the end of a process: told in its log
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(point: str | None, environment: dict[str, str], *, hurried: bool) -> int:
    from app.core.config import load_settings
    from app.main import serve
    from tests.support import failpoint

    settings = load_settings(environment, env_file=None)
    with failpoint.hurried() if hurried else contextlib.nullcontext():
        return serve(settings) if point is None else failpoint.run(point, settings)


if __name__ == "__main__":
    main()
