"""Who is compared: each a scheduler with its stores, told to run the same one-off jobs.

All post a small body to a URL of their own at one instant and keep a durable row per run. Ours and
the old design are processes behind the same API; the others take their jobs the way they like best.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.database import Database, fresh_database
from benchmarks.installed import Installed
from benchmarks.load import creation, one_off, send_all
from benchmarks.service import DEFAULT_SETTINGS, Service
from benchmarks.stores import DurablePostgres

CLIENTS = 20
REHEARSAL = 100
_NEVER = 4_070_908_800.0  # 2099
_NOWHERE = "http://127.0.0.1:9/never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job that is due once, and the URL to post to."""

    name: str
    due: float
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a contender finds: an empty folder, the target's URLs, and the stores it may use."""

    folder: Path
    url_prefix: str
    postgres: DurablePostgres
    installed: Installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many runs are over by the contender's own rows, and when the last of them was."""

    over: int
    last: float


class Contender(Protocol):
    """A scheduler that is up; ``has_api``: jobs are made by requests, answered when stored."""

    has_api: bool

    async def rehearse(self) -> float:
        """Tell about how many seconds storing a job takes; may store some that are never due."""
        ...

    async def create(self, wishes: Sequence[Wish]) -> float:
        """Store the jobs; return how many seconds that took, from the first to the last answer."""
        ...

    async def rows(self) -> Rows:
        """Read how far it is."""
        ...

    def pids(self) -> list[int]:
        """Name its own processes; their children count with them."""
        ...

    def store_pids(self) -> list[int]:
        """Name the processes of its databases."""
        ...


class Opener(Protocol):
    """Starts a contender on some ground and ends it with the block."""

    def __call__(self, ground: Ground, /) -> contextlib.AbstractAsyncContextManager[Contender]:
        """Open it."""
        ...


class OverApi:
    """A service, of one process or more, whose jobs are made by its API."""

    has_api = True

    def __init__(
        self,
        services: Sequence[Service],
        database: Database,
        *,
        rows: str,
        postgres: DurablePostgres | None = None,
    ) -> None:
        self._services = services
        self._database = database
        self._rows = rows
        self._postgres = postgres

    async def rehearse(self) -> float:
        """Create some jobs that are never due."""
        return await self.create(never_due()) / REHEARSAL

    async def create(self, wishes: Sequence[Wish]) -> float:
        """Post the jobs to the first process."""
        requests = [creation(wish.name, wish.url, **one_off(wish.due)) for wish in wishes]
        clients = min(CLIENTS, len(requests))
        load = await send_all(self._services[0].port, requests, clients=clients)
        return load.seconds

    async def rows(self) -> Rows:
        """Count what ended."""
        return await read_rows(self._database, self._rows)

    def pids(self) -> list[int]:
        """Name the services."""
        return [service.pid for service in self._services]

    def store_pids(self) -> list[int]:
        """Name PostgreSQL; SQLite has no process."""
        return [] if self._postgres is None else [self._postgres.pid]


def never_due() -> list[Wish]:
    """Give jobs that are not due while anybody measures."""
    return [Wish(name=f"never-{number}", due=_NEVER, url=_NOWHERE) for number in range(REHEARSAL)]


async def read_rows(database: Database, statement: str) -> Rows:
    """Read count and last end, in seconds."""
    ((over, last),) = await database.rows(statement)
    return Rows(over=over, last=float(last or 0))


@contextlib.asynccontextmanager
async def myscheduler_sqlite(ground: Ground) -> AsyncIterator[Contender]:
    """Start MyScheduler as it comes, on SQLite."""
    url = f"sqlite:///{ground.folder / 'jobs.db'}"
    async with Service(ground.folder, url) as service, reading(url) as database:
        yield OverApi([service], database, rows=_OUR_ROWS)


@contextlib.asynccontextmanager
async def myscheduler_postgres(ground: Ground, *, processes: int) -> AsyncIterator[Contender]:
    """Start one or more processes of MyScheduler on a PostgreSQL database.

    Each may call the target as often at once as one process does: limits per host hold over all.
    """
    slots = int(DEFAULT_SETTINGS["MYSCHEDULER_HOST_CONCURRENCY"]) * processes
    async with (
        fresh_database(ground.folder, ground.postgres.url) as url,
        contextlib.AsyncExitStack() as stack,
    ):
        services = []
        for number in range(processes):
            folder = ground.folder / str(number)
            folder.mkdir()
            # One after the other: the first migrates and leads.
            service = Service(folder, url, settings={"MYSCHEDULER_HOST_CONCURRENCY": str(slots)})
            services.append(await stack.enter_async_context(service))
        database = await stack.enter_async_context(reading(url))
        yield OverApi(services, database, rows=_OUR_ROWS, postgres=ground.postgres)


@contextlib.asynccontextmanager
async def old_design(ground: Ground) -> AsyncIterator[Contender]:
    """Start the old design on SQLite."""
    url = f"sqlite:///{ground.folder / 'old.db'}"
    service = Service(ground.folder, url, module="benchmarks.baselines.old_design")
    async with service, reading(url) as database:
        yield OverApi([service], database, rows=_OLD_ROWS)


@contextlib.asynccontextmanager
async def reading(url: str) -> AsyncIterator[Database]:
    """Read a database until the block ends."""
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


_OUR_ROWS = (
    "SELECT count(*), max(finished_us) / 1e6 FROM executions"
    " WHERE status IN ('completed', 'failed', 'cancelled', 'unknown', 'skipped', 'missed')"
)
_OLD_ROWS = "SELECT count(*), max(finished_at) FROM executions WHERE finished_at IS NOT NULL"
