"""Creating jobs, each answered after its commit: a few clients, many clients, and while runs go on.

The load generator shares the machine. ``client_cpu_ms`` says what it takes per job: where that is
near ``service_cpu_ms``, the generator is measured as much as the service.
"""

import asyncio
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import Spread, Summary, rate
from benchmarks.load import Load, creation, one_off, send_all
from benchmarks.machine import Usage
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show_list
from benchmarks.stage import NEVER, Stage, StageOptions, open_stage, spread_dues


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationOptions:
    """How many jobs, by how many clients, by how large a crowd, and beside how large a herd."""

    jobs: int
    clients: int
    crowd: int
    herd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationResult:
    """One way of creating jobs; CPU is per job, NaN where it cannot be told from that of runs."""

    way: str
    jobs: int
    clients: int
    per_second: float
    answer_ms: Spread
    service_cpu_ms: float
    client_cpu_ms: float

    def summary(self) -> Summary:
        """Give a row for the table of a suite; its latency is that of a creation."""
        note = f"{self.per_second:,g} jobs/s by {self.clients} clients"
        if not math.isnan(self.service_cpu_ms):
            note += f", {self.service_cpu_ms:g} ms CPU each"
        return Summary(scenario=f"creation, {self.way}", api_p99_ms=self.answer_ms.p99, note=note)


async def run_creation(
    options: CreationOptions, where: StageOptions, progress: Progress
) -> list[CreationResult]:
    """Create jobs in each way, on one fresh service, and return a row for each."""
    async with open_stage(where, progress) as stage:
        await stage.plan(options.jobs)
        return [
            await _create(stage, "quiet", options.jobs, clients=options.clients),
            await _create(stage, "crowd", options.jobs, clients=options.crowd),
            await _create_beside(stage, options),
        ]


async def _create(stage: Stage, way: str, jobs: int, *, clients: int) -> CreationResult:
    before = stage.service.usage()
    requests = list(itertools.islice(_idle_jobs(stage, way), jobs))
    load = await stage.create(requests, title=f"{way} {jobs}", clients=clients)
    return _result(way, load, clients, before, stage.service.usage())


async def _create_beside(stage: Stage, options: CreationOptions) -> CreationResult:
    """Create jobs from the instant at which a herd is due until it is over."""
    due = await stage.plan(options.herd)
    await stage.create_due(spread_dues(options.herd, due))
    await stage.wait_until(due)
    over = asyncio.Event()
    requests = itertools.takewhile(lambda _: not over.is_set(), _idle_jobs(stage, "saturated"))

    async def wait() -> None:
        await stage.wait_until_done(options.herd, due)
        over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        load = await send_all(stage.service.port, requests, clients=options.clients)
    return _result("saturated", load, options.clients, None, None)


def _idle_jobs(stage: Stage, name: str) -> Iterator[bytes]:
    for number in itertools.count():
        yield creation(f"{name}-{number}", stage.target.url("never"), **one_off(NEVER))


def _result(
    way: str, load: Load, clients: int, before: Usage | None, after: Usage | None
) -> CreationResult:
    jobs = len(load.answers_ms)
    cpu = math.nan
    if before is not None and after is not None:
        cpu = (after.cpu_seconds - before.cpu_seconds) / jobs * 1000
    return CreationResult(
        way=way,
        jobs=jobs,
        clients=clients,
        per_second=rate(jobs, load.seconds),
        answer_ms=Spread.of(load.answers_ms),
        service_cpu_ms=round(cpu, 3),
        client_cpu_ms=round(load.cpu_seconds / max(jobs, 1) * 1000, 3),
    )


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to create in each way.")] = 2000,
    clients: Annotated[int, typer.Option(min=1, help="Connections of the few.")] = 20,
    crowd: Annotated[int, typer.Option(min=1, help="Connections of the many.")] = 500,
    herd: Annotated[int, typer.Option(min=1, help="Runs that saturate the service.")] = 3000,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure creating jobs: few clients, many, and while the service is saturated with runs."""
    options = CreationOptions(jobs=jobs, clients=clients, crowd=crowd, herd=herd)
    where = StageOptions(server_url=database_url, settings=read_settings(setting))
    results = measure(lambda progress: run_creation(options, where, progress))
    show_list(f"creation: {jobs} jobs", results, as_json=as_json)
