"""Proving a large ledger: how long ``myscheduler verify`` takes, and how much memory."""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from app.db.migrate import migrate
from app.db.session import DatabaseOptions, open_sqlite_reader, open_sqlite_writer
from app.db.unit_of_work import SqliteWriter, UnitOfWork
from app.domain.clock import SystemClock
from app.domain.ids import JobId
from app.domain.job import Delivery, HttpTarget, Job, JobDefinition, JobState
from app.domain.policies import RetryPolicy, RunPolicy
from app.domain.schedule import CrontabRule, IntervalRule, Rule, Schedule
from app.repositories import job_repository
from benchmarks.machine import ROOT
from benchmarks.printing import AsJson, open_bars, show

# Every third job is a crontab line of every minute, the others run every second.
_MINUTELY = 3
_BATCH = 200_000
# What the proof does not read is left out while a file is filled: that makes it in half the time.
_UNREAD = (
    "executions_scheduled", "executions_not_completed", "executions_solo", "executions_open",
    "executions_ready", "executions_lease", "executions_job",
)  # fmt: skip
_INSERT = """
    WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
    INSERT INTO executions (id, job_id, job_revision, clock_epoch, cause, scheduled_us,
        instant_count, status, exclusive, attempts, retries, queued_us, started_us, finished_us,
        http_status)
    SELECT printf('%s-%010d', :job, i), :job, 1, 0, 'schedule', :begin + i * :period, 1,
        'completed', 1, 1, 0, :begin + i * :period, :begin + i * :period, :begin + i * :period, 200
    FROM n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What one proof came to."""

    rows: int
    jobs: int
    file_mib: float
    fill_seconds: float
    seconds: float
    rows_per_second: float
    peak_memory_mib: float
    cpu_seconds: float
    expected: int
    accounted: int
    found: int


def run_verify(rows: int, *, jobs: int, progress: Progress) -> VerifyResult:
    """Fill a fresh database with ``rows``, remove one by hand, and prove the ledger."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        path = Path(folder) / "jobs.db"
        began = time.monotonic()
        asyncio.run(_store_jobs(path, rows, jobs))
        _fill(path, rows // jobs, progress)
        filled = time.monotonic() - began
        return _measure(path, rows // jobs * jobs, jobs, filled)


async def _store_jobs(path: Path, rows: int, jobs: int) -> None:
    """Store jobs that are accounted for up to their last row."""
    options = DatabaseOptions(url=f"sqlite:///{path}")
    await migrate(options)
    unit_of_work = UnitOfWork(
        reader=open_sqlite_reader(path, readers=1), writer=SqliteWriter(open_sqlite_writer(path))
    )
    try:
        stored = [_job(number, rows // jobs) for number in range(jobs)]
        for job in stored:
            await unit_of_work.write(
                lambda connection, job=job: job_repository.insert_job(connection, job, actor=None)  # type: ignore[misc]  # a default in a lambda
            )
    finally:
        await unit_of_work.close()


def _job(number: int, rows: int) -> Job:
    minutely = number % _MINUTELY == 0
    period = timedelta(minutes=1) if minutely else timedelta(seconds=1)
    now = SystemClock().now().replace(second=0, microsecond=0)
    begin = now - rows * period
    rule: Rule = IntervalRule(period=period, parts=(("seconds", 1),))
    if minutely:
        rule = CrontabRule(expression="* * * * *")
    return Job(
        id=JobId(f"job-{number:06}"),
        revision=1,
        definition=JobDefinition(
            name="A job",
            schedule=Schedule(rule=rule, timezone="Europe/Berlin"),
            policy=RunPolicy(misfire_grace=timedelta(seconds=30)),
            delivery=Delivery(
                target=HttpTarget(method="GET", url="http://127.0.0.1:9/"),
                timeout=timedelta(seconds=30),
                retry=RetryPolicy(),
            ),
        ),
        state=JobState.PAUSED,
        state_reason=None,
        anchor=begin,
        clock_epoch=0,
        cursor=begin,
        next_run_time=None,
        execution_count=rows,
        created_at=begin,
        updated_at=begin,
    )


def _fill(path: Path, per_job: int, progress: Progress) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    for trigger in ("executions_count_born", "executions_births"):
        database.execute(f"DROP TRIGGER {trigger}")
    for index in _UNREAD:
        database.execute(f"DROP INDEX {index}")
    # An active job's rule names every instant up to its cursor.
    database.execute("UPDATE job_revisions SET state = 'active'")
    heads = database.execute("SELECT id, cursor_us, schedule FROM jobs ORDER BY id").fetchall()
    bar = progress.add_task("rows", total=per_job * len(heads))
    for job_id, begin_us, schedule in heads:
        period = 60_000_000 if "crontab" in schedule else 1_000_000
        for first in range(1, per_job + 1, _BATCH):
            last = min(first + _BATCH - 1, per_job)
            values = {
                "job": job_id, "first": first, "last": last, "begin": begin_us, "period": period,
            }  # fmt: skip
            database.execute(_INSERT, values)
            progress.advance(bar, last - first + 1)
        database.execute(
            "UPDATE jobs SET cursor_us = ? WHERE id = ?", (begin_us + per_job * period, job_id)
        )
    # Something to find.
    database.execute("DELETE FROM executions WHERE seq = (SELECT max(seq) / 2 FROM executions)")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _measure(path: Path, rows: int, jobs: int, filled: float) -> VerifyResult:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "app", "verify", "--json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{path}", "LOG_LEVEL": "ERROR"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = json.loads(done.stdout)
    return VerifyResult(
        rows=rows,
        jobs=jobs,
        file_mib=path.stat().st_size / 2**20,
        fill_seconds=filled,
        seconds=seconds,
        rows_per_second=rows / seconds,
        peak_memory_mib=after.ru_maxrss / 1024,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        expected=answer["expected"],
        accounted=answer["accounted"],
        found=answer["unaccounted_count"],
    )


def command(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the ledger.")] = 1_000_000,
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="Jobs they belong to.")] = 100,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure the proof of a large ledger, in which one row is missing."""
    with open_bars() as progress:
        result = run_verify(rows, jobs=jobs, progress=progress)
    show(f"verify: {rows} rows of {jobs} jobs", result, as_json=as_json)
