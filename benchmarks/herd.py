"""Many one-off jobs due at one instant, or spread over some seconds.

How late they start, whether each runs once, and what the API feels of it.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import RunFigures, Spread, Summary, judge, rate
from benchmarks.ledger import queued_ms, run_figures
from benchmarks.printing import (
    AsJson,
    HostConcurrency,
    ServerUrl,
    Settings,
    measure,
    read_settings,
    show,
)
from benchmarks.prober import probing
from benchmarks.stage import StageOptions, open_stage, spread_dues

_PROBED = ("/api/v1/jobs/job-0", "/api/v1/jobs?limit=50")


@dataclass(frozen=True, slots=True, kw_only=True)
class HerdOptions:
    """How many jobs, and over how many seconds they are due."""

    jobs: int
    spread: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HerdResult:
    """What one herd came to.

    ``queued_ms`` is due instant to row: how far the tick was behind. ``api_ms`` is the latency of
    reads while the herd ran.
    """

    jobs: int
    created_per_second: float
    run: RunFigures
    queued_ms: Spread
    api_ms: Spread

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        return Summary.of(f"herd of {self.jobs:,}", self.run, api_ms=self.api_ms)


async def run_herd(options: HerdOptions, where: StageOptions, progress: Progress) -> HerdResult:
    """Run one herd against a fresh service and return its figures."""
    async with open_stage(where, progress) as stage:
        due = await stage.plan(options.jobs)
        dues = spread_dues(options.jobs, due, spread=options.spread)
        load = await stage.create_due(dues)
        await stage.wait_until(due)
        before = stage.service.usage()
        async with probing(stage.service.port, *_PROBED) as calls:
            await stage.wait_until_done(options.jobs, max(dues.values()))
        after = stage.service.usage()
        runs = await stage.ledger.runs("job-%")
    judged = judge(((arrival.key, arrival.at) for arrival in stage.target.arrivals), dues)
    return HerdResult(
        jobs=options.jobs,
        created_per_second=rate(options.jobs, load.seconds),
        run=run_figures(runs, judged, before=before, after=after),
        queued_ms=queued_ms(runs),
        api_ms=calls.spread(),
    )


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs due at once.")] = 1000,
    spread: Annotated[float, typer.Option(min=0, help="Seconds over which they are due.")] = 0.0,
    host_concurrency: HostConcurrency = 200,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure a herd: many jobs due at one instant, or within some seconds."""
    options = HerdOptions(jobs=jobs, spread=spread)
    settings = read_settings(setting, MYSCHEDULER_HOST_CONCURRENCY=str(host_concurrency))
    where = StageOptions(server_url=database_url, settings=settings)
    result = measure(lambda progress: run_herd(options, where, progress))
    show(f"herd: {jobs} jobs due within {spread:g} s", result, as_json=as_json)
