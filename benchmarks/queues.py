"""Which queue carries the runs: claims on our own executions, or PgQueuer beside them.

The same number of runs goes through both on the same durable PostgreSQL: one process enqueues as
ticks do, then one or two processes claim a batch and complete it until nothing is left. Ours is the
whole of it (rows of the ledger, next run times, intent, counters, outcomes); with PgQueuer the
ledger's rows would have to be written as well, so what it takes comes on top.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.database import fresh_database
from benchmarks.figures import rate
from benchmarks.installed import Installed
from benchmarks.machine import ROOT
from benchmarks.stores import DurablePostgres

OURS, PGQUEUER = "executions table", "PgQueuer"
ENQUEUE_BATCH, CLAIM_BATCH = 200, 100
_FOREIGN = Path(__file__).parent / "baselines" / "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """One round of one queue, with so many claiming processes; rates per second.

    ``claimed_per_second`` is that of the time spent on claims, ``cycles_per_second`` what
    enqueueing, claiming and completing come to one after the other.
    """

    queue: str
    processes: int
    runs: int
    enqueued_per_second: float
    claimed_per_second: float
    drained_per_second: float
    cycles_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TickFigures:
    """What queueing a tick's rows adds to their transaction, in milliseconds for each ``rows``."""

    rows: int
    bare_ms: float
    queued_ms: float


async def measure_queues(
    postgres: DurablePostgres, installed: Installed, *, runs: int
) -> list[QueueFigures]:
    """Measure both queues with one and with two processes, each in a database of its own."""
    commands = {
        OURS: (sys.executable, "-m", "benchmarks.claims"),
        PGQUEUER: (str(installed.python), str(_FOREIGN / "pgqueuer_cycle.py")),
    }
    return [
        await _measure(queue, command, postgres, runs=runs, processes=processes)
        for processes in (1, 2)
        for queue, command in commands.items()
    ]


async def measure_tick(postgres: DurablePostgres, installed: Installed) -> TickFigures:
    """Time a tick's rows without and with queueing them."""
    ours = (sys.executable, "-m", "benchmarks.claims")
    theirs = (str(installed.python), str(_FOREIGN / "pgqueuer_cycle.py"))
    async with _database(postgres) as url:
        await _run(ours, "prepare", url, ENQUEUE_BATCH, ENQUEUE_BATCH)
        await _run(theirs, "prepare", url, 0, ENQUEUE_BATCH)
        said = await _run(theirs, "tick", url, 0, ENQUEUE_BATCH)
    return TickFigures(
        rows=ENQUEUE_BATCH,
        bare_ms=round(said["bare_ms"], 2),
        queued_ms=round(said["queued_ms"], 2),
    )


async def _measure(
    queue: str, command: tuple[str, ...], postgres: DurablePostgres, *, runs: int, processes: int
) -> QueueFigures:
    async with _database(postgres) as url:
        await _run(command, "prepare", url, runs, ENQUEUE_BATCH)
        enqueued = (await _run(command, "enqueue", url, runs, ENQUEUE_BATCH))["seconds"]
        workers = [await _start(command, "drain", url, runs, CLAIM_BATCH) for _ in range(processes)]
        for worker in workers:
            assert worker.stdout is not None
            await worker.stdout.readline()
        said = await asyncio.gather(*(_end(worker, b"go\n") for worker in workers))
    done = sum(one["done"] for one in said)
    if done != runs:
        raise RuntimeError(f"{queue}: {done} of {runs} runs were completed")
    drained = max(one["seconds"] for one in said)
    claiming = sum(one["claim_seconds"] for one in said) / processes
    return QueueFigures(
        queue=queue,
        processes=processes,
        runs=runs,
        enqueued_per_second=rate(runs, enqueued),
        claimed_per_second=rate(runs, claiming),
        drained_per_second=rate(runs, drained),
        cycles_per_second=rate(runs, enqueued + drained),
    )


def _database(postgres: DurablePostgres) -> contextlib.AbstractAsyncContextManager[str]:
    return fresh_database(Path(tempfile.gettempdir()), postgres.url)


async def _run(
    command: tuple[str, ...], step: str, url: str, rows: int, batch: int
) -> dict[str, float]:
    return await _end(await _start(command, step, url, rows, batch))


async def _start(
    command: tuple[str, ...], step: str, url: str, rows: int, batch: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, step, url, str(rows), str(batch),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _end(process: asyncio.subprocess.Process, said: bytes = b"") -> dict[str, float]:
    output, _ = await process.communicate(said)
    if process.returncode:
        raise RuntimeError("a queue's process failed; see above")
    found: dict[str, float] = json.loads(output)
    return found
