"""The service under a steady mixed load for long: memory, files and lateness should stay.

Interval jobs that succeed and some that fail, one-off jobs made all the while, and readers of the
API. What the service uses is noted all along.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import RunFigures, Spread, Summary, judge, slope
from benchmarks.ledger import Run, count_left_out, lateness_ms, run_figures
from benchmarks.load import creation, one_off
from benchmarks.machine import Usage
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.prober import calling, probing
from benchmarks.rhythm import Rhythm, judge_rhythm
from benchmarks.stage import Stage, StageOptions, check_in_time, open_stage

_READS = (
    "/api/v1/jobs/beat-0",
    "/api/v1/jobs?limit=50",
    "/api/v1/executions?limit=50",
    "/api/v1/jobs/beat-0/executions?limit=50",
)
_READ_EVERY, _CREATE_EVERY = 0.2, 0.5
# How far ahead the one-off jobs are due.
_AHEAD_SECONDS = 2.0
# The last note may be taken later than planned; no one-off job is made twice.
_SPARE = 60
_SAMPLES_MAX = 600
# Caches and pools fill up first: a slope over the whole time would be theirs.
_SETTLED_SHARE = 1 / 3
_SLOPE_SECONDS_MIN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """How long, and how many interval jobs; a tenth of them as many fail beside them."""

    minutes: float
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    """What the time came to; "settled" is after its first third.

    ``memory_mib_per_hour`` is the straight line through the samples since then, if that is at least
    two minutes. ``threads`` are the operating system's tasks. ``wal_mib_max`` is the largest that
    SQLite's write-ahead log has been. ``one_offs_lost`` ended as completed and never arrived.
    """

    minutes: float
    run: RunFigures
    failed_runs: int
    one_off_runs: int
    one_offs_lost: int
    left_out: int
    memory_settled_mib: float
    memory_end_mib: float
    memory_mib_per_hour: float
    files_settled: int
    files_end: int
    threads_settled: int
    threads_end: int
    wal_mib_max: float
    late_first_third_ms: Spread
    late_last_third_ms: Spread
    api_ms: Spread
    refused: int

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        note = (
            f"memory {self.memory_settled_mib:g} → {self.memory_end_mib:g} MiB,"
            f" files {self.files_settled} → {self.files_end}"
        )
        return Summary.of(f"soak, {self.minutes:g} min", self.run, api_ms=self.api_ms, note=note)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    usage: Usage
    wal_mib: float


async def run_soak(options: SoakOptions, where: StageOptions, progress: Progress) -> SoakResult:
    """Load a fresh service for the time and return the figures."""
    seconds = max(int(options.minutes * 60), 3)
    async with open_stage(where, progress) as stage:
        begin = await stage.plan(options.jobs + options.jobs // 10)
        beat = Rhythm(jobs=options.jobs, seconds=seconds, begin=begin)
        flop = Rhythm(jobs=options.jobs // 10 or 1, seconds=seconds, begin=begin, name="flop")
        requests = beat.requests(stage.target) + flop.requests(stage.target, way="fail")
        await stage.create(requests, title=f"create {len(requests)}")
        check_in_time(begin)
        await stage.wait_until(begin)
        before = stage.service.usage()
        once = _one_offs(stage, begin, seconds)
        async with (
            probing(stage.service.port, *_READS, every=_READ_EVERY) as reads,
            calling(stage.service.port, once, every=_CREATE_EVERY) as writes,
        ):
            samples = await _sample(stage, seconds)
        await stage.wait_until_done(beat.instants + flop.instants, beat.end + _AHEAD_SECONDS)
        after = stage.service.usage()
        runs, failed, onces = [
            await stage.ledger.runs(jobs) for jobs in ("beat-%", "flop-%", "once-%")
        ]
    judged = judge_rhythm(beat, runs, [a for a in stage.target.arrivals if "beat" in a.key])
    left_out = count_left_out(runs)
    once_judged = judge(
        ((arrival.identity, arrival.at) for arrival in stage.target.arrivals),
        {run.id: run.due for run in onces if run.status == "completed"},
    )
    settled = samples[int(len(samples) * _SETTLED_SHARE) :]
    third = seconds * _SETTLED_SHARE
    return SoakResult(
        minutes=round(seconds / 60, 2),
        run=run_figures(runs, judged, before=before, after=after, left_out=left_out),
        failed_runs=sum(run.status == "failed" for run in failed),
        one_off_runs=once_judged.arrived,
        one_offs_lost=once_judged.lost,
        left_out=left_out,
        memory_settled_mib=round(settled[0].usage.memory_mib, 1),
        memory_end_mib=round(settled[-1].usage.memory_mib, 1),
        memory_mib_per_hour=_rise(settled),
        files_settled=settled[0].usage.open_files,
        files_end=settled[-1].usage.open_files,
        threads_settled=settled[0].usage.threads,
        threads_end=settled[-1].usage.threads,
        wal_mib_max=round(max(sample.wal_mib for sample in samples), 1),
        late_first_third_ms=lateness_ms(_due_in(runs, lambda at: at < begin + third)),
        late_last_third_ms=lateness_ms(_due_in(runs, lambda at: at >= beat.end - third)),
        api_ms=reads.spread(),
        refused=reads.refused + writes.refused,
    )


async def _sample(stage: Stage, seconds: int) -> list[_Sample]:
    """Note what the service uses until the time is over."""
    task = stage.progress.add_task(f"soak {seconds} s", total=seconds)
    every = max(seconds / _SAMPLES_MAX, 0.5)
    wal = stage.folder / "jobs.db-wal"
    samples: list[_Sample] = []
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        samples.append(_Sample(passed, stage.service.usage(), _size_mib(wal)))
        stage.progress.update(task, completed=passed)
        await asyncio.sleep(every)
    stage.progress.update(task, completed=seconds)
    return samples


def _rise(samples: Sequence[_Sample]) -> float:
    """Tell by how many MiB an hour the memory grew; NaN for a time too short to tell."""
    if samples[-1].at - samples[0].at < _SLOPE_SECONDS_MIN:
        return math.nan
    return round(slope([(sample.at / 3600, sample.usage.memory_mib) for sample in samples]), 2)


def _one_offs(stage: Stage, begin: float, seconds: int) -> list[bytes]:
    """Write the requests for jobs that are due a little after each is made."""
    count = int(seconds / _CREATE_EVERY) + _SPARE
    return [
        creation(
            f"once-{number}",
            stage.target.url(f"once-{number}"),
            **one_off(begin + number * _CREATE_EVERY + _AHEAD_SECONDS),
        )
        for number in range(count)
    ]


def _due_in(runs: Sequence[Run], wanted: Callable[[float], bool]) -> list[Run]:
    return [run for run in runs if wanted(run.due)]


def _size_mib(path: Path) -> float:
    return path.stat().st_size / 2**20 if path.exists() else 0.0


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="For how long; 30 for a verdict.")] = 0.5,
    jobs: Annotated[int, typer.Option(min=1, help="Interval jobs, one run a second each.")] = 50,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure a steady mixed load for long: whether memory, files and lateness stay."""
    options, where = (
        SoakOptions(minutes=minutes, jobs=jobs),
        StageOptions(server_url=database_url, settings=read_settings(setting)),
    )
    result = measure(lambda progress: run_soak(options, where, progress))
    show(f"soak: {minutes:g} minutes", result, as_json=as_json)
