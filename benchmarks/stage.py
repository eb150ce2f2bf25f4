"""What a scenario stands on: a target, a fresh database, the service, and jobs made by its API."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.database import Database, fresh_database
from benchmarks.ledger import Ledger
from benchmarks.load import Load, creation, one_off, send_all
from benchmarks.machine import wall_seconds
from benchmarks.service import Service
from benchmarks.target import Target

CLIENTS = 20
# An instant that no measurement reaches: the year 2099.
NEVER = 4_070_908_800.0
# Jobs made first, due never: they warm the service up and tell how long the others will take.
_REHEARSAL = 100
# How much longer than rehearsed creating may take on a machine that others use.
_SLACK = 1.5
_LEAD_SECONDS = 2.0
_BEFORE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """Where the service runs.

    ``server_url``: a PostgreSQL server on which the database is made, instead of a file in a folder
    for temporary files ($TMPDIR chooses the disk). ``settings``: by the names of the environment.
    """

    server_url: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One service under measurement and what surrounds it."""

    folder: Path
    service: Service
    target: Target
    ledger: Ledger
    progress: Progress

    async def create(
        self, requests: Sequence[bytes], *, title: str, clients: int = CLIENTS
    ) -> Load:
        """Create jobs by prepared requests."""
        task = self.progress.add_task(title, total=len(requests))
        return await send_all(
            self.service.port,
            requests,
            clients=min(clients, len(requests)),
            advanced=lambda count: self.progress.advance(task, count),
        )

    async def plan(self, jobs: int) -> float:
        """Name an instant, a whole second, after which so many jobs will have been created.

        Creates some jobs that are never due, to learn how long one takes.
        """
        url = self.target.url("never")
        requests = [
            # Made anew if it is there: a scenario may plan more than once.
            creation(f"rehearsal-{number}", url, replace_existing=True, **one_off(NEVER))
            for number in range(_REHEARSAL)
        ]
        load = await send_all(self.service.port, requests, clients=CLIENTS)
        seconds = load.seconds / _REHEARSAL * jobs * _SLACK
        return float(int(wall_seconds() + _LEAD_SECONDS + seconds) + 1)

    async def create_due(
        self,
        dues: Mapping[str, float],
        *,
        url: Callable[[str], str] | None = None,
        **fields: Any,
    ) -> Load:
        """Create a job due once for each key, which calls its ``url`` (the target's, if None).

        Raises ``RuntimeError`` if the first was due before the last was stored.
        """
        url = url or self.target.url
        requests = [creation(key, url(key), **one_off(due), **fields) for key, due in dues.items()]
        load = await self.create(requests, title=f"create {len(dues)}")
        check_in_time(min(dues.values()))
        return load

    async def wait_until(self, due: float) -> None:
        """Wait until shortly before an instant: the time of waiting is not to be measured."""
        await asyncio.sleep(max(due - _BEFORE_SECONDS - wall_seconds(), 0))

    async def wait_until_done(self, runs: int, until: float) -> None:
        """Wait until all that is due by an instant is over; the bar expects so many ``runs``."""
        task = self.progress.add_task(f"run {runs}", total=runs)
        await self.ledger.wait_until_done(
            until, shown=lambda done: self.progress.update(task, completed=done)
        )


@contextlib.asynccontextmanager
async def open_stage(options: StageOptions, progress: Progress) -> AsyncIterator[Stage]:
    """Start a target and the service on a fresh database; end both with the block.

    ``target.arrivals`` are there after the block; what is read of the ledger is read within it.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        async with (
            fresh_database(folder, options.server_url) as url,
            Target(folder) as target,
            Service(folder, url, settings=options.settings) as service,
        ):
            database = Database(url)
            try:
                yield Stage(
                    folder=folder,
                    service=service,
                    target=target,
                    ledger=Ledger(database),
                    progress=progress,
                )
            finally:
                await database.close()


def check_in_time(due: float) -> None:
    """Raise ``RuntimeError`` if an instant has passed before which all was to be created."""
    if wall_seconds() > due:
        raise RuntimeError("creating took longer than planned; the machine is too busy")


def spread_dues(
    jobs: int, due: float, *, name: str = "job", spread: float = 0.0
) -> dict[str, float]:
    """Tell when each of ``jobs`` is due, from ``due`` on and evenly over ``spread`` seconds."""
    return {f"{name}-{number}": round(due + number * spread / jobs, 6) for number in range(jobs)}


async def pass_time(progress: Progress, seconds: float, *, title: str) -> None:
    """Let time pass, with a progress bar."""
    task = progress.add_task(title, total=seconds)
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        progress.update(task, completed=passed)
        await asyncio.sleep(min(0.5, seconds - passed))
    progress.update(task, completed=seconds)
