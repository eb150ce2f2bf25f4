"""PgQueuer's part of the question which queue carries the runs; see ``benchmarks.queues``.

A script for the throw-away interpreter, which has PgQueuer; nothing of ours imports it.
``python pgqueuer_cycle.py STEP URL ROWS BATCH`` does one step and prints what it came to as JSON:
``prepare`` makes its tables, ``enqueue`` puts ROWS into the queue, ``drain`` says ready, waits for
a line on standard input and then claims and completes until nothing is left, and ``tick`` writes
rows into our executions with and without queueing them in the same transaction, in turn.
"""

import asyncio
import json
import statistics
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import EntrypointExecutionParameter, Queries

_ENTRYPOINT = "run"
_LEASE = timedelta(seconds=40)
_TICKS = 30
_INSERT = """INSERT INTO executions (id, job_id, job_revision, clock_epoch, cause, scheduled_us,
    instant_count, status, exclusive, attempts, retries, next_attempt_us, queued_us)
    VALUES ($1, $2, 1, 0, 'schedule', $3, 1, 'queued', 1, 0, 0, $3, $3)"""


async def prepare(queries: Queries, _connection: Any, _rows: int, _batch: int) -> dict[str, Any]:
    """Make the tables, durable as they are by default."""
    await queries.install()
    return {}


async def enqueue(queries: Queries, _connection: Any, rows: int, batch: int) -> dict[str, Any]:
    """Queue as many as a tick writes at once, until all are queued."""
    began = time.perf_counter()
    for start in range(0, rows, batch):
        await _enqueue(queries, [f"run-{start + number}".encode() for number in range(batch)])
    return {"seconds": time.perf_counter() - began}


async def drain(queries: Queries, _connection: Any, _rows: int, batch: int) -> dict[str, Any]:
    """Claim and complete in batches until the queue is empty."""
    entrypoints = {_ENTRYPOINT: EntrypointExecutionParameter(concurrency_limit=0)}
    manager = uuid.uuid4()
    await asyncio.to_thread(_wait_for_go)
    began, done, claiming = time.perf_counter(), 0, 0.0
    while True:
        claim_began = time.perf_counter()
        jobs = await queries.dequeue(batch, entrypoints, manager, None, _LEASE)
        claiming += time.perf_counter() - claim_began
        if not jobs:
            break
        await queries.log_jobs([(job, "successful", None) for job in jobs])
        done += len(jobs)
    return {"seconds": time.perf_counter() - began, "claim_seconds": claiming, "done": done}


async def tick(queries: Queries, connection: Any, _rows: int, batch: int) -> dict[str, Any]:
    """Time transactions that write rows, and others that queue them as well."""
    bare, queued = [], []
    for number in range(_TICKS):
        for times, is_queued in ((bare, False), (queued, True)):
            instant = 1_000_000 * (2 * number + is_queued + 1)
            ids = [f"tick-{instant}-{job}" for job in range(batch)]
            values = [(row, f"job-{job}", instant) for job, row in enumerate(ids)]
            began = time.perf_counter()
            async with connection.transaction():
                await connection.executemany(_INSERT, values)
                if is_queued:
                    await _enqueue(queries, [row.encode() for row in ids])
            times.append((time.perf_counter() - began) * 1000)
    return {"bare_ms": statistics.median(bare), "queued_ms": statistics.median(queued)}


def _wait_for_go() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


async def _enqueue(queries: Queries, payloads: list[bytes | None]) -> None:
    count = len(payloads)
    await queries.enqueue([_ENTRYPOINT] * count, payloads, [0] * count)


async def main(step: str, url: str, rows: str, batch: str) -> None:
    """Do one step."""
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    steps = {"prepare": prepare, "enqueue": enqueue, "drain": drain, "tick": tick}
    said = await steps[step](queries, connection, int(rows), int(batch))
    await connection.close()
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
