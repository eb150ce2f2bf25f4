"""Is the service fit for work? Asked by probes, answered from facts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import UnavailableError
from app.repositories import leadership_repository


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """When a check fails."""

    # The scheduler makes a pass every second; five missed ones are an outage.
    pass_age_max: timedelta = timedelta(seconds=5)
    # Jobs that wait so long for a tick mean that the ledger does not keep up.
    lag_max: timedelta = timedelta(seconds=10)
    # A write takes milliseconds; a database that needs longer than this is away.
    write_within: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One named fact: whether it is well, and a sentence."""

    name: str
    healthy: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What the pipeline says of itself.

    ``seconds_since_pass`` is None before the first pass; ``lag`` is how late the earliest
    unaccounted due instant is (zero if none is).
    """

    running: bool
    seconds_since_pass: float | None
    lag: timedelta


class HealthService:
    """Answers readiness."""

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        pulse: Callable[[], Pulse],
        options: HealthOptions,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._pulse = pulse
        self._options = options

    async def check(self) -> list[Check]:
        """Check the database (by writing), the scheduler's passes and their lag."""
        pulse = self._pulse()
        return [await self._check_database(), self._check_scheduler(pulse), self._check_lag(pulse)]

    async def _check_database(self) -> Check:
        now = self._clock.now()
        try:
            async with asyncio.timeout(self._options.write_within.total_seconds()):
                await self._unit_of_work.write(
                    lambda connection: leadership_repository.beat(connection, now=now)
                )
        except TimeoutError:
            seconds = self._options.write_within.total_seconds()
            detail = f"the database did not take a write within {seconds:g} s"
            return Check(name="database", healthy=False, detail=detail)
        except UnavailableError as error:
            return Check(name="database", healthy=False, detail=str(error))
        return Check(name="database", healthy=True, detail="the database takes writes")

    def _check_scheduler(self, pulse: Pulse) -> Check:
        age = pulse.seconds_since_pass
        if not pulse.running or age is None:
            detail = "the scheduler is not running: it is starting or stopping"
            return Check(name="scheduler", healthy=False, detail=detail)
        healthy = age <= self._options.pass_age_max.total_seconds()
        return Check(
            name="scheduler", healthy=healthy, detail=f"the last good pass was {age:.1f} s ago"
        )

    def _check_lag(self, pulse: Pulse) -> Check:
        healthy = pulse.lag <= self._options.lag_max
        detail = f"the earliest due run waits since {pulse.lag.total_seconds():.1f} s"
        if pulse.lag <= timedelta(0):
            detail = "nothing due waits"
        return Check(name="lag", healthy=healthy, detail=detail)
