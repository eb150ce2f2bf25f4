"""What hostile targets do to the jobs beside them, one row per kind of hostility.

``python -m benchmarks run hostile [--kind NAME]… [--seconds N] [--same-host] [--json]``

50 innocent jobs, one run a second each, call an honest target in a process of its own. For each
kind 50 hostile jobs of the same rhythm join them for ``seconds``, after a quiet time of half that.
Each innocent job has a host name of its own, which is looked up anew every five seconds.
Lateness is arrival at the honest target minus due time, so it includes the send; a due run that
never arrived counts as infinitely late. A row passes when

- the innocents' lateness p99 is at most 1.2 times that of the quiet time, or under 50 ms,
- the API's p99 (the list of jobs and the recent history, ten calls a second) is under 500 ms,
- the service's memory grew by less than 128 MiB from the quiet time to its peak,
- every hostile attempt was over half a second after its deadline of two seconds at the latest.

A busy machine fails rows, too. The kind ``control`` tells: its 50 jobs are as innocent as the
others. ``cpu percent`` is the service's share of one core.

With ``--same-host`` both kinds of job share one host and port: then the limit per host is what is
seen, and a hanging target may fail the first limit by design.
"""

import asyncio
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.progress import Progress

from benchmarks.hostile_target import BEHAVIOURS
from benchmarks.machine import ROOT, cpu_seconds, free_port, memory_mib

JOBS = 50
_TIMEOUT_SECONDS = 2.0
_MARGIN_SECONDS = 0.5
_LATENESS_RATIO_MAX = 1.2
_LATENESS_MS_FINE = 50.0
_API_MS_MAX = 500.0
_MEMORY_MIB_MAX = 128.0
_SPACING_SECONDS = 0.02
_API_EVERY_SECONDS = 0.1
_READS = ("/api/v1/jobs", "/api/v1/jobs/executions/recent")

# What needs more than a path of the target.
_SPECIAL: dict[str, dict[str, Any]] = {
    "control": {"target_url": "http://hostile.test:{port}/honest"},
    "tls-nonsense": {"target_url": "https://hostile.test:{port}/"},
    "slow-dns": {"target_url": "http://{number}.slow.test:{port}/honest"},
    "refused": {
        "target_url": "http://hostile.test:{closed}/",
        "max_retries": 5,
        "retry_backoff_sec": 0.05,
    },
}
_FOLLOWED = ("redirect-loop", "redirect-forbidden")
KINDS = (*_SPECIAL, *BEHAVIOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileRow:
    """What one kind of hostility did; ``outcome`` is the attempts' most frequent reason."""

    kind: str
    quiet_p50_ms: float
    quiet_p99_ms: float
    p50_ms: float
    p99_ms: float
    api_p99_ms: float
    memory_mib: float
    cpu_percent: float
    attempts: int
    overdue: int
    longest_ms: float
    outcome: str

    @property
    def failures(self) -> list[str]:
        """Name the limits that do not hold."""
        lateness_max = max(self.quiet_p99_ms * _LATENESS_RATIO_MAX, _LATENESS_MS_FINE)
        limits = {
            "lateness": self.p99_ms <= lateness_max,
            "api": self.api_p99_ms < _API_MS_MAX,
            "memory": self.memory_mib < _MEMORY_MIB_MAX,
            "deadline": self.overdue == 0 and self.attempts > 0,
        }
        return [name for name, holds in limits.items() if not holds]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileOptions:
    """What to run: kinds, seconds of each, the service's limit per host, one host for all."""

    kinds: Sequence[str]
    seconds: float
    host_concurrency: int
    same_host: bool


@dataclass(slots=True)
class _Window:
    """One kind under way: wall clock bounds, API times, memory."""

    kind: str
    quiet_at: float
    began_at: float
    ended_at: float
    api_ms: list[float]
    memory_mib: float
    cpu_seconds: float


def run_hostile(options: HostileOptions, *, progress: Progress) -> list[HostileRow]:
    """Run each kind against one service and return the rows, in order."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_Siege(options, Path(folder), progress=progress).run())


class _Siege:
    def __init__(self, options: HostileOptions, folder: Path, *, progress: Progress) -> None:
        self._options = options
        self._folder = folder
        self._progress = progress
        self._port, self._hostile, self._closed = free_port(), free_port(), free_port()
        self._honest = self._hostile if options.same_host else free_port()
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=60)
        self._pid = 0

    async def run(self) -> list[HostileRow]:
        targets = [self._start_target(port) for port in {self._hostile, self._honest}]
        service = self._start("benchmarks.named_service", "serve")
        self._pid = service.pid
        try:
            async with self._client:
                await self._wait_until_ready(service)
                await self._create("innocent", self._innocent)
                await asyncio.sleep(3)
                task = self._progress.add_task("hostile", total=len(self._options.kinds))
                windows = []
                for kind in self._options.kinds:
                    self._progress.update(task, description=kind)
                    windows.append(await self._besiege(kind))
                    self._progress.advance(task)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(timeout=60)
            outputs = [target.communicate(timeout=60)[0] for target in targets]
        arrivals = {name: at for text in outputs for name, at in json.loads(text.splitlines()[-1])}
        return [self._judge(window, arrivals) for window in windows]

    def _start_target(self, port: int) -> subprocess.Popen[str]:
        target = self._start("benchmarks.hostile_target", str(port), stdin=subprocess.PIPE)
        assert target.stdout is not None
        target.stdout.readline()
        return target

    def _start(self, *module: str, stdin: int | None = None) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite:///{self._folder / 'jobs.db'}",
            "PORT": str(self._port),
            "MYSCHEDULER_HOST_CONCURRENCY": str(self._options.host_concurrency),
            "MYSCHEDULER_HTTP_TRANSPORT": os.environ.get("MYSCHEDULER_HTTP_TRANSPORT", "aiohttp"),
        }
        with (self._folder / "service.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env=environment,
                stdin=stdin,
                stdout=subprocess.PIPE if stdin else log,
                stderr=log,
                text=True,
            )

    async def _wait_until_ready(self, service: subprocess.Popen[str]) -> None:
        for _ in range(200):
            if service.poll() is not None:
                raise RuntimeError((self._folder / "service.log").read_text())
            try:
                await self._client.get("/health/ready")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
        raise RuntimeError("the service did not start")

    async def _besiege(self, kind: str) -> _Window:
        quiet_at = time.time()  # noqa: TID251 - the benchmark's clock
        await asyncio.sleep(self._options.seconds / 2)
        memory, cpu = memory_mib(self._pid), cpu_seconds(self._pid)
        began_at = time.time()  # noqa: TID251 - the benchmark's clock
        async with self._watching() as (api_ms, memories):
            await self._create(kind, self._aggressor)
            await asyncio.sleep(1 + self._options.seconds)
        ended_at = time.time()  # noqa: TID251 - the benchmark's clock
        cpu = cpu_seconds(self._pid) - cpu
        for number in range(JOBS):
            await self._client.post(f"/api/v1/jobs/{kind}-{number}/pause")
        await self._wait_until_over(kind)
        for number in range(JOBS):
            await self._client.delete(f"/api/v1/jobs/{kind}-{number}")
        return _Window(kind, quiet_at, began_at, ended_at, api_ms, max(memories) - memory, cpu)

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[tuple[list[float], list[float]]]:
        """Call the API at its rate, whatever it takes, and note its times and the memory."""
        api_ms: list[float] = []
        memories: list[float] = [memory_mib(self._pid)]
        over = asyncio.Event()

        async def call(path: str) -> None:
            began = time.perf_counter()
            try:
                answer = await self._client.get(path)
            except httpx.TransportError:
                api_ms.append(math.inf)
                return
            api_ms.append((time.perf_counter() - began) * 1000 if answer.is_success else math.inf)
            memories.append(memory_mib(self._pid))

        async def watch() -> None:
            turn = 0
            async with asyncio.TaskGroup() as calls:
                while not over.is_set():
                    calls.create_task(call(_READS[turn % len(_READS)]))
                    turn += 1
                    await asyncio.sleep(_API_EVERY_SECONDS)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            yield api_ms, memories
            over.set()

    async def _create(self, kind: str, fields: Any) -> None:
        """Create the jobs of a kind, due once a second each, spread over the second."""
        for number in range(JOBS):
            job = {
                "job_id": f"{kind}-{number}",
                "schedule_type": "interval",
                "interval": {"seconds": 1},
                **fields(kind, number),
            }
            answer = await self._client.post("/api/v1/jobs", json=job)
            answer.raise_for_status()
            await asyncio.sleep(_SPACING_SECONDS)

    def _innocent(self, _kind: str, number: int) -> dict[str, Any]:
        name = "hostile" if self._options.same_host else f"{number}.honest"
        return {"target_url": f"http://{name}.test:{self._honest}/honest"}

    def _aggressor(self, kind: str, number: int) -> dict[str, Any]:
        special = _SPECIAL.get(kind, {})
        url = str(special.get("target_url", f"http://hostile.test:{{port}}/{kind}"))
        return {
            **special,
            "target_url": url.format(port=self._hostile, closed=self._closed, number=number),
            "timeout_sec": _TIMEOUT_SECONDS,
            "follow_redirects": kind in _FOLLOWED,
        }

    async def _wait_until_over(self, kind: str) -> None:
        deadline = time.perf_counter() + _TIMEOUT_SECONDS + 5
        while time.perf_counter() < deadline:
            await asyncio.sleep(0.1)
            ((running,),) = self._read(
                "SELECT count(*) FROM executions WHERE status = 'running' AND job_id LIKE ?",
                (f"{kind}-%",),
            )
            if not running:
                return

    def _read(
        self, query: str, parameters: tuple[Any, ...] | dict[str, str]
    ) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self._folder / 'jobs.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query, parameters).fetchall()
        finally:
            connection.close()

    def _judge(self, window: _Window, arrivals: dict[str, float]) -> HostileRow:
        quiet = self._lateness(arrivals, window.quiet_at, window.began_at)
        beset = self._lateness(arrivals, window.began_at, window.ended_at)
        attempts = self._attempts(window.kind)
        lasted = [ms for ms, _ in attempts if ms is not None]
        limit_ms = (_TIMEOUT_SECONDS + _MARGIN_SECONDS) * 1000
        reasons = Counter(reason or "success" for ms, reason in attempts if ms is not None)
        return HostileRow(
            kind=window.kind,
            quiet_p50_ms=_quantile(quiet, 0.5),
            quiet_p99_ms=_quantile(quiet, 0.99),
            p50_ms=_quantile(beset, 0.5),
            p99_ms=_quantile(beset, 0.99),
            api_p99_ms=_quantile(window.api_ms, 0.99),
            memory_mib=round(window.memory_mib, 1),
            cpu_percent=round(window.cpu_seconds / (window.ended_at - window.began_at) * 100, 1),
            attempts=len(attempts),
            overdue=sum(ms is None or ms > limit_ms for ms, _ in attempts),
            longest_ms=round(max(lasted, default=math.nan), 1),
            outcome=", ".join(f"{name} {count}" for name, count in reasons.most_common(2)),
        )

    def _lateness(self, arrivals: dict[str, float], since: float, until: float) -> list[float]:
        """List the innocents' lateness in milliseconds of the runs due in a time."""
        rows = self._read(
            "SELECT id, scheduled_us, instant_count FROM executions"
            " WHERE job_id LIKE 'innocent-%' AND scheduled_us BETWEEN ? AND ?",
            (int(since * 1e6), int(until * 1e6)),
        )
        lateness: list[float] = []
        for name, scheduled_us, count in rows:
            lateness += [(arrivals.get(name, math.inf) - scheduled_us / 1e6) * 1000] * count
        return lateness

    def _attempts(self, kind: str) -> list[tuple[float | None, str | None]]:
        """List each attempt's milliseconds (None: not over) and its reason."""
        return self._read(
            "SELECT (finished_us - attempt_started_us) / 1000.0, attempt_reason FROM executions"
            " WHERE job_id LIKE :jobs AND attempts >"
            " (SELECT count(*) FROM attempts WHERE execution_id = executions.id) UNION ALL"
            " SELECT (attempts.ended_us - attempts.started_us) / 1000.0, attempts.reason"
            " FROM attempts JOIN executions ON executions.id = execution_id"
            " WHERE job_id LIKE :jobs",
            {"jobs": f"{kind}-%"},
        )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [math.nan]
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1)
