"""What a herd does to everybody else: to the API's clients, and to lone runs of other jobs.

First a quiet time, then the herd. In both, lone jobs come due ten times a second on the herd's own
host and on another, one client reads and one writes.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import Arrival, RunFigures, Spread, Summary, judge
from benchmarks.ledger import run_figures
from benchmarks.load import creation, one_off
from benchmarks.lone import lone_dues
from benchmarks.machine import wall_seconds
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.prober import calling, probing
from benchmarks.stage import NEVER, Stage, StageOptions, check_in_time, open_stage, spread_dues
from benchmarks.target import Target

_QUIET_SECONDS = 4.0
_GAP_SECONDS = 1.0
_LONE_EVERY = 0.1
_WRITE_EVERY = 0.2
# A herd that is made more slowly than this outlasts the lone runs planned beside it.
_SLOWEST_RUNS_PER_SECOND = 800
_READS = ("/api/v1/jobs/job-0", "/api/v1/jobs?limit=50")


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessOptions:
    """How many jobs the herd has."""

    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessResult:
    """What the others felt, quiet and beside the herd.

    Reads and writes: milliseconds to the answer. Lone runs: due instant to arrival, those due until
    the herd was over; on the herd's host they wait in one line with it, up to its limit per host.
    """

    jobs: int
    herd_seconds: float
    run: RunFigures
    read_quiet_ms: Spread
    read_ms: Spread
    write_quiet_ms: Spread
    write_ms: Spread
    refused: int
    lone_quiet_ms: Spread
    lone_other_host_ms: Spread
    lone_same_host_ms: Spread
    lone_lost: int

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        lone, quiet = self.lone_other_host_ms.p99, self.lone_quiet_ms.p99
        note = f"lone p99 {lone:,g} ms beside it, {quiet:,g} before; {self.refused} calls refused"
        return Summary.of(f"api beside {self.jobs:,}", self.run, api_ms=self.read_ms, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    quiet_at: float
    herd: dict[str, float]
    same_host: dict[str, float]
    other_host: dict[str, float]

    @property
    def herd_at(self) -> float:
        return min(self.herd.values())

    @property
    def end(self) -> float:
        return max(*self.herd.values(), *self.same_host.values(), *self.other_host.values())


async def run_fairness(
    options: FairnessOptions, where: StageOptions, progress: Progress
) -> FairnessResult:
    """Let a herd run beside others and return what both came to."""
    async with open_stage(where, progress) as stage, Target(stage.folder) as other:
        plan = await _prepare(stage, other, options)
        port = stage.service.port
        write = creation("probe", other.url("never"), replace_existing=True, **one_off(NEVER))
        await stage.wait_until(plan.quiet_at)
        async with (
            probing(port, *_READS) as reads,
            calling(port, [write], every=_WRITE_EVERY) as writes,
        ):
            await asyncio.sleep(plan.herd_at - wall_seconds())
            began, before = time.perf_counter(), stage.service.usage()
            await stage.wait_until_done(options.jobs, plan.end)
        after = stage.service.usage()
        runs = await stage.ledger.runs("job-%")
    judged = judge(((arrival.key, arrival.at) for arrival in stage.target.arrivals), plan.herd)
    over = max((run.finished for run in runs if run.finished), default=plan.end)
    seconds = over - plan.herd_at
    same, elsewhere = stage.target.arrivals, other.arrivals
    quiet_lone = judge(_named(elsewhere), _due_in(plan.other_host, 0, plan.herd_at))
    return FairnessResult(
        jobs=options.jobs,
        herd_seconds=round(seconds, 2),
        run=run_figures(runs, judged, before=before, after=after),
        read_quiet_ms=reads.spread(until=began),
        read_ms=reads.spread(began, began + seconds),
        write_quiet_ms=writes.spread(until=began),
        write_ms=writes.spread(began, began + seconds),
        refused=reads.refused + writes.refused,
        lone_quiet_ms=quiet_lone.lateness_ms,
        lone_other_host_ms=_beside(elsewhere, plan.other_host, plan.herd_at, over),
        lone_same_host_ms=_beside(same, plan.same_host, plan.herd_at, over),
        lone_lost=judge(_named(elsewhere), plan.other_host).lost
        + judge(_named(same), plan.same_host).lost,
    )


async def _prepare(stage: Stage, other: Target, options: FairnessOptions) -> _Plan:
    """Create all jobs, the lone ones for longer than the herd should take."""
    beside = options.jobs / _SLOWEST_RUNS_PER_SECOND
    lone = int((_QUIET_SECONDS + _GAP_SECONDS + beside) / _LONE_EVERY)
    quiet_at = await stage.plan(options.jobs + 2 * lone)
    plan = _Plan(
        quiet_at=quiet_at,
        herd=spread_dues(options.jobs, quiet_at + _QUIET_SECONDS + _GAP_SECONDS),
        same_host=lone_dues(lone, quiet_at, every=_LONE_EVERY, name="same"),
        other_host=lone_dues(lone, quiet_at, every=_LONE_EVERY, name="other"),
    )
    await stage.create_due(plan.same_host)
    await stage.create_due(plan.other_host, url=other.url)
    await stage.create_due(plan.herd)
    check_in_time(quiet_at)
    return plan


def _beside(arrivals: list[Arrival], dues: dict[str, float], since: float, until: float) -> Spread:
    return judge(_named(arrivals), _due_in(dues, since, until)).lateness_ms


def _named(arrivals: list[Arrival]) -> list[tuple[str, float]]:
    return [(arrival.key, arrival.at) for arrival in arrivals]


def _due_in(dues: dict[str, float], since: float, until: float) -> dict[str, float]:
    return {key: due for key, due in dues.items() if since <= due < until}


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of the herd.")] = 10_000,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure the API and lone runs of other jobs while a herd runs."""
    options, where = (
        FairnessOptions(jobs=jobs),
        StageOptions(server_url=database_url, settings=read_settings(setting)),
    )
    result = measure(lambda progress: run_fairness(options, where, progress))
    show(f"api: beside a herd of {jobs}", result, as_json=as_json)
