"""Many one-off jobs due at one instant: how late they start, and whether each runs once."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import Progress

from benchmarks.machine import ROOT, cpu_seconds, free_port, memory_mib

_CLIENTS = 20
_FINAL = ("completed", "failed", "cancelled", "unknown", "skipped", "missed")


@dataclass(frozen=True, slots=True, kw_only=True)
class HerdResult:
    """What one herd came to; times in milliseconds, rates per second."""

    jobs: int
    created_per_second: float
    runs_per_second: float
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    lost: int
    doubled: int
    cpu_ms_per_run: float
    memory_mib: float


def run_herd(jobs: int, *, host_concurrency: int, progress: Progress) -> HerdResult:
    """Run one herd of ``jobs`` against a fresh service and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(
            _Herd(jobs, Path(folder), host_concurrency=host_concurrency, progress=progress).run()
        )


class _Herd:
    def __init__(
        self, jobs: int, folder: Path, *, host_concurrency: int, progress: Progress
    ) -> None:
        self._jobs = jobs
        self._folder = folder
        self._progress = progress
        self._port, self._target_port = free_port(), free_port()
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite:///{folder / 'jobs.db'}",
            "PORT": str(self._port),
            "MYSCHEDULER_HOST_CONCURRENCY": str(host_concurrency),
        }

    async def run(self) -> HerdResult:
        target = self._start(
            "-m", "benchmarks.target", str(self._target_port), stdin=subprocess.PIPE
        )
        service = self._start("-m", "app", "serve")
        try:
            assert target.stdout is not None
            target.stdout.readline()
            await self._wait_until_ready(service)
            due, created_per_second = await self._create()
            cpu_before = cpu_seconds(service.pid)
            await self._wait_until_done()
            cpu = cpu_seconds(service.pid) - cpu_before
            memory = memory_mib(service.pid)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(timeout=60)
            output, _ = target.communicate(timeout=60)
        arrivals = Counter(name for name, _ in json.loads(output.splitlines()[-1]))
        return self._judge(arrivals, due, created_per_second, cpu, memory)

    def _start(self, *arguments: str, stdin: int | None = None) -> subprocess.Popen[str]:
        log = (self._folder / "service.log").open("a")
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._environment,
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
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
        raise RuntimeError("the service did not start")

    async def _create(self) -> tuple[float, float]:
        """Create the jobs, due at one instant after the last is stored; return it and the rate."""
        task = self._progress.add_task(f"create {self._jobs}", total=self._jobs)
        due = float(int(time.time() + 5 + self._jobs / 500))  # noqa: TID251 - the benchmark's clock
        run_at = datetime.fromtimestamp(due, UTC).isoformat()
        numbers = iter(range(self._jobs))
        began = time.perf_counter()

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            for number in numbers:
                writer.write(self._request(number, run_at))
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 200 " not in head[:20]:
                    raise RuntimeError(head.decode())
                lower = head.lower()
                length = lower.split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                self._progress.advance(task)
            writer.close()

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        rate = self._jobs / (time.perf_counter() - began)
        if time.time() > due:  # noqa: TID251 - the benchmark's clock
            raise RuntimeError("creating took longer than planned; the machine is too busy")
        return due, rate

    def _request(self, number: int, run_at: str) -> bytes:
        body = json.dumps(
            {
                "job_id": f"job-{number}",
                "schedule_type": "date",
                "run_at": run_at,
                "target_url": f"http://127.0.0.1:{self._target_port}/hook",
                "method": "POST",
                "body": {"number": number},
            }
        ).encode()
        head = (
            "POST /api/v1/jobs HTTP/1.1\r\nHost: benchmark\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _wait_until_done(self) -> None:
        task = self._progress.add_task(f"run {self._jobs}", total=self._jobs)
        deadline = time.perf_counter() + 60 + self._jobs / 50
        done = 0
        while done < self._jobs and time.perf_counter() < deadline:
            await asyncio.sleep(0.5)
            marks = ",".join("?" * len(_FINAL))
            ((done,),) = self._read(
                f"SELECT count(*) FROM executions WHERE status IN ({marks})",  # noqa: S608 - marks
                _FINAL,
            )
            self._progress.update(task, completed=done)

    def _read(self, query: str, parameters: tuple[str, ...] = ()) -> list[tuple[int, ...]]:
        connection = sqlite3.connect(f"file:{self._folder / 'jobs.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query, parameters).fetchall()
        finally:
            connection.close()

    def _judge(
        self,
        arrivals: Counter[str],
        due: float,
        created_per_second: float,
        cpu: float,
        memory: float,
    ) -> HerdResult:
        rows = self._read(
            "SELECT started_us - scheduled_us, finished_us FROM executions"
            " WHERE status = 'completed' ORDER BY 1"
        )
        lateness = [row[0] / 1000 for row in rows] or [float("nan")]
        last = max((row[1] for row in rows), default=0) / 1e6
        return HerdResult(
            jobs=self._jobs,
            created_per_second=round(created_per_second),
            runs_per_second=round(len(rows) / max(last - due, 1e-9)),
            lateness_p50_ms=round(lateness[len(lateness) // 2], 1),
            lateness_p99_ms=round(lateness[int(len(lateness) * 0.99)], 1),
            lateness_max_ms=round(lateness[-1], 1),
            lost=self._jobs - len(arrivals),
            doubled=sum(count - 1 for count in arrivals.values()),
            cpu_ms_per_run=round(cpu / self._jobs * 1000, 3),
            memory_mib=round(memory, 1),
        )


def as_rows(result: HerdResult) -> list[tuple[str, str]]:
    """List the figures with their names, for a table."""
    return [(name.replace("_", " "), f"{value:g}") for name, value in asdict(result).items()]
