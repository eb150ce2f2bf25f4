"""Readiness is computed from facts."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError
from app.domain.ids import JobId
from app.domain.tenure import Tenure
from app.engine.audit_walk import Audit
from app.engine.auditor import Proof
from app.engine.reconciliation import DuplicateKind, Finding, Tally
from app.engine.tasks import FailingLoop
from app.repositories.leadership_repository import Leadership
from app.services.health_service import Check, HealthOptions, HealthService, Pulse

WELL = Pulse(running=True, ticks=True, alone=True, seconds_since_pass=0.5, lag=timedelta(0))


class FakeUnitOfWork:
    """Takes writes, refuses them, or never answers."""

    def __init__(
        self,
        *,
        refuse: bool = False,
        hang: bool = False,
        hang_read: bool = False,
        leadership: Leadership | None = None,
    ) -> None:
        self._refuse = refuse
        self._hang = hang
        self._hang_read = hang_read
        self._leadership = leadership

    async def read(self, _unit):
        if self._hang_read:
            await asyncio.Event().wait()
        return self._leadership

    async def write(self, _unit):
        if self._refuse:
            raise StorageUnavailableError("The database is full")
        if self._hang:
            await asyncio.Event().wait()


class FakeAuditor:
    """Tells the proof it is given; without one it may be switched off."""

    def __init__(self, proof: Proof | None = None, *, watching: bool = True) -> None:
        self.proof = proof
        self.is_watching = watching


async def check_all(
    pulse: Pulse = WELL, auditor: FakeAuditor | None = None, **database: Any
) -> list[Check]:
    service = HealthService(
        unit_of_work=FakeUnitOfWork(**database),  # type: ignore[arg-type]  # a fake
        clock=SystemClock(),
        pulse=lambda: pulse,
        tenure=Tenure,
        options=HealthOptions(answer_within=timedelta(seconds=0.05)),
        auditor=auditor or FakeAuditor(),
    )
    return await service.check()


async def failing(pulse: Pulse = WELL, **database: Any) -> dict[str, str]:
    checks = await check_all(pulse, None, **database)
    return {check.name: check.detail for check in checks if not check.healthy}


async def ledger_check(auditor: FakeAuditor) -> Check:
    (found,) = [check for check in await check_all(auditor=auditor) if check.name == "ledger"]
    return found


def proof_of(tally: Tally, **audit: int) -> Proof:
    """Make a proof that was made just now."""
    return Proof(
        audit=Audit(tally=tally, **audit),  # type: ignore[arg-type]  # numbers only
        since=datetime(2026, 6, 1, tzinfo=UTC),
        made_at=SystemClock().now(),
        holds=tally.is_clean and not audit,
    )


async def test_a_service_that_is_well_is_ready():
    """A database that takes writes, fresh passes and no lag make a ready service."""
    assert await failing() == {}


async def test_a_database_that_refuses_fails_its_check():
    """A refused write is told in the database's own sentence."""
    assert await failing(refuse=True) == {"database": "The database is full"}


async def test_a_database_that_hangs_fails_its_check():
    """A write that is not answered in time fails the check, in bounded time."""
    assert await failing(hang=True) == {
        "database": "the database did not take a write within 0.05 s"
    }


async def test_an_old_pass_fails_the_scheduler():
    """A last good pass older than five seconds is told with its age."""
    pulse = Pulse(running=True, ticks=True, alone=True, seconds_since_pass=6.0, lag=timedelta(0))
    assert await failing(pulse) == {"scheduler": "the last good pass was 6.0 s ago"}


async def test_a_service_that_starts_or_stops_is_not_ready():
    """Before the first pass and while stopping the scheduler's check fails."""
    for pulse in (
        Pulse(running=False, ticks=True, alone=True, seconds_since_pass=0.1, lag=timedelta(0)),
        Pulse(running=True, ticks=True, alone=True, seconds_since_pass=None, lag=timedelta(0)),
    ):
        assert list(await failing(pulse)) == ["scheduler"]


async def test_due_runs_that_wait_fail_the_lag():
    """A due instant that waits longer than ten seconds for its row is told."""
    pulse = Pulse(
        running=True, ticks=True, alone=True, seconds_since_pass=0.1, lag=timedelta(seconds=11)
    )
    assert await failing(pulse) == {"lag": "the earliest due run waits since 11.0 s"}


async def test_the_latest_proof_of_the_ledger_is_told():
    """A proof that holds is told with what it covers and its age; the check is not required."""
    check = await ledger_check(FakeAuditor(proof_of(Tally(expected=5))))
    assert (check.healthy, check.required) == (True, False)
    expected = "every due instant since 2026-06-01T00:00:00+00:00 has its row (checked 0 s ago)"
    assert check.detail == expected


async def test_a_proof_that_fails_is_told():
    """What is missing or doubled fails the ledger's check with its numbers."""
    tally = Tally()
    found = Finding(job_id=JobId("job"), revision=1, first_us=1, last_us=9, count=3)
    tally.lacks(found)
    tally.doubles(
        Finding(
            job_id=JobId("job"), revision=1, first_us=1, last_us=1, count=1,
            kind=DuplicateKind.SECOND_ROW,
        )
    )  # fmt: skip
    check = await ledger_check(FakeAuditor(proof_of(tally)))
    assert not check.healthy
    assert "3 due instants have no row; 1 instants have a row too many" in check.detail


async def test_overdue_instants_fail_the_ledger():
    """Instants that are due for too long are told, though no row is missing before a cursor."""
    check = await ledger_check(FakeAuditor(proof_of(Tally(), overdue_count=7)))
    assert not check.healthy
    assert "7 due instants are overdue" in check.detail


async def test_before_the_first_proof_nothing_fails():
    """Before the first proof, and with proofs switched off, the check says so and is well."""
    assert (await ledger_check(FakeAuditor())).detail == "not proven yet since the start"
    off = await ledger_check(FakeAuditor(watching=False))
    assert off.healthy
    assert "MYSCHEDULER_VERIFY_EVERY_SECONDS is 0" in off.detail


STANDING_BY = replace(WELL, ticks=False, alone=False, seconds_since_pass=None)
LEADING = replace(WELL, alone=False)
SINCE = datetime(2026, 6, 1, tzinfo=UTC)


def led_by_other(*, beat_ago: timedelta) -> Leadership:
    return Leadership(term=7, holder="web-1:8", since=SINCE, beat=SystemClock().now() - beat_ago)


async def told(pulse: Pulse, **database: Any) -> dict[str, tuple[bool, str]]:
    checks = await check_all(pulse, None, **database)
    return {check.name: (check.healthy, check.detail) for check in checks}


async def test_the_leader_is_named():
    """Every replica tells who leads, since when and in which term; a follower how it is, too."""
    leadership = led_by_other(beat_ago=timedelta(0))
    named = (True, "web-1:8 leads since 2026-06-01T00:00:00+00:00, in term 7")
    following = await told(STANDING_BY, leadership=leadership)
    assert following["leader"] == named
    assert "last heard 0 s ago" in following["scheduler"][1]
    assert (await told(LEADING, leadership=leadership))["leader"] == named
    assert "leader" not in await told(WELL, leadership=leadership)


async def test_a_leader_that_is_silent_is_told_and_no_failure_of_a_follower():
    """After thirty seconds without a sign of life both checks fail; a follower stays ready."""
    leadership = led_by_other(beat_ago=timedelta(seconds=31))
    checks = await check_all(STANDING_BY, None, leadership=leadership)
    unwell = [check for check in checks if not check.healthy]
    assert {check.name for check in unwell} == {"scheduler", "leader"}
    assert not any(check.required for check in unwell)


@pytest.mark.parametrize("database", [{"refuse": True}, {"hang_read": True}])
async def test_without_the_database_the_leader_is_unknown(database: dict[str, bool]):
    """A follower that cannot ask says so, in bounded time."""
    checks = await told(STANDING_BY, **database)
    assert checks["scheduler"] == (
        False, "standing by: without the database the replica that leads cannot be heard of",
    )  # fmt: skip


async def test_before_the_first_leader_nobody_is_named():
    """On a new database a follower tells that no replica has led yet."""
    checks = await told(STANDING_BY)
    assert checks["scheduler"] == (False, "standing by: no replica has led yet")
    assert "leader" not in checks


def failing_loop(name: str, *, seconds: float, required: bool = True) -> FailingLoop:
    return FailingLoop(name=name, seconds=seconds, why="RuntimeError", required=required)


@pytest.mark.parametrize("pulse", [WELL, LEADING, STANDING_BY], ids=["alone", "leads", "follows"])
async def test_loops_that_go_on_failing_are_named(pulse: Pulse):
    """A loop that fails for more than three seconds fails its check, on any replica."""
    loops = [failing_loop("ledger", seconds=3.5), failing_loop("window", seconds=0.5)]
    checks = await check_all(replace(pulse, failing=loops))
    (unwell,) = [check for check in checks if check.required and not check.healthy]
    assert unwell.name == "loops"
    assert unwell.detail == (
        "ledger fails since 3.5 s: RuntimeError; window fails since 0.5 s: RuntimeError"
    )


async def test_a_loop_that_failed_just_now_is_told_and_no_failure():
    """It is started again after a second: until then it is named in a check that holds."""
    pulse = replace(WELL, failing=[failing_loop("ledger", seconds=1)])
    assert await failing(pulse) == {}
    assert "ledger fails since 1.0 s" in (await told(pulse))["loops"][1]


async def test_upkeep_that_fails_leaves_the_service_ready():
    """What runs do not need is named in a check of its own, which is not required."""
    pulse = replace(WELL, failing=[failing_loop("pruner", seconds=60, required=False)])
    (unwell,) = [check for check in await check_all(pulse) if not check.healthy]
    assert (unwell.name, unwell.required) == ("upkeep", False)


async def test_runs_that_wait_beside_free_slots_fail_the_dispatch():
    """Runs that may start and are not looked at for more than four seconds are told."""
    assert await failing(replace(WELL, held_up=timedelta(seconds=4))) == {}
    assert await failing(replace(WELL, held_up=timedelta(seconds=4.5))) == {
        "dispatch": "runs that may start wait since 4.5 s"
    }
