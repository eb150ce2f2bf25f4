"""What clusters carry, reckoned from what one run costs: arithmetic, nothing is measured here.

``run parts`` measures the costs. Each limit is what one resource allows by itself; the least of
them is the cluster's, and says what to have more of.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from benchmarks.figures import show_figure
from benchmarks.printing import AsJson, show_list

_WORKERS = (1, 2, 4, 8, 16)
# A process interprets Python on one core at a time; so much of it is left to runs.
_SHARE = 0.8
# Of each replica, with the service's own settings: eight in pools, the leader's and the wakeups'.
_CONNECTIONS = 10
_SCHEDULERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one run costs: CPU of each part in milliseconds, and write-ahead log in KiB."""

    scheduler_ms: float
    worker_ms: float
    database_ms: float
    wal_kib: float

    def __post_init__(self) -> None:
        """Check that nothing is for nothing."""
        if min(self.scheduler_ms, self.worker_ms, self.database_ms, self.wal_kib) <= 0:
            raise ValueError("every cost must be more than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the database's machine has: cores, and MiB of log that its disk takes in a second."""

    cores: float
    log_mib_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Runs a second that a cluster carries, what each resource would allow, and the least."""

    workers: int
    runs_per_second: float
    limited_by: str
    ticks: float
    sending: float
    database: float
    log: float
    connections: int


def capacity(costs: Costs, server: Server, *, workers: int) -> Capacity:
    """Reckon what a leader, a standby and so many workers carry on a database."""
    limits = {
        "ticks": _SHARE * 1000 / costs.scheduler_ms,
        "sending": _SHARE * 1000 / costs.worker_ms * workers,
        "database": _SHARE * 1000 / costs.database_ms * server.cores,
        "log": server.log_mib_per_second * 1024 / costs.wal_kib,
    }
    least = min(limits, key=lambda name: limits[name])
    return Capacity(
        workers=workers,
        runs_per_second=round(limits[least]),
        limited_by=least,
        ticks=round(limits["ticks"]),
        sending=round(limits["sending"]),
        database=round(limits["database"]),
        log=round(limits["log"]),
        connections=_CONNECTIONS * (workers + _SCHEDULERS),
    )


def capacities(costs: Costs, server: Server) -> Iterator[Capacity]:
    """Reckon for more and more workers, until another adds nothing."""
    for workers in _WORKERS:
        found = capacity(costs, server, workers=workers)
        yield found
        if found.limited_by != "sending":
            return


def command(
    scheduler_ms: Annotated[float, typer.Option(help="CPU of who schedules, per run.")],
    worker_ms: Annotated[float, typer.Option(help="CPU of who sends, per run.")],
    database_ms: Annotated[float, typer.Option(help="CPU of PostgreSQL, per run.")],
    wal_kib: Annotated[float, typer.Option(help="Write-ahead log, per run.")],
    database_cores: Annotated[float, typer.Option(min=0.1, help="Cores of its machine.")] = 4,
    log_mib_per_second: Annotated[
        float, typer.Option(min=0.1, help="Log that its disk takes in a second.")
    ] = 100,
    *,
    as_json: AsJson = False,
) -> None:
    """Reckon what clusters carry from what one run costs."""
    try:
        costs = Costs(
            scheduler_ms=scheduler_ms, worker_ms=worker_ms, database_ms=database_ms, wal_kib=wal_kib
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    server = Server(cores=database_cores, log_mib_per_second=log_mib_per_second)
    title = f"runs a second on {show_figure(database_cores)} cores for PostgreSQL"
    show_list(title, list(capacities(costs, server)), as_json=as_json)
