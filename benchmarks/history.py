"""Pages of a large history and of a long list of jobs, and what pruning costs whoever asks.

The service runs as its own process; one client asks it, one request after the other, over a
connection that is kept.
"""

import asyncio
import contextlib
import http.client
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.progress import Progress

from app.domain.execution import Cause, ExecutionStatus
from app.domain.history import HistoryFilter, Position
from app.domain.ids import JobId
from app.domain.job import JobPosition
from app.schemas.history_request import JobListRequest, write_position
from benchmarks.history_rows import BUSY_JOB, RARE_CAUSE, Size, fill, prepare
from benchmarks.printing import AsJson, open_bars, show_rows
from benchmarks.service import Service

_ASKED = 200
_TEMPLATE = {
    "job_id": "template",
    "schedule_type": "cron",
    "cron": {"year": "2099"},
    "target_url": "http://127.0.0.1:9/",
    "replace_existing": True,
}
_PRUNE_SECONDS = 15.0
_KEEP_ALL = {
    "MYSCHEDULER_HISTORY_DAYS": "36500",
    "MYSCHEDULER_HISTORY_FAILED_DAYS": "36500",
    "MYSCHEDULER_HISTORY_PER_JOB": "100000000",
    "MYSCHEDULER_VERIFY_EVERY_SECONDS": "0",
}
_KEEP_HALF = {
    **_KEEP_ALL,
    "MYSCHEDULER_HISTORY_DAYS": "30",
    "MYSCHEDULER_HISTORY_FAILED_DAYS": "30",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRow:
    """How long one shape of request takes, and how many items its page holds."""

    shape: str
    items: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRow:
    """Latency of reading a page and of storing a change, before and while history is pruned."""

    quiet_read_p50_ms: float
    quiet_read_p99_ms: float
    quiet_write_p50_ms: float
    quiet_write_p99_ms: float
    read_p50_ms: float
    read_p99_ms: float
    write_p50_ms: float
    write_p99_ms: float
    removed: int
    removed_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryResult:
    """All figures of one run."""

    rows: int
    jobs: int
    pages: list[PageRow]
    pruning: PruneRow


def run_history(size: Size, *, progress: Progress) -> HistoryResult:
    """Fill a fresh database and measure."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "jobs.db"
        now = time.time_ns() // 1000
        prepare(path)
        with _service(path, _KEEP_ALL) as client:
            client.post(_TEMPLATE)
        task = progress.add_task(f"fill {size.rows}", total=size.rows)
        fill(path, size, now_us=now, advanced=lambda count: progress.advance(task, count))
        with _service(path, _KEEP_ALL) as client:
            pages = [_page(client, *shape) for shape in _shapes(path, size, now)]
        progress.add_task("prune", total=None)
        pruning = _prune(path)
        return HistoryResult(rows=size.rows, jobs=size.jobs, pages=pages, pruning=pruning)


class _Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:  # noqa: PLR2004
            raise RuntimeError(f"{path}: {answer.status} {body!r}")
        found: dict[str, Any] = json.loads(body)
        return found, took * 1000

    def post(self, document: dict[str, Any]) -> float:
        began = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/api/v1/jobs", json.dumps(document), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:  # noqa: PLR2004
            raise RuntimeError(body)
        return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def _service(path: Path, settings: dict[str, str]) -> Iterator[_Client]:
    service = Service(path.parent, f"sqlite:///{path}", settings=settings)
    with asyncio.Runner() as runner:
        runner.run(service.start())
        try:
            yield _Client(service.port)
        finally:
            runner.run(service.stop())


def _shapes(path: Path, size: Size, now_us: int) -> Iterator[tuple[str, str]]:
    """Name requests: first pages, and pages far behind, whose cursors are written here."""
    whole = datetime.fromtimestamp(now_us / 1e6, UTC) - size.span * 2
    middle, middle_us = size.rows // 2, now_us - size.span // timedelta(microseconds=1) // 2
    job, recent, failed, due, rare, job_failed, due_failed = (
        HistoryFilter(job_id=JobId(BUSY_JOB)),
        HistoryFilter(),
        HistoryFilter(statuses=frozenset({ExecutionStatus.FAILED})),
        HistoryFilter(since=whole),
        HistoryFilter(causes=frozenset({RARE_CAUSE})),
        HistoryFilter(job_id=JobId(BUSY_JOB), statuses=frozenset({ExecutionStatus.FAILED})),
        HistoryFilter(since=whole, statuses=frozenset({ExecutionStatus.FAILED})),
    )
    yield "job, first", _history(job)
    yield "job, deep", _history(job, (middle,))
    yield "recent, first", _history(recent)
    yield "recent, deep", _history(recent, (middle,))
    yield "failed, first", _history(failed)
    yield "failed, deep", _history(failed, (middle,))
    yield "time, first", _history(due)
    yield "time, deep", _history(due, (middle_us, middle))
    yield "running", "/api/v1/executions?status=running"
    yield "job failed, deep", _history(job_failed, (middle,))
    yield "time failed, deep", _history(due_failed, (middle_us, middle))
    yield "rare cause (examines 20,000)", _history(rare)
    yield (
        "rare cause of a job",
        _history(HistoryFilter(job_id=JobId(BUSY_JOB), causes=frozenset({Cause.CHAIN}))),
    )
    yield "job detail", f"/api/v1/jobs/{BUSY_JOB}"
    yield "jobs, first", "/api/v1/jobs?limit=50"
    asked = JobListRequest()
    with contextlib.closing(sqlite3.connect(path)) as database:
        ahead = database.execute(
            "SELECT next_run_us, id FROM jobs WHERE next_run_us IS NOT NULL"
            " ORDER BY next_run_us, id LIMIT 1 OFFSET ?", (size.jobs // 4,),
        ).fetchone()  # fmt: skip
    for name, place in (("due", ahead), ("idle", (None, "idle-5"))):
        cursor = asked.write_position(JobPosition(next_run_us=place[0], id=place[1]))
        yield f"jobs, deep, {name}", f"/api/v1/jobs?limit=50&cursor={cursor}"
    yield "jobs, completed", "/api/v1/jobs?limit=50&status=completed"


def _history(wanted: HistoryFilter, before: Position | None = None) -> str:
    query = {"limit": "50"}
    if wanted.job_id is not None:
        query["job_id"] = wanted.job_id
    if wanted.statuses:
        query["status"] = ",".join(wanted.statuses)
    if wanted.causes:
        query["cause"] = ",".join(wanted.causes)
    if wanted.since is not None:
        query["from"] = wanted.since.isoformat()
    cursor = write_position(before, wanted)
    if cursor is not None:
        query["cursor"] = cursor
    return f"/api/v1/executions?{urlencode(query)}"


def _page(client: _Client, shape: str, path: str) -> PageRow:
    found, _ = client.get(path)
    times = [client.get(path)[1] for _ in range(_ASKED)]
    items = len(found["jobs" if "jobs" in found else "executions"])
    return PageRow(shape=shape, items=items, p50_ms=_p50(times), p99_ms=_p99(times))


def _prune(path: Path) -> PruneRow:
    """Measure before the first pass begins, half a minute after the start, and during it."""
    with (
        _service(path, _KEEP_HALF) as client,
        contextlib.closing(sqlite3.connect(path)) as database,
    ):

        def count() -> int:
            return sum(row[0] for row in database.execute("SELECT pruned FROM job_totals"))

        quiet = _measure(client, seconds=_PRUNE_SECONDS)
        at_first = count()
        while count() == at_first:
            time.sleep(0.05)
            client.get("/health/live")  # lest the connection be closed as idle
        before, began = count(), time.perf_counter()
        busy = _measure(client, seconds=_PRUNE_SECONDS)
        removed, took = count() - before, time.perf_counter() - began
    return PruneRow(
        quiet_read_p50_ms=_p50(quiet[0]), quiet_read_p99_ms=_p99(quiet[0]),
        quiet_write_p50_ms=_p50(quiet[1]), quiet_write_p99_ms=_p99(quiet[1]),
        read_p50_ms=_p50(busy[0]), read_p99_ms=_p99(busy[0]),
        write_p50_ms=_p50(busy[1]), write_p99_ms=_p99(busy[1]),
        removed=removed, removed_per_second=round(removed / took, 1),
    )  # fmt: skip


def _measure(client: _Client, *, seconds: float) -> tuple[list[float], list[float]]:
    reads: list[float] = []
    writes: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        reads.append(client.get(_history(HistoryFilter(job_id=JobId(BUSY_JOB))))[1])
        writes.append(client.post(_TEMPLATE))
        time.sleep(0.01)
    return reads, writes


def _p50(times: list[float]) -> float:
    return round(statistics.median(times), 2)


def _p99(times: list[float]) -> float:
    return round(statistics.quantiles(times, n=100)[98], 2)


def command(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the history.")] = 1_000_000,
    jobs: Annotated[int, typer.Option(min=10, help="Jobs beside those with history.")] = 1000,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure pages of a large history and list, and what pruning costs the API."""
    with open_bars() as progress:
        result = run_history(Size(rows=rows, jobs=jobs), progress=progress)
    show_rows(f"history: {rows} rows, {jobs} jobs", result, _as_rows(result), as_json=as_json)


def _as_rows(result: HistoryResult) -> list[tuple[str, str]]:
    pages = [
        (f"{row.shape} ({row.items} items)", f"p50 {row.p50_ms} ms, p99 {row.p99_ms} ms")
        for row in result.pages
    ]
    pruning = [(f"pruning: {name}", str(value)) for name, value in asdict(result.pruning).items()]
    return pages + pruning
