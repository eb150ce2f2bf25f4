"""Half of the targets answer after a second: what that does to the jobs of the other half.

First only the quick half is due, then both at one instant. The slow half has a host of its own,
or shares that of the quick one (``same_host``), where the limit per host is what is seen.
"""

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import Spread, Summary, judge
from benchmarks.machine import Usage
from benchmarks.printing import AsJson, HostConcurrency, ServerUrl, measure, show
from benchmarks.prober import Calls, probing
from benchmarks.stage import Stage, StageOptions, open_stage, spread_dues
from benchmarks.target import Target

_SLOW_WAY = "after/1"
_READS = ("/api/v1/jobs/quick-0", "/api/v1/jobs?limit=50")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowTargetsOptions:
    """How many jobs, half of them slow, and whether all are on one host."""

    jobs: int
    same_host: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowTargetsResult:
    """Lateness at arrival of the quick half alone, then of both halves; whether each came once."""

    jobs: int
    alone_ms: Spread
    quick_ms: Spread
    slow_ms: Spread
    lost: int
    doubled: int
    cpu_ms_per_run: float
    memory_mib: float
    api_ms: Spread

    def summary(self) -> Summary:
        """Give a row for the table of a suite; its lateness is that of the quick half."""
        return Summary(
            scenario="slow targets",
            late_p50_ms=self.quick_ms.p50,
            late_p99_ms=self.quick_ms.p99,
            late_max_ms=self.quick_ms.max,
            lost=self.lost,
            doubled=self.doubled,
            cpu_ms_per_run=self.cpu_ms_per_run,
            memory_mib=self.memory_mib,
            api_p99_ms=self.api_ms.p99,
            note=f"the quick half; alone its p99 was {self.alone_ms.p99:,g} ms",
        )


async def run_slow_targets(
    options: SlowTargetsOptions, where: StageOptions, progress: Progress
) -> SlowTargetsResult:
    """Let the quick half run alone, then both, and return the figures."""
    half = max(options.jobs // 2, 1)
    async with open_stage(where, progress) as stage, Target(stage.folder) as other:
        slow_target = stage.target if options.same_host else other
        due = await stage.plan(half)
        alone = spread_dues(half, due, name="alone")
        await stage.create_due(alone)
        await stage.wait_until(due)
        await stage.wait_until_done(half, due)
        due = await stage.plan(2 * half)
        quick = spread_dues(half, due, name="quick")
        slow = spread_dues(half, due, name="slow")
        await stage.create_due(slow, url=lambda key: slow_target.url(key, way=_SLOW_WAY))
        await stage.create_due(quick)
        calls, before, after = await _watch(stage, due, 2 * half)
    arrivals = [
        (arrival.key, arrival.at) for target in (stage.target, other) for arrival in target.arrivals
    ]
    judged = [judge(arrivals, dues) for dues in (alone, quick, slow)]
    return SlowTargetsResult(
        jobs=2 * half,
        alone_ms=judged[0].lateness_ms,
        quick_ms=judged[1].lateness_ms,
        slow_ms=judged[2].lateness_ms,
        lost=sum(found.lost for found in judged),
        doubled=sum(found.doubled for found in judged),
        cpu_ms_per_run=round((after.cpu_seconds - before.cpu_seconds) / (2 * half) * 1000, 3),
        memory_mib=round(after.peak_memory_mib, 1),
        api_ms=calls.spread(),
    )


async def _watch(stage: Stage, due: float, runs: int) -> tuple[Calls, Usage, Usage]:
    await stage.wait_until(due)
    before = stage.service.usage()
    async with probing(stage.service.port, *_READS) as calls:
        await stage.wait_until_done(runs, due)
    return calls, before, stage.service.usage()


def command(
    jobs: Annotated[int, typer.Option(min=2, help="Jobs due at once, half of them slow.")] = 200,
    host_concurrency: HostConcurrency = 10,
    database_url: ServerUrl = None,
    *,
    same_host: Annotated[bool, typer.Option("--same-host", help="One host for all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure jobs beside others whose targets answer after a second."""
    options = SlowTargetsOptions(jobs=jobs, same_host=same_host)
    where = StageOptions(
        server_url=database_url, settings={"MYSCHEDULER_HOST_CONCURRENCY": str(host_concurrency)}
    )
    result = measure(lambda progress: run_slow_targets(options, where, progress))
    show(f"slow-targets: {jobs} jobs, half of them slow", result, as_json=as_json)
