"""The queues that carry schedules, BullMQ and Celery, each in the best setting found for it here.

Jobs live in Redis; each run's row goes into a table of a PostgreSQL database.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import sqlalchemy as sa

from benchmarks.contenders import (
    REHEARSAL,
    Contender,
    Ground,
    Rows,
    Wish,
    never_due,
    read_rows,
    reading,
)
from benchmarks.database import Database, fresh_database
from benchmarks.stores import DurablePostgres, Redis

# BullMQ, in each process: jobs at once, and connections for their rows.
_BULLMQ = {"CONCURRENCY": "50", "ROW_CONNECTIONS": "20"}
# Celery: processes of its worker.
_CELERY = ("--pool", "prefork", "--concurrency", "4")
_FOREIGN = Path(__file__).parent / "baselines" / "foreign"

_BEAT_ENTRY_SECONDS = 0.001
_READY_SECONDS = 60
_STOP_SECONDS = 30
_POLL_SECONDS = 0.05
_ROWS = "SELECT count(*), max(finished_ms) / 1e3 FROM runs"
_TABLE = (
    "CREATE TABLE runs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,"
    " scheduled_ms bigint NOT NULL, started_ms bigint NOT NULL, finished_ms bigint NOT NULL,"
    " status integer NOT NULL)"
)


class Crew:
    """The processes of a rival, its stores, and the environment that names them."""

    def __init__(
        self, ground: Ground, *, cwd: Path, redis: Redis, url: str, database: Database
    ) -> None:
        self.folder = ground.folder
        self._cwd = cwd
        self._postgres: DurablePostgres = ground.postgres
        self._redis = redis
        self._database = database
        self._environment = {
            "PATH": os.environ["PATH"],
            "REDIS_SOCKET": str(redis.socket),
            "TARGET": ground.url_prefix,
            "DATABASE_URL": url,
            "PGHOST": str(ground.postgres.folder),
            "PGUSER": "postgres",
            "PGDATABASE": sa.make_url(url).database or "",
        }
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, *command: str | Path, ready: str, **settings: str) -> None:
        """Start a process and wait until it says that it is ready."""
        log = self.folder / f"rival-{len(self._running)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self._cwd, env=self._environment | settings,
                stdout=output, stderr=output,
            )  # fmt: skip
        self._running.append(process)
        began = time.perf_counter()
        while ready not in (said := log.read_text(encoding="utf-8", errors="replace")):
            if process.returncode is not None or time.perf_counter() - began > _READY_SECONDS:
                raise RuntimeError(f"{Path(command[0]).name} did not start: {said[-2000:]}")
            await asyncio.sleep(_POLL_SECONDS)

    async def feed(self, *command: str | Path, wishes: Sequence[Wish]) -> float:
        """Run a program that stores jobs; return the seconds that it says this took."""
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self._cwd, env=self._environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate(to_json(wishes))
        if process.returncode:
            raise RuntimeError(f"{Path(command[0]).name} could not store the jobs")
        return float(json.loads(output)["seconds"])

    async def rows(self) -> Rows:
        """Count what ended."""
        return await read_rows(self._database, _ROWS)

    def pids(self) -> list[int]:
        """Name what runs."""
        return [process.pid for process in self._running]

    def store_pids(self) -> list[int]:
        """Name Redis and PostgreSQL."""
        return [self._redis.pid, self._postgres.pid]

    async def stop(self) -> None:
        """End what runs, the latest first."""
        while self._running:
            await _end(self._running.pop())

    async def stop_latest(self) -> None:
        """End what was started last."""
        await _end(self._running.pop())


class Fed:
    """A rival whose jobs are stored in bulk by a program of its own kind."""

    has_api = False

    def __init__(self, crew: Crew, *command: str | Path) -> None:
        self._crew = crew
        self._command = command
        self.rows = crew.rows
        self.pids = crew.pids
        self.store_pids = crew.store_pids

    async def rehearse(self) -> float:
        """Store some jobs that are never due."""
        return await self.create(never_due()) / REHEARSAL

    async def create(self, wishes: Sequence[Wish]) -> float:
        """Run the program."""
        return await self._crew.feed(*self._command, wishes=wishes)


class Beat:
    """A worker of Celery, and beat with an entry for each job; it must start anew for new ones."""

    has_api = False

    def __init__(self, crew: Crew, python: Path) -> None:
        self._crew = crew
        self._python = python
        self._has_beat = False
        self.rows = crew.rows
        self.pids = crew.pids
        self.store_pids = crew.store_pids

    async def rehearse(self) -> float:
        """Tell what reading an entry takes at most."""
        return _BEAT_ENTRY_SECONDS

    async def create(self, wishes: Sequence[Wish]) -> float:
        """Write the schedule and start beat on it."""
        if self._has_beat:
            await self._crew.stop_latest()
        entries = self._crew.folder / "entries.json"
        entries.write_bytes(to_json(wishes))
        began = time.perf_counter()
        await self._crew.start(
            self._python, "-m", "celery", "-A", "celery_app", "beat", "--loglevel", "INFO",
            "--schedule", self._crew.folder / "beat",
            ready="beat: Starting", BEAT_ENTRIES=str(entries),
        )  # fmt: skip
        self._has_beat = True
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def bullmq(ground: Ground, *, processes: int) -> AsyncIterator[Contender]:
    """Start one or more workers of BullMQ."""
    async with _open_crew(ground, cwd=ground.installed.bullmq) as crew:
        for _ in range(processes):
            await crew.start("node", "worker.mjs", "work", ready="ready", **_BULLMQ)
        yield Fed(crew, "node", "worker.mjs", "create")


@contextlib.asynccontextmanager
async def celery_eta(ground: Ground) -> AsyncIterator[Contender]:
    """Start a worker of Celery, for tasks with an ETA."""
    async with _open_crew(ground, cwd=_FOREIGN) as crew:
        await _start_worker(crew, ground.installed.python)
        yield Fed(crew, ground.installed.python, "celery_app.py")


@contextlib.asynccontextmanager
async def celery_beat(ground: Ground) -> AsyncIterator[Contender]:
    """Start a worker of Celery, for what beat sends."""
    async with _open_crew(ground, cwd=_FOREIGN) as crew:
        await _start_worker(crew, ground.installed.python)
        yield Beat(crew, ground.installed.python)


def to_json(wishes: Sequence[Wish]) -> bytes:
    """Write jobs as the rivals' programs read them."""
    jobs = [{"name": wish.name, "due_ms": round(wish.due * 1000)} for wish in wishes]
    return json.dumps(jobs).encode()


async def _start_worker(crew: Crew, python: Path) -> None:
    await crew.start(
        python, "-m", "celery", "-A", "celery_app", "worker", "--loglevel", "INFO",
        "--without-gossip", "--without-mingle", *_CELERY,
        ready="ready.",
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _open_crew(ground: Ground, *, cwd: Path) -> AsyncIterator[Crew]:
    async with (
        fresh_database(ground.folder, ground.postgres.url) as url,
        reading(url) as database,
        Redis(ground.installed, ground.folder) as redis,
    ):
        await _make_table(url)
        crew = Crew(ground, cwd=cwd, redis=redis, url=url, database=database)
        try:
            yield crew
        finally:
            await crew.stop()


async def _make_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_TABLE)
    finally:
        await connection.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end; what does not obey is killed."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
