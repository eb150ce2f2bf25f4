import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.execution import ClaimedRun, ExecutionStatus, WaitingRun
from app.domain.ids import JobId
from app.repositories import execution_repository, host_repository, run_repository
from app.repositories.host_repository import Admission, HostLimits, Why
from tests.conformance.builders import (
    NOW,
    NOW_US,
    SECOND,
    add_job,
    left_open,
    make_claim,
    make_ending,
    make_row,
    record,
)
from tests.support.databases import Database, DatabaseKind
from tests.support.service import eventually

AMONG_REPLICAS = pytest.mark.only_on(
    DatabaseKind.POSTGRES, because="with SQLite there is no other process"
)
HERE = "here:1"
THERE = "there:2"
HOST = "h:80"
MINUTE = timedelta(minutes=1)


async def add_waiting(database: Database, count: int, *, host: str = HOST) -> list[WaitingRun]:
    """Store runs that wait, each of a job of its own."""
    made = []
    for number in range(count):
        job = await add_job(database, f"job-{number}-{host}")
        row = make_row(0, job.id)
        await database.write(execution_repository.insert_executions, [row], now_us=NOW_US)
        made.append(
            WaitingRun(id=row.id, job_id=JobId(job.id), host=host, next_attempt_at=NOW, job_slots=1)
        )
    return made


def claim(
    connection: WriteConnection,
    runs: Sequence[WaitingRun],
    *,
    owner: str = HERE,
    under_way: Mapping[str, int] | None = None,
    limits: HostLimits = HostLimits(slots=3),  # noqa: B008 - frozen
) -> tuple[list[ClaimedRun], Admission]:
    """Claim within the limits of hosts, as the dispatcher does."""
    admission = host_repository.admit(
        connection, runs, owner=owner, under_way=under_way or {}, limits=limits
    )
    claimed, _ = run_repository.claim_runs(connection, admission.admitted, make_claim(owner=owner))
    host_repository.note_starts(connection, [run.waiting.host for run in claimed], limits)
    return claimed, admission


@contextlib.asynccontextmanager
async def held_open(database: Database, runs: Sequence[WaitingRun]) -> AsyncIterator[None]:
    """Have another process's claim not committed yet as long as the block lasts."""
    async with left_open(database, lambda connection: claim(connection, runs, owner=THERE)):
        yield


def told(admission: Admission) -> list[tuple[str, Why, int]]:
    return [(refusal.host, refusal.why, len(refusal.runs)) for refusal in admission.refused]


@pytest.mark.only_on(DatabaseKind.SQLITE, because="a replica is not known to be alone")
async def test_one_process_alone_is_not_counted(sqlite: Database):
    """On SQLite everything is admitted, and no row says whose slot it takes."""
    runs = await add_waiting(sqlite, 5)
    claimed, admission = await sqlite.write(claim, runs, limits=HostLimits(slots=1, gap=SECOND))
    assert (len(claimed), admission.refused) == (5, [])
    assert await sqlite.rows("SELECT 1 FROM executions WHERE slot_host IS NOT NULL") == []
    assert await sqlite.rows("SELECT 1 FROM host_starts") == []


@AMONG_REPLICAS
async def test_what_others_run_leaves_fewer_slots(postgres: Database):
    """Of a host's three slots two are taken by another process: one run is admitted, in order."""
    runs = await add_waiting(postgres, 5)
    await postgres.write(claim, runs[:2], owner=THERE)
    claimed, admission = await postgres.write(claim, runs[2:])
    assert [run.waiting for run in claimed] == runs[2:3]
    assert told(admission) == [(HOST, Why.FULL, 2)]
    assert admission.refused[0].runs == runs[3:]


@AMONG_REPLICAS
async def test_a_process_counts_its_own(postgres: Database):
    """Its own rows count by what it says is under way: their ends may not be recorded yet."""
    runs = await add_waiting(postgres, 6)
    await postgres.write(claim, runs[:3])
    claimed, _ = await postgres.write(claim, runs[3:], under_way={HOST: 1})
    assert len(claimed) == 2


@AMONG_REPLICAS
async def test_hosts_are_counted_apart(postgres: Database):
    """A host whose slots are taken keeps no run of another host waiting."""
    runs, others = await add_waiting(postgres, 4), await add_waiting(postgres, 1, host="calm:80")
    await postgres.write(claim, runs[:3], owner=THERE)
    claimed, admission = await postgres.write(claim, [*runs[3:], *others])
    assert [run.waiting for run in claimed] == others
    assert told(admission) == [(HOST, Why.FULL, 1)]


@pytest.mark.parametrize(
    "status", [ExecutionStatus.COMPLETED, ExecutionStatus.RETRYING, ExecutionStatus.UNKNOWN]
)
@AMONG_REPLICAS
async def test_a_slot_is_free_when_an_attempt_is_recorded(
    postgres: Database, status: ExecutionStatus
):
    """However an attempt ends, also as lost, its slot is free from then on, and not before."""
    runs = await add_waiting(postgres, 4)
    taken, _ = await postgres.write(claim, runs[:3], owner=THERE)
    assert (await postgres.write(claim, runs[3:]))[0] == []
    await record(postgres, make_ending(taken[0], status, owner=THERE))
    assert len((await postgres.write(claim, runs[3:]))[0]) == 1
    assert len(await postgres.rows("SELECT 1 FROM executions WHERE slot_host IS NOT NULL")) == 3


@AMONG_REPLICAS
async def test_the_same_run_takes_its_slot_again(postgres: Database):
    """A retry counts like a first attempt."""
    runs = await add_waiting(postgres, 2)
    [first], _ = await postgres.write(claim, runs[:1], owner=THERE)
    ending = make_ending(first, ExecutionStatus.RETRYING, owner=THERE)
    await record(postgres, ending)
    assert ending.next_attempt_at is not None
    retries = [replace(runs[0], next_attempt_at=ending.next_attempt_at)]
    assert len((await postgres.write(claim, retries, owner=THERE))[0]) == 1
    claimed, _ = await postgres.write(claim, runs[1:], limits=HostLimits(slots=1))
    assert claimed == []


@AMONG_REPLICAS
async def test_a_claim_under_way_is_not_waited_for(postgres: Database):
    """A host that another process claims for is refused at once, others are not; then it is had."""
    runs, others = await add_waiting(postgres, 2), await add_waiting(postgres, 1, host="calm:80")
    async with held_open(postgres, runs[:1]):
        async with asyncio.timeout(2):
            claimed, admission = await postgres.write(claim, [*runs[1:], *others])
    assert [run.waiting for run in claimed] == others
    assert told(admission) == [(HOST, Why.CONTENDED, 1)]
    assert len((await postgres.write(claim, runs[1:]))[0]) == 1


@AMONG_REPLICAS
async def test_a_claim_of_one_host_waits_for_its_turn(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
):
    """Whoever gets no host at all waits until the first is free, and sees what was claimed there.

    Then it has the others too that are free by then, and goes on as if it had not waited.
    """
    monkeypatch.setattr(host_repository, "_PATIENCE", "30s")
    runs, others = await add_waiting(postgres, 4), await add_waiting(postgres, 3, host="other:80")
    shown: list[object] = []

    def claim_and_ask(connection: WriteConnection) -> tuple[list[ClaimedRun], Admission]:
        found = claim(connection, [*runs[2:], *others[2:]])
        shown.extend(
            connection.scalar(sa.text(f"SHOW {name}"))
            for name in ("lock_timeout", "enable_bitmapscan")
        )
        return found

    async with asyncio.TaskGroup() as group, held_open(postgres, [*runs[:2], *others[:2]]):
        waits = group.create_task(postgres.write(claim_and_ask))
        await eventually(lambda: _waits_for_a_host(postgres))
    claimed, admission = waits.result()
    assert [run.waiting for run in claimed] == [runs[2], others[2]]
    assert told(admission) == [(HOST, Why.FULL, 1)]
    assert shown == ["0", "off"]


async def _waits_for_a_host(postgres: Database) -> bool:
    return bool(
        await postgres.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    )


@AMONG_REPLICAS
async def test_a_claim_that_hangs_is_not_waited_for_for_long(postgres: Database):
    """After a moment its host counts as contended, and the transaction goes on."""
    runs = await add_waiting(postgres, 2)
    async with held_open(postgres, runs[:1]):
        async with asyncio.timeout(2):
            claimed, admission = await postgres.write(claim, runs[1:])
    assert (claimed, told(admission)) == ([], [(HOST, Why.CONTENDED, 1)])


@AMONG_REPLICAS
async def test_rivals_are_who_has_attempts_under_way(postgres: Database):
    """By host, without the asker; a host where nobody has any is named too."""
    runs, others = await add_waiting(postgres, 3), await add_waiting(postgres, 1, host="calm:80")
    await postgres.write(claim, runs[:1], owner=THERE)
    await postgres.write(claim, runs[1:2])
    _, admission = await postgres.write(claim, [*runs[2:], *others])
    assert {host: list(owners) for host, owners in admission.rivals.items()} == {
        HOST: [THERE],
        "calm:80": [],
    }


@AMONG_REPLICAS
async def test_claims_at_once_grant_no_more_than_the_limit(postgres: Database):
    """Of claims that many processes make at once for one host, three slots are granted."""
    runs = await add_waiting(postgres, 12)
    claims = [
        postgres.write(claim, runs[number : number + 2], owner=f"replica:{number}")
        for number in range(0, 12, 2)
    ]
    await asyncio.gather(*claims)
    running = await postgres.rows("SELECT 1 FROM executions WHERE status = 'running'")
    assert 1 <= len(running) <= 3


@AMONG_REPLICAS
async def test_claims_that_cross_do_not_wait_in_a_circle(postgres: Database):
    """Two processes that want the same hosts in opposite order both end at once."""
    one, two = await add_waiting(postgres, 4), await add_waiting(postgres, 4, host="other:80")
    for number in range(4):
        pair = [one[number], two[number]]
        async with asyncio.timeout(5):
            await asyncio.gather(
                postgres.write(claim, pair, owner=HERE),
                postgres.write(claim, pair[::-1], owner=THERE),
            )


@AMONG_REPLICAS
async def test_starts_keep_their_distance_over_processes(postgres: Database):
    """After one process's start another gets none within the gap, and is told when."""
    runs = await add_waiting(postgres, 2)
    limits = HostLimits(slots=10, gap=MINUTE)
    assert len((await postgres.write(claim, runs[:1], owner=THERE, limits=limits))[0]) == 1
    claimed, admission = await postgres.write(claim, runs[1:], limits=limits)
    assert claimed == []
    assert told(admission) == [(HOST, Why.PACED, 1)]
    assert timedelta(0) < admission.refused[0].wait <= MINUTE
    await postgres.execute("UPDATE host_starts SET next_us = next_us - 60000000")
    assert len((await postgres.write(claim, runs[1:], limits=limits))[0]) == 1


@AMONG_REPLICAS
async def test_what_is_not_claimed_is_no_start(postgres: Database):
    """A run that was admitted and is not to be had any more uses up no start."""
    runs = await add_waiting(postgres, 2)
    await postgres.write(claim, runs[:1], owner=THERE)
    limits = HostLimits(slots=10, gap=MINUTE)
    assert (await postgres.write(claim, runs[:1], limits=limits))[0] == []
    assert len((await postgres.write(claim, runs[1:], limits=limits))[0]) == 1


@AMONG_REPLICAS
async def test_a_start_noted_by_a_clock_that_was_ahead_binds_nobody(postgres: Database):
    """A next start further away than one gap is of an older clock."""
    runs = await add_waiting(postgres, 1)
    await postgres.execute("INSERT INTO host_starts VALUES (:host, 250000000000000000)", host=HOST)
    limits = HostLimits(slots=10, gap=SECOND)
    assert len((await postgres.write(claim, runs, limits=limits))[0]) == 1


@AMONG_REPLICAS
async def test_a_claim_locks_a_bounded_number_of_hosts(postgres: Database):
    """Hosts beyond the number of locks that one claim may hold are left for the next."""
    job = await add_job(postgres)
    rows = [make_row(number, exclusive=False) for number in range(host_repository.HOSTS_MAX + 1)]
    await postgres.write(execution_repository.insert_executions, rows, now_us=NOW_US)
    runs = [
        WaitingRun(
            id=row.id,
            job_id=job.id,
            host=f"h-{number}:80",
            next_attempt_at=row.scheduled_for,
            job_slots=None,
        )
        for number, row in enumerate(rows)
    ]
    claimed, admission = await postgres.write(claim, runs)
    assert len(claimed) == host_repository.HOSTS_MAX
    assert told(admission) == [(f"h-{host_repository.HOSTS_MAX}:80", Why.CONTENDED, 1)]
