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
- no hostile attempt was overdue: each was over by its deadline of two seconds plus half a second,
  which a busy machine may take to notice the deadline.

A busy machine fails rows, too. The kind ``control`` tells: its 50 jobs are as innocent as the
others. ``cpu percent`` is the service's share of one core.

With ``--same-host`` both kinds of job share one host and port: then the limit per host is what is
seen, and a hanging target may fail the first limit by design.
"""

import asyncio
import contextlib
import json
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import Progress

from benchmarks.hostile_target import BEHAVIOURS
from benchmarks.machine import ROOT, cpu_seconds, free_port, memory_mib
from benchmarks.printing import AsJson, HostConcurrency, open_bars, print_table
from benchmarks.service import Service

JOBS = 50
_TIMEOUT_SECONDS = 2.0
_MARGIN_SECONDS = 0.5
_LATENESS_RATIO_MAX = 1.2
_LATENESS_MS_FINE = 50.0
_API_MS_MAX = 500.0
_MEMORY_MIB_MAX = 128.0
_SPACING_SECONDS = 0.02
_API_EVERY_SECONDS = 0.1
_COLUMNS = (
    "quiet_p50_ms", "quiet_p99_ms", "p50_ms", "p99_ms", "api_p99_ms", "memory_mib", "cpu_percent",
    "attempts", "overdue", "longest_ms",
)  # fmt: skip
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
        self._hostile, self._closed = free_port(), free_port()
        self._honest = self._hostile if options.same_host else free_port()
        self._service = Service(
            folder,
            f"sqlite:///{folder / 'jobs.db'}",
            settings={
                "MYSCHEDULER_HOST_CONCURRENCY": str(options.host_concurrency),
                "MYSCHEDULER_HTTP_TRANSPORT": os.environ.get(
                    "MYSCHEDULER_HTTP_TRANSPORT", "direct"
                ),
            },
            module="benchmarks.named_service",
        )
        address = f"http://127.0.0.1:{self._service.port}"
        self._client = httpx.AsyncClient(base_url=address, timeout=60)

    async def run(self) -> list[HostileRow]:
        arrivals: dict[str, float] = {}
        windows = []
        with contextlib.ExitStack() as targets:
            for port in {self._hostile, self._honest}:
                targets.enter_context(_target(port, arrivals))
            async with self._service, self._client:
                await self._create("innocent", self._innocent)
                await asyncio.sleep(3)
                task = self._progress.add_task("hostile", total=len(self._options.kinds))
                for kind in self._options.kinds:
                    self._progress.update(task, description=kind)
                    windows.append(await self._besiege(kind))
                    self._progress.advance(task)
        return [self._judge(window, arrivals) for window in windows]

    async def _besiege(self, kind: str) -> _Window:
        quiet_at = time.time()  # noqa: TID251 - the benchmark's clock
        await asyncio.sleep(self._options.seconds / 2)
        memory, cpu = memory_mib(self._service.pid), cpu_seconds(self._service.pid)
        began_at = time.time()  # noqa: TID251 - the benchmark's clock
        async with self._watching() as (api_ms, memories):
            await self._create(kind, self._aggressor)
            await asyncio.sleep(1 + self._options.seconds)
        ended_at = time.time()  # noqa: TID251 - the benchmark's clock
        cpu = cpu_seconds(self._service.pid) - cpu
        for number in range(JOBS):
            await self._client.post(f"/api/v1/jobs/{kind}-{number}/pause")
        await self._wait_until_over(kind)
        for number in range(JOBS):
            await self._client.delete(f"/api/v1/jobs/{kind}-{number}")
        return _Window(kind, quiet_at, began_at, ended_at, api_ms, max(memories) - memory, cpu)

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[tuple[list[float], list[float]]]:
        """Call the API at its rate, whatever it takes, and note its times and the memory."""
        api_ms: list[float] = []
        memories: list[float] = [memory_mib(self._service.pid)]
        over = asyncio.Event()

        async def call(path: str) -> None:
            began = time.perf_counter()
            try:
                answer = await self._client.get(path)
            except httpx.TransportError:
                api_ms.append(math.inf)
                return
            api_ms.append((time.perf_counter() - began) * 1000 if answer.is_success else math.inf)
            memories.append(memory_mib(self._service.pid))

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


@contextlib.contextmanager
def _target(port: int, arrivals: dict[str, float]) -> Iterator[None]:
    """Run a target's process; ``arrivals`` has what it noted once it is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hostile_target", str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        output, _ = process.communicate(timeout=60)
        arrivals.update(json.loads(output.splitlines()[-1]))


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [math.nan]
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1)


def command(
    host_concurrency: HostConcurrency = 200,
    kind: Annotated[list[str] | None, typer.Option(help="Only this; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Time per kind.")] = 6,
    *,
    same_host: Annotated[bool, typer.Option("--same-host", help="One host for all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure innocent jobs beside hostile ones; a row that fails makes the exit code 1."""
    unknown = sorted(set(kind or ()) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(KINDS)}")
    options = HostileOptions(
        kinds=kind or KINDS,
        seconds=seconds,
        host_concurrency=host_concurrency,
        same_host=same_host,
    )
    with open_bars() as progress:
        rows = run_hostile(options, progress=progress)
    _show(rows, as_json=as_json)
    sys.exit(any(row.failures for row in rows))


def _show(rows: list[HostileRow], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) | {"failures": row.failures} for row in rows]))
        return
    shown = [
        (
            row.kind,
            *(f"{getattr(row, name):g}" for name in _COLUMNS),
            row.outcome,
            ", ".join(row.failures) or "pass",
        )
        for row in rows
    ]
    columns = ("kind", *(name.replace("_", " ") for name in _COLUMNS), "outcome", "verdict")
    print_table(
        "hostile: innocent lateness, without and with 50 hostile jobs beside", columns, shown
    )
    passed = sum(not row.failures for row in rows)
    print(f"{passed} of {len(rows)} kinds pass")
