"""What a further process adds on PostgreSQL, where each has a share of a core and no more.

Processes that share all cores with their database and their target tell little about that: the
first of them has most of what there is. Here each gets what a container would be given; what the
database and the target use on the same machine comes on top.
"""

import contextlib
import math
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.bout import Bout, Ring, fight
from benchmarks.contenders import Contender, Ground, Rows, Wish, myscheduler_postgres
from benchmarks.cpu_limit import CpuLimit
from benchmarks.installed import Installed
from benchmarks.printing import AsJson, measure, show_list
from benchmarks.stores import DurablePostgres


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasOptions:
    """How many processes at most, with how much of a core each, on how many jobs, how often."""

    processes: int
    cores: float
    jobs: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasResult:
    """Medians of all rounds with so many processes; ``times_one`` is the median of their ratios."""

    processes: int
    per_second: float
    times_one: float
    p99_ms: float
    cpu_ms_per_run: float
    database_cpu_ms_per_run: float
    lost: int
    doubled: int


class _Limited:
    """A contender whose processes are held to a part of a core once the jobs are stored."""

    has_api = True

    def __init__(self, contender: Contender, stack: contextlib.ExitStack, *, cores: float) -> None:
        self._contender = contender
        self._stack = stack
        self._cores = cores

    async def rehearse(self) -> float:
        return await self._contender.rehearse()

    async def create(self, wishes: Sequence[Wish]) -> float:
        seconds = await self._contender.create(wishes)
        self._stack.enter_context(CpuLimit(self.pids(), cores=self._cores))
        return seconds

    async def rows(self) -> Rows:
        return await self._contender.rows()

    def pids(self) -> list[int]:
        return self._contender.pids()

    def store_pids(self) -> list[int]:
        return self._contender.store_pids()


@contextlib.asynccontextmanager
async def _limited(ground: Ground, *, processes: int, cores: float) -> AsyncIterator[Contender]:
    # The groups are removed when the processes are gone.
    with contextlib.ExitStack() as stack:
        async with myscheduler_postgres(ground, processes=processes) as contender:
            yield _Limited(contender, stack, cores=cores)


async def run_replicas(options: ReplicasOptions, progress: Progress) -> list[ReplicasResult]:
    """Measure one process, two, and so on, in turns; round by round."""
    bouts: dict[int, list[Bout]] = {number: [] for number in range(1, options.processes + 1)}
    task = progress.add_task("replicas", total=options.processes * options.rounds)
    postgres = DurablePostgres()
    postgres.start()
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            ring = Ring(postgres=postgres, installed=Installed(Path(folder)))
            for _ in range(options.rounds):
                for number, found in bouts.items():
                    opener = partial(_limited, processes=number, cores=options.cores)
                    name = f"{number} processes"
                    found.append(await fight(name, opener, ring, jobs=options.jobs, lone=False))
                    progress.advance(task)
    finally:
        postgres.stop()
    return [_result(number, found, bouts[1]) for number, found in bouts.items()]


def _result(processes: int, bouts: Sequence[Bout], alone: Sequence[Bout]) -> ReplicasResult:
    return ReplicasResult(
        processes=processes,
        per_second=round(median(bout.per_second for bout in bouts)),
        times_one=round(
            median(
                bout.per_second / one.per_second if one.per_second else math.nan
                for bout, one in zip(bouts, alone, strict=True)
            ),
            2,
        ),
        p99_ms=round(median(bout.lateness_ms.p99 for bout in bouts)),
        cpu_ms_per_run=round(median(bout.cpu_ms_per_run for bout in bouts), 3),
        database_cpu_ms_per_run=round(median(bout.stores_cpu_ms_per_run for bout in bouts), 3),
        lost=sum(bout.lost for bout in bouts),
        doubled=sum(bout.doubled for bout in bouts),
    )


def command(
    processes: Annotated[int, typer.Option(min=1, help="Processes at most.")] = 3,
    cores: Annotated[float, typer.Option(min=0.05, help="Cores for each process.")] = 0.25,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs due at once.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are of these.")] = 3,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure what further processes add on PostgreSQL, each held to a part of a core."""
    options = ReplicasOptions(processes=processes, cores=cores, jobs=jobs, rounds=rounds)
    results = measure(lambda progress: run_replicas(options, progress))
    show_list(f"replicas: {cores:g} of a core each, {jobs} jobs", results, as_json=as_json)
