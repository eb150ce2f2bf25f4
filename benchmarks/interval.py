"""Interval jobs, each due once a second: whether every instant runs once, and how late."""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import RunFigures, Spread, Summary
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.rhythm import Rhythm, play
from benchmarks.stage import StageOptions, open_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalOptions:
    """How many jobs, for how many seconds, and whether all are due at the same instants."""

    jobs: int
    seconds: int
    aligned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalResult:
    """What the instants came to. ``left_out`` of them have a row but did not run (an overlap)."""

    jobs: int
    instants: int
    left_out: int
    run: RunFigures
    api_ms: Spread

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        note = f"{self.left_out} left out" if self.left_out else ""
        name = f"{self.jobs:,} interval jobs"
        return Summary.of(name, self.run, api_ms=self.api_ms, note=note)


async def run_interval(
    options: IntervalOptions, where: StageOptions, progress: Progress
) -> IntervalResult:
    """Let the jobs run for their time and return the figures."""
    async with open_stage(where, progress) as stage:
        begin = await stage.plan(options.jobs)
        rhythm = Rhythm(
            jobs=options.jobs, seconds=options.seconds, begin=begin, aligned=options.aligned
        )
        played = await play(stage, rhythm, rhythm.requests(stage.target))
    return IntervalResult(
        jobs=options.jobs,
        instants=rhythm.instants,
        left_out=played.left_out,
        run=played.figures(stage.target),
        api_ms=played.api_ms,
    )


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs, each due once a second.")] = 200,
    seconds: Annotated[int, typer.Option(min=1, help="For how long.")] = 10,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    aligned: Annotated[bool, typer.Option("--aligned", help="All at the same instants.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure interval jobs: a steady load, spread over each second or all at once."""
    options = IntervalOptions(jobs=jobs, seconds=seconds, aligned=aligned)
    where = StageOptions(server_url=database_url, settings=read_settings(setting))
    result = measure(lambda progress: run_interval(options, where, progress))
    show(f"interval: {jobs} jobs for {seconds} s", result, as_json=as_json)
