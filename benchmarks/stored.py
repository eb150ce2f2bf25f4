"""Many stored jobs that are not due: what they cost, beside an empty service in the same run.

Four jobs, one of each kind of schedule, are made through the API; their rows and first revisions
are then copied while the service is away, so that every stored definition is a valid one.
"""

import contextlib
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from benchmarks.figures import Spread, Summary
from benchmarks.load import Client, creation, one_off, prepare
from benchmarks.printing import AsJson, measure, show
from benchmarks.service import Service
from benchmarks.stage import NEVER, pass_time

_URL = "http://127.0.0.1:9/never"
_TEMPLATES: dict[str, dict[str, Any]] = {
    "template-0": one_off(NEVER),
    "template-1": {"schedule_type": "cron", "cron": {"year": "2099"}},
    "template-2": {"schedule_type": "crontab", "crontab": "0 0 29 2 *"},
    "template-3": {"schedule_type": "interval", "interval": {"weeks": 500}},
}
_AT_ONCE = 50_000
# What one statement of the copy adds; column names come from the database itself.
_COPY = """WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
    INSERT INTO {table} ({columns}) SELECT {values} FROM n
    JOIN {table} ON {table}.{key} = 'template-' || (n.i % :kinds)"""
_KEYS = {"jobs": "id", "job_revisions": "job_id"}
_ASKED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOptions:
    """How many jobs are stored, how many seconds each service is watched idle, and its starts."""

    jobs: int
    seconds: float
    starts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleService:
    """One service that has nothing to do.

    ``start_seconds`` is from the start of its process until it was ready, ``start_cpu_seconds`` the
    CPU time of that, which a busy machine blurs less; both are medians of some starts.
    ``idle_cpu_percent`` is the share of one core while nobody asks. ``list_ms`` and ``create_ms``:
    calls made one by one after that, a page of 50 jobs and the creation of a job.
    """

    start_seconds: float
    start_cpu_seconds: float
    memory_mib: float
    idle_cpu_percent: float
    list_ms: Spread
    create_ms: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """The service with the jobs and the empty one, and the first as a multiple of the second."""

    jobs: int
    file_mib: float
    empty: IdleService
    stored: IdleService
    start_ratio: float
    start_cpu_ratio: float
    memory_ratio: float

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        return Summary(
            scenario=f"{self.jobs:,} stored jobs",
            memory_mib=self.stored.memory_mib,
            note=f"{self.memory_ratio:g} × memory and {self.start_cpu_ratio:g} × start CPU of"
            f" an empty one; idle CPU {self.stored.idle_cpu_percent:g} %",
        )


async def run_stored(options: StoredOptions, progress: Progress) -> StoredResult:
    """Watch an empty service, then one with the jobs, and compare."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'jobs.db'}"
        async with Service(folder, url) as service, Client(service.port) as client:
            for job_id, schedule in _TEMPLATES.items():
                await client.call(creation(job_id, _URL, **schedule))
        empty = await _watch(folder, url, options, progress, title="empty")
        task = progress.add_task(f"store {options.jobs}", total=options.jobs)
        store(
            folder / "jobs.db",
            options.jobs,
            advanced=lambda count: progress.advance(task, count),
        )
        stored = await _watch(folder, url, options, progress, title="stored")
        return StoredResult(
            jobs=options.jobs,
            file_mib=round((folder / "jobs.db").stat().st_size / 2**20, 1),
            empty=empty,
            stored=stored,
            start_ratio=round(stored.start_seconds / empty.start_seconds, 2),
            start_cpu_ratio=round(stored.start_cpu_seconds / empty.start_cpu_seconds, 2),
            memory_ratio=round(stored.memory_mib / empty.memory_mib, 2),
        )


async def _watch(
    folder: Path, url: str, options: StoredOptions, progress: Progress, *, title: str
) -> IdleService:
    starts: list[tuple[float, float]] = []
    for _ in range(options.starts - 1):
        async with Service(folder, url) as service:
            starts.append((service.start_seconds, service.usage().cpu_seconds))
    async with Service(folder, url) as service:
        starts.append((service.start_seconds, service.usage().cpu_seconds))
        await pass_time(progress, options.seconds / 2, title=f"{title}: settle")
        before = service.usage()
        await pass_time(progress, options.seconds, title=f"{title}: idle")
        after = service.usage()
        async with Client(service.port) as client:
            page = prepare("GET", "/api/v1/jobs?limit=50")
            lists = [(await client.call(page))[1] for _ in range(_ASKED)]
            creations = [
                (await client.call(creation(f"{title}-{number}", _URL, **one_off(NEVER))))[1]
                for number in range(_ASKED)
            ]
    busy = after.cpu_seconds - before.cpu_seconds
    return IdleService(
        start_seconds=round(statistics.median(wall for wall, _ in starts), 3),
        start_cpu_seconds=round(statistics.median(cpu for _, cpu in starts), 3),
        memory_mib=round(after.memory_mib, 1),
        idle_cpu_percent=round(busy / options.seconds * 100, 2),
        list_ms=Spread.of(lists),
        create_ms=Spread.of(creations),
    )


def store(path: Path, jobs: int, *, advanced: Callable[[int], None]) -> None:
    """Copy the jobs ``template-0`` … of a SQLite file that nobody uses; tells how many at a time.

    The copies are called ``stored-000000000`` and so on.
    """
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        for first in range(0, jobs, _AT_ONCE):
            last = min(first + _AT_ONCE, jobs) - 1
            for table, key in _KEYS.items():
                values = {"first": first, "last": last, "kinds": len(_TEMPLATES)}
                database.execute(_statement(database, table, key), values)
            database.commit()
            advanced(last - first + 1)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _statement(database: sqlite3.Connection, table: str, key: str) -> str:
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = ["printf('stored-%09d', n.i)" if name == key else name for name in names]
    return _COPY.format(table=table, key=key, columns=", ".join(names), values=", ".join(values))


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Stored jobs.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long each is watched idle.")] = 5,
    starts: Annotated[int, typer.Option(min=1, help="Starts of each.")] = 3,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure what stored jobs cost that are not due, beside an empty service (SQLite only)."""
    options = StoredOptions(jobs=jobs, seconds=seconds, starts=starts)
    result = measure(lambda progress: run_stored(options, progress))
    show(f"stored: {jobs} jobs", result, as_json=as_json)
