"""One contender's turn: jobs are stored and come due, and what arrived is held against that."""

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Contender, Ground, Opener, Rows, Wish
from benchmarks.figures import Arrival, Spread, judge, rate
from benchmarks.installed import Installed
from benchmarks.machine import Usage, wall_seconds
from benchmarks.stores import DurablePostgres
from benchmarks.target import Target

# How much longer than rehearsed storing the jobs may take on a machine that others use.
_SLACK = 1.4
_LEAD_SECONDS = 2.0
# Jobs due before the others, which nobody measures: a herd should not be a process's first work.
_WARM = 100
_WARM_SECONDS = 2.5
_STORING_SECONDS_MAX = 300.0
_BEFORE_SECONDS = 0.2
_POLL_SECONDS = 0.2
# A contender that comes no further for so long, or is not done by then, has lost the rest.
_PATIENCE_SECONDS = 6.0
_LIMIT_SECONDS = 60.0
# Lone runs: so many, so far apart that none meets another.
_LONE = 20
_LONE_GAP_SECONDS = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """What one turn came to; times in milliseconds, rates per second.

    ``per_second`` counts runs with a row, from the due instant to the last run's end as its row has
    it. ``lateness_ms`` is that of first arrivals by the target's clock. ``unrecorded`` runs arrived
    and have no row that is over. ``created_per_second`` is NaN where jobs are not made by requests.
    ``stores_cpu_ms_per_run`` is what Redis and PostgreSQL used.
    ``was_cut``: it was not through in time, so that some of ``lost`` may only be very late.
    """

    contender: str
    jobs: int
    per_second: float
    lateness_ms: Spread
    lone_ms: Spread
    created_per_second: float
    cpu_ms_per_run: float
    stores_cpu_ms_per_run: float
    memory_mib: float
    lost: int
    doubled: int
    early: int
    unrecorded: int
    was_cut: bool
    load_average: float
    round_number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What all turns share."""

    postgres: DurablePostgres
    installed: Installed


class TooSlowError(Exception):
    """The jobs were not stored before they were due; it took ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"storing the jobs took {seconds:.0f} s, longer than rehearsed")
        self.seconds = seconds


async def fight(name: str, opener: Opener, ring: Ring, *, jobs: int, lone: bool) -> Bout:
    """Run one turn; jobs that were stored too late are stored once more, with the time it took."""
    try:
        return await _Turn(name, jobs=jobs, lone=lone).run(opener, ring)
    except TooSlowError as error:
        return await _Turn(name, jobs=jobs, lone=lone, seconds=error.seconds).run(opener, ring)


class _Turn:
    def __init__(self, name: str, *, jobs: int, lone: bool, seconds: float | None = None) -> None:
        self._name = name
        self._jobs = jobs
        self._lone = lone
        self._seconds = seconds
        self._load_average = round(os.getloadavg()[0], 2)
        self._created_per_second = self._per_second = math.nan
        self._before = self._after = (Usage.of(), Usage.of())
        self._over = 0
        self._was_cut = False
        self._prefix = ""
        self._herd: list[Wish] = []
        self._singles: list[Wish] = []

    async def run(self, opener: Opener, ring: Ring) -> Bout:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            folder = Path(name)
            async with Target(folder) as target:
                self._prefix = target.url("")
                ground = Ground(
                    folder=folder,
                    url_prefix=self._prefix,
                    postgres=ring.postgres,
                    installed=ring.installed,
                )
                async with opener(ground) as contender:
                    await self._run_herd(contender)
                    if self._lone:
                        await self._run_singles(contender)
            return self._judge(target.arrivals)

    async def _run_herd(self, contender: Contender) -> None:
        rehearsed = (_WARM + self._jobs) * await contender.rehearse()
        storing = (self._seconds or rehearsed) * _SLACK
        if storing > _STORING_SECONDS_MAX:
            raise RuntimeError(f"storing the jobs would take {storing:.0f} s")
        began = wall_seconds()
        due = math.ceil(began + _LEAD_SECONDS + storing + _WARM_SECONDS)
        warm = [self._wish(f"warm-{number}", due - _WARM_SECONDS) for number in range(_WARM)]
        self._herd = [self._wish(f"job-{number}", due) for number in range(self._jobs)]
        seconds = await contender.create(warm + self._herd)
        if wall_seconds() > due - _WARM_SECONDS:
            raise TooSlowError(wall_seconds() - began)
        if contender.has_api:
            self._created_per_second = rate(_WARM + self._jobs, seconds)
        await asyncio.sleep(due - _BEFORE_SECONDS - wall_seconds())
        self._before = _usages(contender)
        before = (await contender.rows()).over
        rows = await _wait_until_over(contender, _WARM + self._jobs, due)
        self._after = _usages(contender)
        self._over = rows.over
        self._was_cut = rows.over < _WARM + self._jobs and wall_seconds() >= due + _LIMIT_SECONDS
        self._per_second = rate(rows.over - before, rows.last - due)

    async def _run_singles(self, contender: Contender) -> None:
        # Without an API a program must be started first.
        first = wall_seconds() + _LEAD_SECONDS * (1 if contender.has_api else 3)
        self._singles = [
            self._wish(f"lone-{number}", round(first + number * _LONE_GAP_SECONDS, 3))
            for number in range(_LONE)
        ]
        await contender.create(self._singles)
        done = self._over + _LONE
        self._over = (await _wait_until_over(contender, done, self._singles[-1].due)).over

    def _wish(self, name: str, due: float) -> Wish:
        return Wish(name=name, due=due, url=f"{self._prefix}{name}")

    def _judge(self, arrivals: Sequence[Arrival]) -> Bout:
        came = [(arrival.key, arrival.at) for arrival in arrivals]
        warm = sum(key.startswith("warm-") for key, _ in came)
        herd = judge(_named(came, self._herd), _due(self._herd))
        singles = judge(_named(came, self._singles), _due(self._singles))
        runs = max(herd.arrived, 1)
        own, stores = (
            after.cpu_seconds - before.cpu_seconds
            for before, after in zip(self._before, self._after, strict=True)
        )
        return Bout(
            contender=self._name,
            jobs=self._jobs,
            per_second=self._per_second,
            lateness_ms=herd.lateness_ms,
            lone_ms=singles.lateness_ms,
            created_per_second=self._created_per_second,
            cpu_ms_per_run=round(own / runs * 1000, 3),
            stores_cpu_ms_per_run=round(stores / runs * 1000, 3),
            memory_mib=round(self._after[0].peak_memory_mib, 1),
            lost=herd.lost + singles.lost,
            doubled=herd.doubled + singles.doubled,
            early=herd.early + singles.early,
            unrecorded=self._unrecorded(warm + herd.arrived + singles.arrived),
            was_cut=self._was_cut,
            load_average=self._load_average,
        )

    def _unrecorded(self, arrived: int) -> int:
        """Count arrivals without a row; of a turn that was cut some were still under way."""
        return 0 if self._was_cut else max(arrived - self._over, 0)


async def _wait_until_over(contender: Contender, runs: int, due: float) -> Rows:
    """Wait until so many runs are over, or until no more are to be expected."""
    rows, moved_at = await contender.rows(), time.perf_counter()
    while rows.over < runs and wall_seconds() < due + _LIMIT_SECONDS:
        await asyncio.sleep(_POLL_SECONDS)
        found = await contender.rows()
        if found.over != rows.over or wall_seconds() < due:
            moved_at = time.perf_counter()
        rows = found
        if time.perf_counter() - moved_at > _PATIENCE_SECONDS:
            break
    return rows


def _usages(contender: Contender) -> tuple[Usage, Usage]:
    return Usage.of(*contender.pids()), Usage.of(*contender.store_pids())


def _named(came: list[tuple[str, float]], wishes: list[Wish]) -> list[tuple[str, float]]:
    names = {wish.name for wish in wishes}
    return [(name, at) for name, at in came if name in names]


def _due(wishes: list[Wish]) -> dict[str, float]:
    return {wish.name: wish.due for wish in wishes}
