"""Runs that are each alone: how long after its instant the first byte of each arrives.

One-off jobs, each due some time after the one before, at no round instant.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import RunFigures, Summary, judge
from benchmarks.ledger import run_figures
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.stage import StageOptions, open_stage

# Its multiples modulo 1 are spread evenly: no two runs meet the service's timers alike.
_GOLDEN = 0.618034


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneOptions:
    """How many runs, and how many seconds lie between two of them."""

    runs: int
    every: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneResult:
    """What the runs came to; ``run.at_target_ms`` is due instant to first byte."""

    every_ms: float
    run: RunFigures

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        return Summary.of("lone runs", self.run)


async def run_lone(options: LoneOptions, where: StageOptions, progress: Progress) -> LoneResult:
    """Run each job alone and return the figures."""
    async with open_stage(where, progress) as stage:
        due = await stage.plan(options.runs)
        dues = lone_dues(options.runs, due, every=options.every)
        await stage.create_due(dues)
        await stage.wait_until(due)
        before = stage.service.usage()
        await stage.wait_until_done(options.runs, max(dues.values()))
        after = stage.service.usage()
        runs = await stage.ledger.runs("lone-%")
    judged = judge(((arrival.key, arrival.at) for arrival in stage.target.arrivals), dues)
    return LoneResult(
        every_ms=options.every * 1000,
        run=run_figures(runs, judged, before=before, after=after),
    )


def lone_dues(runs: int, due: float, *, every: float, name: str = "lone") -> dict[str, float]:
    """Tell when each is due: one in each stretch of ``every`` seconds, in its first half."""
    return {
        f"{name}-{number}": round(due + every * (number + number * _GOLDEN % 1 / 2), 6)
        for number in range(runs)
    }


def command(
    runs: Annotated[int, typer.Option(min=1, help="How many runs.")] = 100,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds from one to the next.")] = 0.2,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure runs that are each alone: due instant to first byte."""
    options, where = (
        LoneOptions(runs=runs, every=every),
        StageOptions(server_url=database_url, settings=read_settings(setting)),
    )
    result = measure(lambda progress: run_lone(options, where, progress))
    show(f"lone: {runs} runs, one every {every:g} s", result, as_json=as_json)
