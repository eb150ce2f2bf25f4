"""A storm of retries: a target that answers 500 to everything, until every job has given up."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import Arrival, Spread, Summary, rate
from benchmarks.printing import AsJson, ServerUrl, Settings, measure, read_settings, show
from benchmarks.prober import probing
from benchmarks.stage import StageOptions, open_stage, spread_dues

_PROBED = ("/api/v1/jobs/job-0", "/api/v1/jobs?limit=50")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesOptions:
    """How many jobs are due at once, how often each is retried, and the first wait in seconds."""

    jobs: int
    max_retries: int
    backoff: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What arrived of the attempts that were to be made.

    ``lost`` never came, ``extra`` were more than were asked for, ``hasty`` came before their wait
    was over. ``late_ms`` is how much longer than its wait each retry took, its own jitter (up to a
    fifth of the wait) among it.
    """

    expected: int
    lost: int
    extra: int
    hasty: int
    late_ms: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesResult:
    """What the storm came to; ``gave_up`` jobs ended as failed with all their retries spent."""

    jobs: int
    gave_up: int
    attempts_per_second: float
    attempts: Attempts
    cpu_ms_per_attempt: float
    memory_mib: float
    api_ms: Spread

    def summary(self) -> Summary:
        """Give a row for the table of a suite; its runs are attempts."""
        return Summary(
            scenario="retries",
            runs_per_second=self.attempts_per_second,
            late_p50_ms=self.attempts.late_ms.p50,
            late_p99_ms=self.attempts.late_ms.p99,
            late_max_ms=self.attempts.late_ms.max,
            lost=self.attempts.lost,
            doubled=self.attempts.extra,
            cpu_ms_per_run=self.cpu_ms_per_attempt,
            memory_mib=self.memory_mib,
            api_p99_ms=self.api_ms.p99,
            note=f"attempts; {self.gave_up:,} of {self.jobs:,} gave up",
        )


async def run_retries(
    options: RetriesOptions, where: StageOptions, progress: Progress
) -> RetriesResult:
    """Let every job fail until it gives up, and return the figures."""
    attempts = options.max_retries + 1
    async with open_stage(where, progress) as stage:
        due = await stage.plan(options.jobs)
        dues = spread_dues(options.jobs, due)
        await stage.create_due(
            dues,
            url=lambda key: stage.target.url(key, way="fail"),
            max_retries=options.max_retries,
            retry_backoff_sec=options.backoff,
        )
        await stage.wait_until(due)
        before = stage.service.usage()
        async with probing(stage.service.port, *_PROBED) as calls:
            await stage.wait_until_done(options.jobs, due)
        after = stage.service.usage()
        runs = await stage.ledger.runs("job-%")
    last = max((run.finished for run in runs if run.finished), default=due)
    cpu_seconds = after.cpu_seconds - before.cpu_seconds
    arrived = len(stage.target.arrivals)
    return RetriesResult(
        jobs=options.jobs,
        gave_up=sum(run.status == "failed" and run.attempts == attempts for run in runs),
        attempts_per_second=rate(arrived, last - due),
        attempts=judge_attempts(stage.target.arrivals, dues, options),
        cpu_ms_per_attempt=round(cpu_seconds / max(arrived, 1) * 1000, 3),
        memory_mib=round(after.peak_memory_mib, 1),
        api_ms=calls.spread(),
    )


def judge_attempts(
    arrivals: Iterable[Arrival], keys: Mapping[str, float], options: RetriesOptions
) -> Attempts:
    """Hold the arrivals of each key against the attempts and the waits that were asked for."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for arrival in arrivals:
        times[arrival.key].append(arrival.at)
    wanted = options.max_retries + 1
    counts = [len(times[key]) for key in keys]
    late = [
        after - before - wait
        for key in keys
        for (before, after), wait in zip(
            itertools.pairwise(sorted(times[key])), _waits(options), strict=False
        )
    ]
    return Attempts(
        expected=len(keys) * wanted,
        lost=sum(max(wanted - count, 0) for count in counts),
        extra=sum(max(count - wanted, 0) for count in counts),
        hasty=sum(seconds < 0 for seconds in late),
        late_ms=Spread.of(seconds * 1000 for seconds in late),
    )


def _waits(options: RetriesOptions) -> Sequence[float]:
    return [options.backoff * 2**number for number in range(options.max_retries)]


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs due at once.")] = 1000,
    max_retries: Annotated[int, typer.Option(min=0, max=100, help="Retries of each.")] = 3,
    backoff: Annotated[float, typer.Option(min=0, help="First wait in seconds.")] = 0.5,
    setting: Settings = None,
    database_url: ServerUrl = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure a storm of retries: a target that answers 500 to everything."""
    options = RetriesOptions(jobs=jobs, max_retries=max_retries, backoff=backoff)
    where = StageOptions(server_url=database_url, settings=read_settings(setting))
    result = measure(lambda progress: run_retries(options, where, progress))
    show(f"retries: {jobs} jobs, {max_retries} retries each", result, as_json=as_json)
