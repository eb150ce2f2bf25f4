"""SQL that holds the limits per host over all processes: attempts at once, and starts a second.

Where one process works (SQLite) it counts in memory, and nothing is asked here. Among replicas a
claim first takes an advisory lock for each host it wants, until its commit. A host that another
claim has at this moment is refused, so a process that hangs in a claim holds up its own hosts
alone. A claim that gets none of its hosts waits a moment for the first of them, in the database's
queue: a herd on one host is claimed by turns, which repeated tries would meet by chance only. No
claim waits for a host while it has another, and none for long.

Under the lock the attempts of the *other* processes are counted, by the rows that hold a slot of
the host. A row holds it from the claim until its outcome is recorded or, if its process is gone,
until it is rescued at the end of its lease: the target may be busy with it until then. A process
counts its own attempts itself, and knows of their ends sooner.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from app.db.unit_of_work import WriteConnection
from app.domain.execution import WaitingRun
from app.models.tables import executions, host_starts
from app.repositories.batch import Batch, parameters
from app.repositories.database_clock import PRESENT_US

# PostgreSQL keeps advisory locks in shared memory, by default 6,400 of all transactions together.
HOSTS_MAX = 250
# "myhs": what tells these locks from others of two numbers.
_LOCK_SPACE = 0x6D796873
_MICROSECOND = timedelta(microseconds=1)

_HOSTS = Batch(text=("host",))
# Slots come and go, and their index keeps entries of rows that hold none any more until a vacuum,
# which a large table sees seldom. A plain scan of the index marks those it meets, so that none is
# met twice; a bitmap scan does not, and statistics of such a column tell the planner nothing.
_PLAIN_SCANS = [
    sa.func.set_config(name, "off", sa.true()) for name in ("enable_seqscan", "enable_bitmapscan")
]
_LOCK = sa.select(_HOSTS["host"], *_PLAIN_SCANS).where(
    sa.func.pg_try_advisory_xact_lock(
        sa.literal_column(str(_LOCK_SPACE)), sa.func.hashtext(_HOSTS["host"])
    )
)
# How long a claim waits for its first host: a few claims, not one that hangs.
_PATIENCE = "50ms"
_WAIT = sa.select(
    sa.func.set_config("lock_timeout", sa.bindparam("patience"), sa.true()),
    sa.func.pg_advisory_xact_lock(
        sa.literal_column(str(_LOCK_SPACE)), sa.func.hashtext(sa.bindparam("host"))
    ),
)
_WAIT_AS_BEFORE = sa.select(sa.func.set_config("lock_timeout", "0", sa.true()))
_LOCK_NOT_AVAILABLE = "55P03"
_OTHERS = (
    sa.select(
        executions.c.slot_host, sa.func.count(), sa.func.array_agg(sa.distinct(executions.c.owner))
    )
    .where(
        _HOSTS.holds(executions.c.slot_host, "host"),
        executions.c.slot_host.is_not(None),
        # Rows that run have an owner, others have none.
        executions.c.owner != sa.bindparam("me"),
    )
    .group_by(executions.c.slot_host)
)
_WAITS = sa.select(host_starts.c.host, host_starts.c.next_us - PRESENT_US).where(
    _HOSTS.holds(host_starts.c.host, "host")
)
_NEXT = insert(host_starts).from_select(
    ["host", "next_us"],
    sa.select(_HOSTS["host"], PRESENT_US + sa.bindparam("gap_us", type_=sa.BigInteger)),
)
_NOTE = _NEXT.on_conflict_do_update(
    index_elements=[host_starts.c.host], set_={"next_us": _NEXT.excluded.next_us}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What each host may get from all processes: attempts at once, and a start every ``gap``."""

    slots: int
    gap: timedelta = timedelta(0)


class Why(StrEnum):
    """Why a host got no more."""

    CONTENDED = "contended"  # another process claims for it at this moment
    FULL = "full"
    PACED = "paced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Runs of one host that may not start now, in their order.

    ``wait`` is how long its next start is away, where that is why.
    """

    host: str
    why: Why
    runs: list[WaitingRun]
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Admission:
    """Which runs may be claimed in this transaction, in their order, and which may not.

    ``rivals`` are the other processes with attempts under way, by each host that was looked at.
    """

    admitted: Sequence[WaitingRun]
    refused: list[Refusal] = field(default_factory=list)
    rivals: Mapping[str, Collection[str]] = field(default_factory=dict)


class _Others(NamedTuple):
    """How many slots of a host other processes hold, and which ones do."""

    busy: int
    owners: Collection[str]


_NOBODY = _Others(0, ())


def admit(
    connection: WriteConnection,
    waiting: Sequence[WaitingRun],
    *,
    owner: str,
    under_way: Mapping[str, int],
    limits: HostLimits,
) -> Admission:
    """Tell which of ``waiting`` may be claimed in this transaction under the limits of their hosts.

    ``under_way`` is how many attempts ``owner`` makes to each host beside these. At most so many
    hosts get something as there may be locks. What is claimed of the answer must have its
    ``slot_host``, and ``note_starts`` must be told.
    """
    if connection.dialect.name == "sqlite":
        return Admission(waiting)
    by_host: dict[str, list[WaitingRun]] = {}
    for run in waiting:
        by_host.setdefault(run.host, []).append(run)
    hosts = _lock(connection, list(by_host)[:HOSTS_MAX])
    others = _others(connection, hosts, owner) if hosts else {}
    waits = _waits(connection, hosts) if hosts and limits.gap else {}
    admitted: list[WaitingRun] = []
    refused: list[Refusal] = []
    for host, runs in by_host.items():
        if host not in hosts:
            refused.append(Refusal(host=host, why=Why.CONTENDED, runs=runs))
            continue
        wait = waits.get(host, timedelta(0))
        # Beyond one gap it is of an older clock of the database's.
        if timedelta(0) < wait <= limits.gap:
            refused.append(Refusal(host=host, why=Why.PACED, runs=runs, wait=wait))
            continue
        busy = others[host].busy + under_way.get(host, 0)
        free = max(limits.slots - busy, 0)
        admitted += runs[:free]
        if runs[free:]:
            refused.append(Refusal(host=host, why=Why.FULL, runs=runs[free:]))
    return Admission(admitted, refused, {host: found.owners for host, found in others.items()})


def slot_of(connection: WriteConnection, run: WaitingRun) -> str | None:
    """Tell what a claimed run's ``slot_host`` must be."""
    return None if connection.dialect.name == "sqlite" else run.host


def note_starts(connection: WriteConnection, hosts: Iterable[str], limits: HostLimits) -> None:
    """Note that each of these hosts, all of them admitted, gets a start in this transaction."""
    if connection.dialect.name == "sqlite" or not limits.gap:
        return
    rows = [(host,) for host in sorted(set(hosts))]
    if rows:
        connection.execute(_NOTE, parameters(rows, gap_us=limits.gap // _MICROSECOND))


def _lock(connection: WriteConnection, hosts: Sequence[str]) -> set[str]:
    """Take the locks that nobody has, or wait for the first; tell of which hosts."""
    rows = parameters([(host,) for host in hosts])
    free = set(connection.execute(_LOCK, rows).scalars())
    if not free and hosts and _wait_for(connection, hosts[0]):
        # The others may have become free with it.
        free = set(connection.execute(_LOCK, rows).scalars())
    return free


def _wait_for(connection: WriteConnection, host: str) -> bool:
    """Wait for another claim to let go of a host; False: it did not in time."""
    try:
        with connection.begin_nested():
            connection.execute(_WAIT, {"host": host, "patience": _PATIENCE})
            connection.execute(_WAIT_AS_BEFORE)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


def _others(connection: WriteConnection, hosts: Iterable[str], owner: str) -> dict[str, _Others]:
    """Look who else holds slots of hosts: a statement of its own, for a snapshot of now."""
    rows = connection.execute(_OTHERS, parameters([(host,) for host in hosts], me=owner))
    found = {host: _Others(busy, owners) for host, busy, owners in rows}
    return {host: found.get(host, _NOBODY) for host in hosts}


def _waits(connection: WriteConnection, hosts: Iterable[str]) -> dict[str, timedelta]:
    """Tell how far away the next starts are."""
    found = connection.execute(_WAITS, parameters([(host,) for host in hosts]))
    return {host: wait_us * _MICROSECOND for host, wait_us in found}
