"""All contenders side by side in one interleaved run: A B C, A B C, A B C; medians and ratios.

Rounds take turns because a machine's speed drifts: ratios of one round mean something where single
figures do not. docs/performance.md says who the contenders are and what each figure means.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from benchmarks import contenders, rivals
from benchmarks.bout import Ring, fight
from benchmarks.ceiling import measure_ceiling
from benchmarks.comparison import Comparison, as_markdown
from benchmarks.contenders import Opener
from benchmarks.figures import to_json
from benchmarks.installed import Installed
from benchmarks.printing import AsJson
from benchmarks.queues import measure_queues, measure_tick
from benchmarks.stores import DurablePostgres
from benchmarks.surroundings import describe

_QUEUED_RUNS = 3000
# Beat compares its whole schedule whenever it sends a task, 18 ms with 10,000 entries (1.3 ms with
# 1,000): its time grows with the square of the entries.
_BEAT_JOBS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A contender: its title, how it is opened, and what must be installed for it."""

    title: str
    opener: Opener
    needs: Sequence[str] = ()
    jobs_max: int | None = None


_ENTRIES = {
    "sqlite": Entry(title="MyScheduler, SQLite", opener=contenders.myscheduler_sqlite),
    "postgres": Entry(
        title="MyScheduler, PostgreSQL",
        opener=partial(contenders.myscheduler_postgres, processes=1),
    ),
    "postgres-2": Entry(
        title="MyScheduler, PostgreSQL, 2 processes",
        opener=partial(contenders.myscheduler_postgres, processes=2),
    ),
    "old": Entry(title="the old design", opener=contenders.old_design),
    "bullmq": Entry(
        title="BullMQ",
        opener=partial(rivals.bullmq, processes=1),
        needs=("bullmq", "redis-server"),
    ),
    "bullmq-2": Entry(
        title="BullMQ, 2 processes",
        opener=partial(rivals.bullmq, processes=2),
        needs=("bullmq", "redis-server"),
    ),
    "celery-eta": Entry(
        title="Celery, ETA", opener=rivals.celery_eta, needs=("python", "redis-server")
    ),
    "celery-beat": Entry(
        title="Celery, beat",
        opener=rivals.celery_beat,
        needs=("python", "redis-server"),
        jobs_max=_BEAT_JOBS_MAX,
    ),
}
_CEILING, _QUEUES = "ceiling", "queues"
NAMES = (_CEILING, *_ENTRIES, _QUEUES)
_OURS = tuple(_ENTRIES[name].title for name in ("sqlite", "postgres", "postgres-2"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """How many rounds of which sizes, and who takes part."""

    rounds: int
    jobs: Sequence[int]
    names: Sequence[str]


class _Run:
    def __init__(self, options: CompareOptions, ring: Ring) -> None:
        self._options = options
        self._ring = ring
        self._lone_with = min(options.jobs)
        self._round = 0
        self.found = Comparison(
            surroundings=describe(ring.installed, ring.postgres),
            missing=ring.installed.missing,
            rounds=options.rounds,
        )

    async def all_rounds(self) -> None:
        for number in range(1, self._options.rounds + 1):
            self._round = number
            for title, turn in self._turns():
                _say(f"round {number} of {self._options.rounds}: {title}")
                try:
                    await turn()
                except Exception as error:  # noqa: BLE001 - what ails one does not stop the others
                    self.found.failed.append(f"{title}, round {number}: {error!r}")
                    _say(self.found.failed[-1])

    def _turns(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        names, installed = self._options.names, self._ring.installed
        if _CEILING in names and installed.has("wrk"):
            yield "ceiling", self._measure_ceiling
        for jobs in self._options.jobs:
            for entry in (_ENTRIES[name] for name in names if name in _ENTRIES):
                if installed.has(*entry.needs) and jobs <= (entry.jobs_max or jobs):
                    yield f"{entry.title}, {jobs:,} jobs", partial(self._fight, entry, jobs)
        if _QUEUES in names and installed.has("python"):
            yield "queues", self._measure_queues

    async def _measure_ceiling(self) -> None:
        self.found.ceiling_per_second.append(await measure_ceiling(self._ring.installed))

    async def _fight(self, entry: Entry, jobs: int) -> None:
        lone = jobs == self._lone_with
        bout = await fight(entry.title, entry.opener, self._ring, jobs=jobs, lone=lone)
        self.found.bouts.append(replace(bout, round_number=self._round))
        _say(f"  {bout.per_second:,.0f} runs/s, p99 {bout.lateness_ms.p99:,.0f} ms")

    async def _measure_queues(self) -> None:
        ring = self._ring
        self.found.ticks.append(await measure_tick(ring.postgres, ring.installed))
        self.found.queues += await measure_queues(ring.postgres, ring.installed, runs=_QUEUED_RUNS)


def compare(options: CompareOptions, folder: Path) -> Comparison:
    """Install the rivals into ``folder``, start the stores, and fight all rounds."""
    installed = Installed(folder)
    _say(f"installing the others into {folder}")
    installed.install()
    for name, why in installed.missing.items():
        _say(f"without {name}: {why}")
    postgres = DurablePostgres()
    postgres.start()
    try:
        run = _Run(options, Ring(postgres=postgres, installed=installed))
        # Ctrl-C ends the rounds; what was measured by then is shown.
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(run.all_rounds())
    finally:
        postgres.stop()
    return run.found


def command(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are of these.")] = 3,
    jobs: Annotated[list[int] | None, typer.Option(min=1, help="Jobs due at once.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(NAMES)}.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Install the others here and keep them.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure against the others, side by side; without a folder they are removed afterwards."""
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(NAMES)}")
    options = CompareOptions(rounds=rounds, jobs=jobs or (1000, 10_000), names=only or NAMES)
    with contextlib.ExitStack() as stack:
        kept = folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-others-"))
        )
        found = compare(options, kept.absolute())
    print(json.dumps(to_json(found)) if as_json else as_markdown(found, _OURS))


def _say(what: str) -> None:
    print(f"{what} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
