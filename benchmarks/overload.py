"""More runs due every second than can be made: lateness grows, nothing is lost, the API answers.

Interval jobs that allow runs beside each other, however late, so that every due instant is to run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.progress import Progress

from benchmarks.figures import RunFigures, Spread, Summary
from benchmarks.ledger import Run
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.rhythm import Rhythm, play
from benchmarks.stage import StageOptions, open_stage

_EVERY_INSTANT: dict[str, Any] = {
    "overlap_policy": "allow",
    "max_instances": 1000,
    "misfire_grace_time": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadOptions:
    """How many runs are due each second, and for how many seconds."""

    per_second: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadResult:
    """What the overload came to.

    ``late_first_ms`` and ``late_last_ms`` are the median lateness of runs due in the first and in
    the last second; where it grows by less than a second a second, the service kept up in part.
    ``drained_seconds`` is how long after the last due instant the last run was over. ``left_out``
    instants have a row that says why they did not run.
    """

    due_per_second: int
    seconds: int
    instants: int
    late_first_ms: float
    late_last_ms: float
    drained_seconds: float
    left_out: int
    run: RunFigures
    api_ms: Spread

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        note = f"{self.due_per_second:,} due a second; drained in {self.drained_seconds:g} s"
        return Summary.of("overload", self.run, api_ms=self.api_ms, note=note)


async def run_overload(
    options: OverloadOptions, where: StageOptions, progress: Progress
) -> OverloadResult:
    """Overload a fresh service and return the figures."""
    async with open_stage(where, progress) as stage:
        begin = await stage.plan(options.per_second)
        rhythm = Rhythm(jobs=options.per_second, seconds=options.seconds, begin=begin)
        played = await play(stage, rhythm, rhythm.requests(stage.target, **_EVERY_INSTANT))
    runs = played.runs
    last = max((run.finished for run in runs if run.finished), default=math.nan)
    return OverloadResult(
        due_per_second=options.per_second,
        seconds=options.seconds,
        instants=rhythm.instants,
        late_first_ms=_late_ms(runs, begin, begin + 1),
        late_last_ms=_late_ms(runs, rhythm.end - 1, rhythm.end),
        drained_seconds=round(last - rhythm.end, 2),
        left_out=played.left_out,
        run=played.figures(stage.target),
        api_ms=played.api_ms,
    )


def _late_ms(runs: Sequence[Run], since: float, until: float) -> float:
    """Tell the median lateness of the runs due in a time."""
    return Spread.of(
        (run.started - run.due) * 1000
        for run in runs
        if run.started is not None and since <= run.due < until
    ).p50


def command(
    per_second: Annotated[int, typer.Option(min=1, help="Runs due each second.")] = 3000,
    seconds: Annotated[int, typer.Option(min=2, help="For how long.")] = 5,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure sustained overload: more runs due than can be made."""
    options = OverloadOptions(per_second=per_second, seconds=seconds)
    where = StageOptions(server_url=database_url, settings=read_settings(setting))
    result = measure(lambda progress: run_overload(options, where, progress))
    show(f"overload: {per_second} due a second for {seconds} s", result, as_json=as_json)
