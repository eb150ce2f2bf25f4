"""What a run costs each part of a cluster: the one that schedules, the one that sends, PostgreSQL.

One process has each role, so that their CPU can be told apart. The server is made for the
measurement, and its commits reach the disk. ``scale`` reckons with what this measures.
"""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.database import Database, fresh_database
from benchmarks.figures import rate
from benchmarks.ledger import Ledger
from benchmarks.machine import Usage
from benchmarks.printing import AsJson, measure, show
from benchmarks.service import Service
from benchmarks.stage import Stage, spread_dues
from benchmarks.stores import DurablePostgres
from benchmarks.target import Target

_API, _SCHEDULER, _WORKER = _ROLES = ("api", "scheduler", "worker")
_SERVER = """SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, xact_commit,
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'client backend')
    FROM pg_stat_database WHERE datname = current_database()"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one run, or one creation, costs."""

    api_ms: float
    scheduler_ms: float
    worker_ms: float
    database_ms: float
    wal_kib: float
    commits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsResult:
    """What a herd cost; CPU in milliseconds, ``connections`` of all three processes together.

    ``rows_per_second``: due instants that got their rows, from the first to the last.
    """

    jobs: int
    per_second: float
    rows_per_second: float
    creation: Part
    run: Part
    connections: int


@dataclass(frozen=True, slots=True)
class _Moment:
    """What everybody has used by now."""

    cpu_seconds: Mapping[str, float]
    wal_bytes: int
    commits: int
    connections: int

    def until(self, later: "_Moment", count: int) -> Part:
        """Share what was used between two moments among so many runs."""
        used = {
            name: round((later.cpu_seconds[name] - seconds) / count * 1000, 3)
            for name, seconds in self.cpu_seconds.items()
        }
        return Part(
            api_ms=used[_API],
            scheduler_ms=used[_SCHEDULER],
            worker_ms=used[_WORKER],
            database_ms=used["database"],
            wal_kib=round((later.wal_bytes - self.wal_bytes) / count / 1024, 2),
            commits=round((later.commits - self.commits) / count, 3),
        )


@dataclass(frozen=True, slots=True)
class _Cluster:
    services: Mapping[str, Service]
    database: Database
    postgres: DurablePostgres
    stage: Stage

    async def moment(self) -> _Moment:
        ((wal_bytes, commits, connections),) = await self.database.rows(_SERVER)
        pids = {name: service.pid for name, service in self.services.items()}
        return _Moment(
            cpu_seconds={
                name: Usage.of(pid).cpu_seconds
                for name, pid in {**pids, "database": self.postgres.pid}.items()
            },
            wal_bytes=int(wal_bytes),
            commits=commits,
            # Without the one that asks.
            connections=connections - 1,
        )


async def run_parts(jobs: int, postgres: DurablePostgres, progress: Progress) -> PartsResult:
    """Create one-off jobs due at one instant on a fresh cluster, and tell what they cost."""
    async with _open_cluster(postgres, progress) as cluster:
        stage = cluster.stage
        due = await stage.plan(jobs)
        begun = await cluster.moment()
        await stage.create_due(spread_dues(jobs, due))
        created = await cluster.moment()
        await stage.wait_until(due)
        before = await cluster.moment()
        await stage.wait_until_done(jobs, due)
        after = await cluster.moment()
        runs = await stage.ledger.runs("job-%")
    last = max((run.finished for run in runs if run.finished), default=0.0)
    return PartsResult(
        jobs=jobs,
        per_second=rate(len(runs), last - due),
        rows_per_second=rate(len(runs), max((run.queued for run in runs), default=0.0) - due),
        creation=begun.until(created, jobs),
        run=before.until(after, jobs),
        connections=after.connections,
    )


@contextlib.asynccontextmanager
async def _open_cluster(postgres: DurablePostgres, progress: Progress) -> AsyncIterator[_Cluster]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        async with (
            fresh_database(folder, postgres.url) as url,
            Target(folder) as target,
            contextlib.AsyncExitStack() as stack,
        ):
            services = {}
            for role in _ROLES:
                home = folder / role
                home.mkdir()
                service = Service(home, url, settings={"MYSCHEDULER_ROLE": role})
                services[role] = await stack.enter_async_context(service)
            database = Database(url)
            stack.push_async_callback(database.close)
            stage = Stage(
                folder=folder,
                service=services[_API],
                target=target,
                ledger=Ledger(database),
                progress=progress,
            )
            yield _Cluster(services, database, postgres, stage)


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs due at once.")] = 3000,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure what a run costs each part of a cluster on PostgreSQL."""
    postgres = DurablePostgres()
    postgres.start()
    try:
        result = measure(lambda progress: run_parts(jobs, postgres, progress))
    finally:
        postgres.stop()
    show(f"parts: {jobs} jobs on one process of each role", result, as_json=as_json)
