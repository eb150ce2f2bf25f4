"""The pruner's passes, on both databases: what goes, what stays, what is looked for again."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.backends.embedded import EmbeddedLeader
from app.domain.clock import SystemClock, to_us
from app.domain.errors import SchedulerError
from app.domain.execution import Cause, ExecutionStatus
from app.domain.ids import JobId
from app.engine.pruner import Pruner, PrunerOptions
from app.repositories import leadership_repository
from tests.conformance.builders import JOB, NOW, add_job, read_history
from tests.conformance.test_history_repository import insert, ledger_row
from tests.support.databases import Database

S = ExecutionStatus
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
OTHER = JobId("other")


class SetClock(SystemClock):
    """A clock that shows what a test sets; durations are the machine's, plus what it adds."""

    def __init__(self) -> None:
        self.shown = NOW
        self.added = 0.0

    def now(self) -> datetime:
        return self.shown

    def monotonic(self) -> float:
        return super().monotonic() + self.added


@dataclass
class World:
    """A database with two jobs, a pruner that keeps 30 and 90 days and 5 of each, and its clock."""

    database: Database
    clock: SetClock
    pruner: Pruner
    born: int = 0

    async def add(
        self, ended: Iterable[datetime], status: ExecutionStatus = S.COMPLETED, **changes: Any
    ) -> list[str]:
        """Store executions in the order of their birth; return their ids."""
        rows = []
        for at in ended:
            self.born += 1
            rows.append(ledger_row(self.born, status, due_us=to_us(at), **changes))
        await self.database.write(insert, rows)
        return [row["id"] for row in rows]

    async def kept(self, job_id: str = JOB) -> list[str]:
        """Tell which executions of a job are left, oldest first."""
        return [row.id for row in (await read_history(self.database, job_id))[::-1]]


@pytest.fixture
async def world(database: Database) -> World:
    """Open a database with two jobs and a pruner that takes no rests."""
    await add_job(database)
    await add_job(database, OTHER)
    term = await database.write(leadership_repository.take_leadership, holder="me", now=NOW)
    clock = SetClock()
    pruner = Pruner(
        unit_of_work=database.unit_of_work,
        leader=EmbeddedLeader(owner="me", term=term, since=NOW),
        clock=clock,
        options=PrunerOptions(
            keep_failed=90 * DAY,
            keep_others=30 * DAY,
            keep_per_job=5,
            rows_max=50,
            rest_factor=0,
            rest_min=timedelta(0),
            totals_at_once=1,
        ),
    )
    return World(database, clock, pruner)


async def test_by_age_failures_stay_longer(world: World):
    """Ended executions go after their days, failed and unknown ones after theirs."""
    await world.add([NOW - 91 * DAY], S.FAILED)
    await world.add([NOW - 91 * DAY], S.UNKNOWN)
    stay = await world.add([NOW - 89 * DAY], S.FAILED)
    stay += await world.add([NOW - 89 * DAY], S.UNKNOWN)
    for status in (S.COMPLETED, S.CANCELLED, S.SKIPPED, S.MISSED):
        await world.add([NOW - 31 * DAY], status)
    stay += await world.add([NOW - 89 * DAY], S.RUNNING, lease_until_us=to_us(NOW))
    stay += await world.add([NOW - 29 * DAY])
    assert await world.pruner.prune() == 6
    assert await world.kept() == stay
    assert await world.pruner.prune() == 0


async def test_many_batches_make_a_pass(world: World):
    """However many there are, one pass removes them all, kept ones between them or not."""
    old = [NOW - 40 * DAY + n * MINUTE for n in range(90)]
    await world.add(old[:45])
    stay = await world.add(old, S.FAILED, job_id=OTHER)
    await world.add(old[45:])
    stay = stay[-5:]
    assert await world.pruner.prune() == 90 + 85
    assert await world.kept() == []
    assert await world.kept(OTHER) == stay


async def test_by_number_the_newest_stay(world: World):
    """Of each job the newest of either group stay; what ended in the last hour stays anyway."""
    past = [NOW - 2 * DAY + n * MINUTE for n in range(9)]
    completed = await world.add(past)
    failed = await world.add(past[:7], S.FAILED)
    await world.add(past[:5], job_id=OTHER)
    assert await world.pruner.prune() == 4 + 2
    assert await world.kept() == [*completed[-5:], *failed[-5:]]
    assert len(await world.kept(OTHER)) == 5
    await world.add([NOW - 30 * MINUTE + n * MINUTE for n in range(9)])
    assert await world.pruner.prune() == 5
    assert len(await world.kept()) == 9 + 5
    assert await world.pruner.prune() == 0


async def test_a_pass_goes_on_where_the_last_one_stopped(world: World):
    """What had not ended when it was passed is found when the walk begins anew, a day later."""
    await world.add([NOW - 40 * DAY], finished_us=to_us(NOW - 29 * DAY))
    passed = await world.add([NOW - 40 * DAY + n * MINUTE for n in range(4)], S.FAILED)
    await world.add([NOW - 40 * DAY + n * MINUTE for n in range(60)])
    assert await world.pruner.prune() == 60
    world.clock.shown += 2 * DAY
    assert await world.pruner.prune() == 0
    world.clock.added += DAY.total_seconds()
    assert await world.pruner.prune() == 1
    assert await world.kept() == passed


async def test_due_instants_that_are_gone_are_noted(world: World):
    """The job knows up to which due instant rows may be missing."""
    await world.add([NOW - 31 * DAY, NOW - 32 * DAY], cause=Cause.CATCH_UP)
    await world.pruner.prune()
    (job,) = await world.database.rows("SELECT pruned_us FROM jobs WHERE id = 'job'")
    assert job["pruned_us"] == to_us(NOW - 31 * DAY)


async def test_a_deleted_job_stays_when_its_history_is_gone(world: World):
    """A tombstone outlives its history: a job of the same id must not begin in its epoch."""
    await world.database.execute(
        "UPDATE jobs SET revision = revision + 1, state = 'deleted', next_run_us = NULL"
        " WHERE id = 'job'"
    )
    await world.add([NOW - 31 * DAY])
    await world.pruner.prune()
    assert await world.kept() == []
    assert len(await world.database.rows("SELECT id FROM jobs WHERE id = 'job'")) == 1


async def test_old_request_keys_go_too(world: World):
    """Keys of requests are forgotten after a day, whether or not another one comes."""
    await world.database.execute(
        "INSERT INTO idempotency_keys VALUES ('key', 'hash', 'answer', :at)",
        at=to_us(NOW - 25 * timedelta(hours=1)),
    )
    await world.pruner.prune()
    assert await world.database.rows("SELECT key FROM idempotency_keys") == []


async def test_only_the_leader_prunes(world: World):
    """A process that leads no more removes nothing."""
    stay = await world.add([NOW - 31 * DAY])
    await world.database.write(leadership_repository.take_leadership, holder="other", now=NOW)
    with pytest.raises(SchedulerError):
        await world.pruner.prune()
    assert await world.kept() == stay


async def test_a_pass_tells_what_it_removed(world: World):
    """A pass that removed something is one line with its counts; others are silent."""
    await world.add([NOW - 31 * DAY])
    await world.add([NOW - 2 * DAY + n * MINUTE for n in range(7)])
    with capture_logs() as logs:
        await world.pruner.prune()
        await world.pruner.prune()
    (line,) = logs
    assert line == {
        "event": "history.pruned", "log_level": "info", "by_age": 1, "by_number": 2,
        "request_keys": 0,
    }  # fmt: skip


def test_impossible_options_are_refused():
    """A pruner that would keep nothing, or look at nothing, is not built."""
    with pytest.raises(ValueError, match="too small"):
        PrunerOptions(keep_failed=DAY, keep_others=DAY, keep_per_job=0)
