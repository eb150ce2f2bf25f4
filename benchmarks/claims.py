"""Our part of the question which queue carries the runs; see ``benchmarks.queues``.

``python -m benchmarks.claims STEP URL ROWS BATCH`` does one step on the real tables, by the
functions that the service uses, and prints what it came to as JSON: ``prepare`` migrates and stores
ROWS jobs, ``enqueue`` writes an execution for each as ticks do, and ``drain`` says ready, waits for
a line on standard input and then claims and records until nothing is left.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import uvloop

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.db.unit_of_work import WriteConnection
from app.domain.execution import (
    AttemptOutcome,
    ClaimedRun,
    ExecutionStatus,
    Outcome,
    WaitingRun,
)
from app.domain.ids import JobId
from app.repositories import (
    execution_repository,
    job_repository,
    run_repository,
    waiting_repository,
)
from app.repositories.job_repository import Advance
from app.repositories.run_repository import Ending
from tests.conformance.builders import NOW, NOW_US, make_claim, make_job, make_limits, make_row
from tests.support.databases import Database, open_database

_SWEEP_ROWS = 20_000
_MINUTE = timedelta(minutes=1)


async def prepare(database: Database, rows: int, batch: int) -> dict[str, Any]:
    """Store the jobs."""

    def insert(connection: WriteConnection, first: int) -> None:
        for number in range(first, min(first + batch, rows)):
            job_repository.insert_job(connection, make_job(f"job-{number}"), actor=None)

    for first in range(0, rows, batch):
        await database.write(insert, first)
    return {}


async def enqueue(database: Database, rows: int, batch: int) -> dict[str, Any]:
    """Write ticks: execution rows, and the jobs' next run times, in one transaction."""
    began = time.perf_counter()
    for first in range(0, rows, batch):
        await database.write(_write_tick, range(first, min(first + batch, rows)))
    return {"seconds": time.perf_counter() - began}


async def drain(database: Database, _rows: int, batch: int) -> dict[str, Any]:
    """Sweep, then claim and record in batches, until nothing waits."""
    await asyncio.to_thread(_wait_for_go)
    began, done, claiming = time.perf_counter(), 0, 0.0
    while True:
        claim_began = time.perf_counter()
        waiting = await _sweep(database)
        claiming += time.perf_counter() - claim_began
        if not waiting:
            break
        for start in range(0, len(waiting), batch):
            claim_began = time.perf_counter()
            claimed = await database.write(_claim, waiting[start : start + batch])
            claiming += time.perf_counter() - claim_began
            endings = [_ending(run) for run in claimed]
            done += len(await database.write(run_repository.record_endings, endings))
    return {"seconds": time.perf_counter() - began, "claim_seconds": claiming, "done": done}


def _wait_for_go() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


async def _sweep(database: Database) -> list[WaitingRun]:
    found = await database.read(
        waiting_repository.soonest_runs,
        limits=make_limits(until=NOW + _MINUTE, rows=_SWEEP_ROWS),
    )
    return found.runs


def _write_tick(connection: WriteConnection, numbers: range) -> None:
    names = [f"job-{number}" for number in numbers]
    rows = [make_row(job_id=name) for name in names]
    execution_repository.insert_executions(connection, rows, now_us=NOW_US)
    job_repository.advance_jobs(connection, [_advance(name) for name in names])


def _advance(name: str) -> Advance:
    due = NOW + _MINUTE
    return Advance(
        job_id=JobId(name), revision=1, was=due, accounted_until=due, next_run_time=due + _MINUTE
    )


def _claim(connection: WriteConnection, waiting: Sequence[WaitingRun]) -> list[ClaimedRun]:
    claimed, _ = run_repository.claim_runs(connection, waiting, make_claim())
    starts = {run.attempt.job_id: 1 for run in claimed}
    job_repository.count_starts(connection, starts)
    return claimed


def _ending(run: ClaimedRun) -> Ending:
    claim = make_claim()
    return Ending(
        execution_id=run.attempt.execution_id,
        number=run.attempt.number,
        owner=claim.owner,
        fence=claim.fence,
        started_at=run.attempt.started_at,
        ended_at=run.attempt.started_at,
        status=ExecutionStatus.COMPLETED,
        reason=None,
        outcome=Outcome(kind=AttemptOutcome.RESPONSE, http_status=200, response_bytes=2),
        retries=0,
        next_attempt_at=None,
    )


async def main(step: str, url: str, rows: str, batch: str) -> None:
    """Do one step."""
    if step == "prepare":
        await migrate(DatabaseOptions(url=url))
    steps = {"prepare": prepare, "enqueue": enqueue, "drain": drain}
    async with open_database(url) as database:
        said = await steps[step](database, int(rows), int(batch))
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
