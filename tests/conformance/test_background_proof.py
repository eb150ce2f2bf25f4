"""The background proves what is new, shows what is missing for a day, and stays out of the way."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
import structlog.testing

from app.db.unit_of_work import ReadConnection
from app.domain.clock import SystemClock, from_us
from app.domain.execution import ExecutionStatus, Reason
from app.domain.job import Change, JobState
from app.engine.auditor import Auditor, AuditorOptions, Proof
from app.engine.tasks import Tasks
from app.repositories import job_repository
from tests.conformance.builders import JOB, NOW, SECOND, add_rows, make_unrun
from tests.conformance.test_ledger_proof import (
    ROWS,
    account,
    add_ledger,
    at,
    change,
    drop,
    every_second,
)
from tests.support.databases import Database
from tests.support.service import eventually

T = TypeVar("T")

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class SetClock(SystemClock):
    """Shows what the test sets; each look at the monotonic clock takes ``look`` seconds."""

    def __init__(self, now: datetime, *, look: float = 0.0) -> None:
        self.shown = now
        self._look = look
        self._looks = 0

    def now(self) -> datetime:
        return self.shown

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks * self._look


class Retention:
    """A reading door; after so many reads, what retention removed becomes known."""

    def __init__(self, database: Database, *, at_read: int, until_us: int) -> None:
        self._database = database
        self._left = at_read
        self._until_us = until_us

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        found = await self._database.unit_of_work.read(unit)
        self._left -= 1
        if not self._left:
            await self._database.execute("UPDATE jobs SET pruned_us = :us", us=self._until_us)
        return found


def auditor_of(database: Database, clock: SetClock, **options: Any) -> Auditor:
    return Auditor(
        unit_of_work=database.unit_of_work, clock=clock, options=AuditorOptions(**options)
    )


def figures(proof: Proof) -> tuple[bool, int, int]:
    tally = proof.audit.tally
    return proof.holds, tally.expected, tally.unaccounted_count


async def test_each_proof_goes_on_where_the_last_one_was_made(database: Database):
    """The first proof covers a day, the next what came since, and a while before."""
    await add_ledger(database)
    clock = SetClock(NOW + ROWS * SECOND)
    auditor = auditor_of(database, clock)
    assert auditor.proof is None
    with structlog.testing.capture_logs() as logs:
        first = await auditor.prove()
    assert figures(first) == (True, ROWS, 0)
    assert first.since == clock.shown - DAY
    (line,) = [line for line in logs if line["event"] == "ledger.verified"]
    assert (line["log_level"], line["expected"], line["accounted"]) == ("info", ROWS, ROWS)
    clock.shown += HOUR
    second = await auditor.prove()
    assert second.since == NOW + ROWS * SECOND - AuditorOptions().overlap
    assert auditor.proof is second


async def test_the_first_proof_reaches_back_to_the_last_sign_of_life(database: Database):
    """What was missed while nothing ran for longer than a day is proven after the start."""
    await add_ledger(database)
    clock = SetClock(NOW + 10 * DAY)
    auditor = auditor_of(database, clock)
    auditor.begin(NOW)
    assert figures(await auditor.prove())[:2] == (True, ROWS)
    fresh = auditor_of(database, clock)
    fresh.begin(None)
    assert figures(await fresh.prove())[:2] == (True, 0)


async def test_a_hole_is_shown_for_a_day(database: Database):
    """What is missing is an error in the log and in every proof of the day that follows."""
    await add_ledger(database)
    await drop(database, 42)
    await database.execute("UPDATE jobs SET state = 'finished', next_run_us = NULL")
    clock = SetClock(NOW + ROWS * SECOND)
    auditor = auditor_of(database, clock)
    with structlog.testing.capture_logs() as logs:
        assert figures(await auditor.prove()) == (False, ROWS, 1)
    (line,) = [line for line in logs if line["event"] == "ledger.unproven"]
    assert line["log_level"] == "error"
    assert line["first"] == [f"{JOB} {from_us(at(42)).isoformat()} unaccounted 1"]
    clock.shown += 20 * HOUR
    assert figures(await auditor.prove())[0] is False
    clock.shown += 5 * HOUR
    assert figures(await auditor.prove())[0] is False
    assert figures(await auditor.prove())[0] is True


async def test_a_long_pause_is_proven_when_it_ends(database: Database):
    """The row of a pause, whose instants lie far back, is looked at in the proof after its end."""
    job = every_second()
    await database.write(job_repository.insert_job, job, actor=None)
    job = await change(
        database, job, Change.PAUSED, accounted=0, state=JobState.PAUSED, next_run_time=None
    )
    clock = SetClock(NOW + 10 * DAY)
    auditor = auditor_of(database, clock)
    assert figures(await auditor.prove())[:2] == (True, 0)
    skipped = {"status": ExecutionStatus.SKIPPED, "reason": Reason.PAUSED}
    seconds = 10 * 86_400
    stretch = make_unrun(1, until=from_us(at(seconds)), instant_count=seconds - 5, **skipped)
    await add_rows(database, stretch)
    await change(
        database, job, Change.RESUMED, accounted=seconds, state=JobState.ACTIVE,
        cursor=clock.shown, next_run_time=clock.shown + SECOND,
    )  # fmt: skip
    proof = await auditor.prove()
    assert figures(proof) == (False, seconds, 5)


async def test_instants_that_nobody_comes_to_are_told(database: Database):
    """An active job whose due instants stay without rows fails the proof after ten minutes."""
    await add_ledger(database)
    clock = SetClock(NOW + ROWS * SECOND + HOUR)
    auditor = auditor_of(database, clock)
    proof = await auditor.prove()
    assert (proof.holds, proof.audit.overdue_count) == (True, 3600)
    clock.shown += timedelta(minutes=11)
    proof = await auditor.prove()
    assert (proof.holds, proof.audit.tally.is_clean) == (False, True)
    assert proof.since < from_us(at(ROWS + 1))
    # Once they have their row they are proven, however late.
    late = 3600 + 660
    await add_rows(
        database,
        make_unrun(ROWS + 1, until=from_us(at(ROWS + late)), instant_count=late - 2),
    )
    await account(database, until=ROWS + late)
    clock.shown += 12 * DAY
    assert (await auditor.prove()).audit.tally.unaccounted_count == 2


async def test_the_background_takes_its_part_of_the_time_only(database: Database):
    """After each page it rests nine times as long as that took."""
    for number in range(4):
        await add_ledger(database, f"job-{number}")
    clock = SetClock(NOW + ROWS * SECOND, look=0.001)
    auditor = auditor_of(database, clock, jobs_max=1, background_rows_max=40)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await auditor.prove()
    # Four jobs of three pages each, and a rest of at least nine looks after each.
    assert loop.time() - began > 4 * 3 * 9 * 0.001


async def test_the_loop_proves_again_and_again(database: Database):
    """Proofs follow one another until the loop is cancelled."""
    await add_ledger(database)
    clock = SetClock(NOW + ROWS * SECOND)
    soon = timedelta(milliseconds=5)
    auditor = auditor_of(database, clock, every=soon, first_after=soon)
    assert auditor.is_watching
    tasks = Tasks()
    tasks.loop("auditor", auditor.run)
    first = await eventually(lambda: auditor.proof)
    await eventually(lambda: auditor.proof is not first)
    await tasks.end_loop("auditor")


async def test_a_job_that_changes_meanwhile_is_looked_at_again(database: Database):
    """Rows that retention removes between two pages are not taken for missing."""
    await add_ledger(database)
    await drop(database, *range(1, 31))

    clock = SetClock(NOW + ROWS * SECOND)
    between = Retention(database, at_read=2, until_us=at(30))
    auditor = Auditor(
        unit_of_work=between,  # type: ignore[arg-type]  # a fake of the reading door
        clock=clock,
        options=AuditorOptions(),
    )
    assert figures(await auditor.prove()) == (True, ROWS - 30, 0)


async def test_what_is_still_missing_on_the_second_look_is_told(database: Database):
    """A job that changed is looked at again, and a hole that is there again is a hole."""
    await add_ledger(database)
    await drop(database, 20, 50)
    auditor = Auditor(
        unit_of_work=Retention(database, at_read=2, until_us=at(30)),  # type: ignore[arg-type]  # a fake
        clock=SetClock(NOW + ROWS * SECOND),
        options=AuditorOptions(),
    )
    assert figures(await auditor.prove()) == (False, ROWS - 30, 1)


@pytest.mark.parametrize(
    "options",
    [{"jobs_max": 0}, {"rows_max": 1}, {"background_share": 0.0}, {"background_share": 1.5}],
)
def test_impossible_options_are_refused(options: dict[str, Any]):
    """Limits that would let nothing be read, or all the time be taken, are refused."""
    with pytest.raises(ValueError, match="must be at least"):
        AuditorOptions(**options)
