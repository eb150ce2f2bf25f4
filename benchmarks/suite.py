"""The short suite behind ``make bench``: each scenario at a size of seconds, one row each."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from rich.progress import Progress

from benchmarks.creation import CreationOptions, run_creation
from benchmarks.fairness import FairnessOptions, run_fairness
from benchmarks.figures import Summary
from benchmarks.herd import HerdOptions, run_herd
from benchmarks.interval import IntervalOptions, run_interval
from benchmarks.lone import LoneOptions, run_lone
from benchmarks.overload import OverloadOptions, run_overload
from benchmarks.printing import AsJson, measure, show_list
from benchmarks.retries import RetriesOptions, run_retries
from benchmarks.slow_disk import SlowDiskOptions, run_slow_disk
from benchmarks.slow_targets import SlowTargetsOptions, run_slow_targets
from benchmarks.stage import StageOptions
from benchmarks.stored import StoredOptions, run_stored


class _Result(Protocol):
    def summary(self) -> Summary: ...


_Outcome = Awaitable[_Result] | Awaitable[Sequence[_Result]]

_HERD = HerdOptions(jobs=1000)
_LONE = LoneOptions(runs=25, every=0.1)
_INTERVAL = IntervalOptions(jobs=100, seconds=4)
_OVERLOAD = OverloadOptions(per_second=2000, seconds=2)
_RETRIES = RetriesOptions(jobs=300, max_retries=2, backoff=0.2)
_CREATION = CreationOptions(jobs=500, clients=20, crowd=200, herd=1000)
_FAIRNESS = FairnessOptions(jobs=1500)
_SLOW_TARGETS = SlowTargetsOptions(jobs=60, same_host=False)
_SLOW_DISK = SlowDiskOptions(jobs=500, pairs=1, flush_ms=2)
_STORED = StoredOptions(jobs=20_000, seconds=2, starts=1)
_WHERE = StageOptions()
_AS_SHIPPED = StageOptions(settings={"MYSCHEDULER_HOST_CONCURRENCY": "10"})

_SCENARIOS: dict[str, Callable[[Progress], _Outcome]] = {
    "herd": lambda progress: run_herd(_HERD, _WHERE, progress),
    "lone": lambda progress: run_lone(_LONE, _WHERE, progress),
    "interval": lambda progress: run_interval(_INTERVAL, _WHERE, progress),
    "overload": lambda progress: run_overload(_OVERLOAD, _WHERE, progress),
    "retries": lambda progress: run_retries(_RETRIES, _WHERE, progress),
    "creation": lambda progress: run_creation(_CREATION, _WHERE, progress),
    "api": lambda progress: run_fairness(_FAIRNESS, _WHERE, progress),
    "slow-targets": lambda progress: run_slow_targets(_SLOW_TARGETS, _AS_SHIPPED, progress),
    "slow-disk": lambda progress: run_slow_disk(_SLOW_DISK, _WHERE, progress),
    "stored": lambda progress: run_stored(_STORED, progress),
}


async def run_suite(progress: Progress) -> list[Summary]:
    """Run every scenario, small, one after the other, each on a fresh service.

    One that cannot be measured on this machine (no compiler, too busy) says so in its row.
    """
    rows: list[Summary] = []
    task = progress.add_task("suite", total=len(_SCENARIOS))
    for name, scenario in _SCENARIOS.items():
        try:
            found = await scenario(progress)
        except RuntimeError as error:
            rows.append(Summary(scenario=name, note=f"not measured: {error}"))
        else:
            results = found if isinstance(found, Sequence) else [found]
            rows += [result.summary() for result in results]
        for bar in progress.task_ids:
            progress.update(bar, visible=bar == task)
        progress.advance(task)
    return rows


def command(*, as_json: AsJson = False) -> None:
    """Run the short suite: every scenario small, one table."""
    results = measure(run_suite)
    show_list("the short suite: figures of this machine at this moment", results, as_json=as_json)
