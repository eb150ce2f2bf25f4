"""Readiness is computed from facts."""

import asyncio
from datetime import timedelta

from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError
from app.services.health_service import HealthOptions, HealthService, Pulse

WELL = Pulse(running=True, seconds_since_pass=0.5, lag=timedelta(0))


class FakeUnitOfWork:
    """Takes writes, refuses them, or never answers."""

    def __init__(self, *, refuse: bool = False, hang: bool = False) -> None:
        self._refuse = refuse
        self._hang = hang

    async def write(self, _unit):
        if self._refuse:
            raise StorageUnavailableError("The database is full")
        if self._hang:
            await asyncio.Event().wait()


async def failing(pulse: Pulse = WELL, **database: bool) -> dict[str, str]:
    service = HealthService(
        unit_of_work=FakeUnitOfWork(**database),  # type: ignore[arg-type]  # a fake
        clock=SystemClock(),
        pulse=lambda: pulse,
        options=HealthOptions(write_within=timedelta(seconds=0.05)),
    )
    return {check.name: check.detail for check in await service.check() if not check.healthy}


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
    pulse = Pulse(running=True, seconds_since_pass=6.0, lag=timedelta(0))
    assert await failing(pulse) == {"scheduler": "the last good pass was 6.0 s ago"}


async def test_a_service_that_starts_or_stops_is_not_ready():
    """Before the first pass and while stopping the scheduler's check fails."""
    for pulse in (
        Pulse(running=False, seconds_since_pass=0.1, lag=timedelta(0)),
        Pulse(running=True, seconds_since_pass=None, lag=timedelta(0)),
    ):
        assert list(await failing(pulse)) == ["scheduler"]


async def test_due_runs_that_wait_fail_the_lag():
    """A due instant that waits longer than ten seconds for its row is told."""
    pulse = Pulse(running=True, seconds_since_pass=0.1, lag=timedelta(seconds=11))
    assert await failing(pulse) == {"lag": "the earliest due run waits since 11.0 s"}
