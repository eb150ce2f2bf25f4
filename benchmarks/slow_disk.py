"""A disk whose flushes take two milliseconds longer: how much of its rate the service keeps.

The same herd on the same machine, with the machine's own disk and with the slow one, in turn.
"""

import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.figures import Summary
from benchmarks.herd import HerdOptions, HerdResult, run_herd
from benchmarks.printing import AsJson, measure, show
from benchmarks.stage import StageOptions

_SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDiskOptions:
    """How large a herd, how many pairs of herds, and how much longer each flush takes."""

    jobs: int
    pairs: int
    flush_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDiskResult:
    """Medians over the pairs; ``kept_percent`` is the slow disk's rate as a share of the other's.

    A lone run waits for two flushes, so its lateness grows by them; the rate need not fall.
    """

    jobs: int
    pairs: int
    flush_ms: float
    runs_per_second: float
    slow_runs_per_second: float
    kept_percent: float
    created_per_second: float
    slow_created_per_second: float
    created_kept_percent: float
    lost: int
    doubled: int

    def summary(self) -> Summary:
        """Give a row for the table of a suite."""
        return Summary(
            scenario="slow disk",
            runs_per_second=self.slow_runs_per_second,
            lost=self.lost,
            doubled=self.doubled,
            note=f"+{self.flush_ms:g} ms a flush; keeps {self.kept_percent:g} % of its rate",
        )


async def run_slow_disk(
    options: SlowDiskOptions, where: StageOptions, progress: Progress
) -> SlowDiskResult:
    """Run the herds in turn and compare."""
    quick: list[HerdResult] = []
    slow: list[HerdResult] = []
    herd = HerdOptions(jobs=options.jobs)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        preload = {
            "LD_PRELOAD": str(build_shim(Path(folder))),
            "SLOW_FLUSH_US": str(int(options.flush_ms * 1000)),
        }
        for _ in range(options.pairs):
            quick.append(await run_herd(herd, where, progress))
            slowed = StageOptions(settings={**where.settings, **preload})
            slow.append(await run_herd(herd, slowed, progress))
    runs, slow_runs = _median_rate(quick), _median_rate(slow)
    created = statistics.median(result.created_per_second for result in quick)
    slow_created = statistics.median(result.created_per_second for result in slow)
    return SlowDiskResult(
        jobs=options.jobs,
        pairs=options.pairs,
        flush_ms=options.flush_ms,
        runs_per_second=runs,
        slow_runs_per_second=slow_runs,
        kept_percent=round(slow_runs / runs * 100, 1),
        created_per_second=created,
        slow_created_per_second=slow_created,
        created_kept_percent=round(slow_created / created * 100, 1),
        lost=sum(result.run.lost for result in quick + slow),
        doubled=sum(result.run.doubled for result in quick + slow),
    )


def _median_rate(results: list[HerdResult]) -> float:
    return statistics.median(result.run.per_second for result in results)


def build_shim(folder: Path) -> Path:
    """Compile the library that slows flushes. Raises ``RuntimeError`` without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler (cc) to build the library that slows flushes")
    library = folder / "slow_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def command(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs due at once.")] = 1000,
    pairs: Annotated[int, typer.Option(min=1, help="Herds with each disk, in turn.")] = 2,
    flush_ms: Annotated[float, typer.Option(min=0, help="Milliseconds more per flush.")] = 2.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure a disk with slow flushes, as a share of the rate without (SQLite only)."""
    options = SlowDiskOptions(jobs=jobs, pairs=pairs, flush_ms=flush_ms)
    result = measure(lambda progress: run_slow_disk(options, StageOptions(), progress))
    show(f"slow-disk: +{flush_ms:g} ms a flush", result, as_json=as_json)
