"""The process is stopped for longer than its leases (SIGSTOP), and goes on (SIGCONT)."""

import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.chaos.arrivals import find_contradictions, read_rows, whole
from tests.chaos.judge import settled
from tests.e2e.world import (
    CLOCK,
    Row,
    assert_no_gap,
    create,
    instant,
    instants_of,
    soon,
    until,
)
from tests.support.homes import Home
from tests.support.nursery import CrashingService, Nursery
from tests.support.raw_server import Exchange, RawServer, reply
from tests.support.service import eventually

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)
POLICIES = {
    "none": ("missed", "too_late"), "latest": ("skipped", "coalesced"), "all": ("completed", None),
}  # fmt: skip
# With leases of one second beyond the deadline; and with those in use, which is a sweep.
LENGTHS = [
    pytest.param(3.5, "stop:api.committed@1000", id="short-leases"),
    pytest.param(15, None, id="leases-in-use", marks=pytest.mark.sweep),
]


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with Nursery() as starts:
        yield starts


async def answer_late(exchange: Exchange) -> None:
    """Answer a path that ends in ``held`` after a second, others at once."""
    if exchange.request.line.split()[1].endswith(b"held") and await exchange.pause(1):
        return
    await reply("ok")(exchange)


@pytest.mark.parametrize(("seconds", "point"), LENGTHS)
async def test_nothing_is_doubled_or_lost_by_a_suspension(
    home: Home, nursery: Nursery, seconds: float, point: str | None
):
    """Attempts under way arrive once, what was due meanwhile follows each job's policy."""
    async with (
        RawServer((answer_late,)) as target,
        CrashingService(nursery, home) as service,
    ):
        await service.start(point)
        first = {policy: await _begin(service, target, policy) for policy in POLICIES}
        once = {"schedule_type": "date", "run_at": soon(0.1), "timeout_sec": 1.5}
        await create(service.client, "held", target.url("/held"), **once)
        await eventually(lambda: any(b"/held" in r.line for r in target.requests))

        stopped = CLOCK.now()
        os.kill(service.pid, signal.SIGSTOP)
        await until(stopped + timedelta(seconds=seconds))
        resumed = CLOCK.now()
        os.kill(service.pid, signal.SIGCONT)
        await eventually(service.is_ready)

        for policy, fate in POLICIES.items():
            rows = await settled(service, policy, until=CLOCK.now())
            assert_no_gap(rows, first=first[policy], period=SECOND)
            assert _fates(rows, stopped + SECOND, resumed - 1.5 * SECOND) == {fate}
        assert len([r for r in target.requests if b"/held" in r.line]) == 1
        await eventually(lambda: _running(service) == [])
        assert find_contradictions(read_rows(service.home), whole(target.requests)) == []


async def test_a_claim_that_outlived_its_lease_is_not_sent(home: Home, nursery: Nursery):
    """Suspended between the commit of its claim and the send, an attempt is given back unsent."""
    async with (
        RawServer((reply("ok"),)) as target,
        CrashingService(nursery, home) as service,
    ):
        await service.start("stop:claim.committed")
        once = {"schedule_type": "date", "run_at": soon(0.1), "timeout_sec": 0.5}
        await create(service.client, "once", target.url("/once"), **once)
        await eventually(service.is_suspended)
        await until(CLOCK.now() + 2 * SECOND)
        os.kill(service.pid, signal.SIGCONT)

        def ended() -> bool:
            return [row.status for row in read_rows(service.home)] == ["completed"]

        await eventually(ended)
        (row,) = read_rows(service.home)
        assert [outcome for outcome, _ in row.outcomes] == ["interrupted", "response"]
        assert whole(target.requests) == {(row.id, 2): 1}


async def _begin(service: CrashingService, target: RawServer, policy: str) -> datetime:
    """Make a job that runs every second, wait until it has, and tell when it began."""
    created = await create(
        service.client, policy, target.url(f"/{policy}"),
        schedule_type="interval", interval={"seconds": 1}, misfire_grace_time=0.5, catch_up=policy,
    )  # fmt: skip
    await settled(service, policy, until=CLOCK.now())
    return instant(created["next_run_time"])


def _fates(rows: list[Row], begin: datetime, end: datetime) -> set[tuple[str, str | None]]:
    """Tell what became of the instants of a time."""
    found = [
        (row["status"], row["reason"])
        for row in rows
        for due in instants_of([row], SECOND)
        if begin <= due <= end
    ]
    assert found
    return set(found)


def _running(service: CrashingService) -> list[str]:
    return [row.id for row in read_rows(service.home) if row.status == "running"]
