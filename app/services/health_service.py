"""Is the service fit for work? Asked by probes, answered from facts."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import UnavailableError
from app.domain.tenure import Tenure
from app.engine.auditor import Proof
from app.engine.tasks import FailingLoop
from app.repositories import leadership_repository


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """When a check fails."""

    # The scheduler makes a pass every second; five missed ones are an outage.
    pass_age_max: timedelta = timedelta(seconds=5)
    # Jobs that wait so long for a tick mean that the ledger does not keep up.
    lag_max: timedelta = timedelta(seconds=10)
    # A loop that raises is started again after one second; what failed once is well by then.
    failing_max: timedelta = timedelta(seconds=3)
    # Runs that may start are looked at within a second, and claimed in milliseconds.
    held_up_max: timedelta = timedelta(seconds=4)
    # A leader gives a sign of life every ten seconds, and is replaced within fifteen.
    beat_age_max: timedelta = timedelta(seconds=30)
    # A write and a look take milliseconds; a database that needs longer than this is away.
    answer_within: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One named fact: whether it is well, and a sentence.

    One that is not ``required`` is told and leaves the service ready.
    """

    name: str
    healthy: bool
    detail: str
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What the pipeline says of itself.

    ``ticks``: this process makes the passes; ``alone``: no other could instead.
    ``seconds_since_pass`` is None before the first pass; ``lag`` is how late the earliest
    unaccounted due instant is (zero if none is); ``held_up`` for how long runs that may start wait
    for the claim; ``failing`` names the loops that fail.
    """

    running: bool
    ticks: bool
    alone: bool
    seconds_since_pass: float | None
    lag: timedelta
    held_up: timedelta = timedelta(0)
    failing: Sequence[FailingLoop] = ()


class ProofSource(Protocol):
    """What proves the ledger in the background."""

    @property
    def is_watching(self) -> bool:
        """Tell whether it is to prove anything."""
        ...

    @property
    def proof(self) -> Proof | None:
        """Tell the latest proof; None before the first."""
        ...


class HealthService:
    """Answers readiness."""

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        pulse: Callable[[], Pulse],
        tenure: Callable[[], Tenure],
        options: HealthOptions,
        auditor: ProofSource,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._pulse = pulse
        self._tenure = tenure
        self._options = options
        self._auditor = auditor

    @property
    def is_leading(self) -> bool:
        """Tell whether this process makes the scheduler's passes."""
        return self._pulse().ticks

    @property
    def tenure(self) -> Tenure:
        """Tell how often the lead came to this process since its start, and went."""
        return self._tenure()

    async def check(self) -> list[Check]:
        """Check the database (by writing), the scheduler's passes, their lag, and the ledger.

        The checks ``loops`` and ``dispatch`` tell of stations that fail or stand still, whatever
        their reason; ``upkeep`` of those that runs do not need, which is not required.

        Among replicas the check ``leader`` names the one that ticks, since when and in which term.

        The ledger's check tells the latest proof of the background. It is not required: an old
        hole in the ledger is no reason to take the service away. Answers within twice
        ``answer_within``, whatever the database does.
        """
        pulse = self._pulse()
        database = await self._check_database()
        if not pulse.ticks and not pulse.alone and pulse.running:
            found = await self._check_leader(database)
            return [database, *found, *self._check_stations(pulse)]
        scheduler, lag = self._check_scheduler(pulse), self._check_lag(pulse)
        checks = [database, scheduler, lag, self._check_ledger(), *self._check_stations(pulse)]
        if not pulse.alone:
            checks += (await self._check_leader(database))[1:]
        return checks

    async def _check_database(self) -> Check:
        now = self._clock.now()
        try:
            async with asyncio.timeout(self._options.answer_within.total_seconds()):
                await self._unit_of_work.write(
                    lambda connection: leadership_repository.prove_writable(connection, now=now)
                )
        except TimeoutError:
            seconds = self._options.answer_within.total_seconds()
            detail = f"the database did not take a write within {seconds:g} s"
            return Check(name="database", healthy=False, detail=detail)
        except UnavailableError as error:
            return Check(name="database", healthy=False, detail=str(error))
        return Check(name="database", healthy=True, detail="the database takes writes")

    async def _check_leader(self, database: Check) -> list[Check]:
        """Tell how the replica that ticks is, for one that does not; and which one it is."""
        if not database.healthy:
            return _leader_unknown()
        try:
            async with asyncio.timeout(self._options.answer_within.total_seconds()):
                found = await self._unit_of_work.read(leadership_repository.read_leadership)
        except (TimeoutError, UnavailableError):
            return _leader_unknown()
        if found is None:
            detail = "standing by: no replica has led yet"
            return [Check(name="scheduler", healthy=False, detail=detail, required=False)]
        age = max(self._clock.now() - found.beat, timedelta(0))
        healthy = age <= self._options.beat_age_max
        detail = (
            f"standing by: the replica that leads was last heard {age.total_seconds():.0f} s ago"
        )
        since = found.since.isoformat(timespec="seconds")
        leader = f"{found.holder} leads since {since}, in term {found.term}"
        return [
            Check(name="scheduler", healthy=healthy, detail=detail, required=False),
            Check(name="leader", healthy=healthy, detail=leader, required=False),
        ]

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

    def _check_stations(self, pulse: Pulse) -> list[Check]:
        needed = [loop for loop in pulse.failing if loop.required]
        others = [loop for loop in pulse.failing if not loop.required]
        held_up = pulse.held_up <= self._options.held_up_max
        waited = f"runs that may start wait since {pulse.held_up.total_seconds():.1f} s"
        dispatch = "what may start is started" if held_up else waited
        return [
            Check(name="loops", healthy=self._go_on(needed), detail=_describe_loops(needed)),
            Check(name="dispatch", healthy=held_up, detail=dispatch),
            Check(
                name="upkeep",
                healthy=self._go_on(others),
                detail=_describe_loops(others),
                required=False,
            ),
        ]

    def _go_on(self, failing: Sequence[FailingLoop]) -> bool:
        most = self._options.failing_max.total_seconds()
        return all(loop.seconds <= most for loop in failing)

    def _check_ledger(self) -> Check:
        proof = self._auditor.proof
        if not self._auditor.is_watching:
            detail = "not proven in the background: MYSCHEDULER_VERIFY_EVERY_SECONDS is 0"
            return Check(name="ledger", healthy=True, detail=detail, required=False)
        if proof is None:
            detail = "not proven yet since the start"
            return Check(name="ledger", healthy=True, detail=detail, required=False)
        age = (self._clock.now() - proof.made_at).total_seconds()
        detail = f"{_describe(proof)} (checked {max(age, 0):.0f} s ago)"
        return Check(name="ledger", healthy=proof.holds, detail=detail, required=False)


def _leader_unknown() -> list[Check]:
    detail = "standing by: without the database the replica that leads cannot be heard of"
    return [Check(name="scheduler", healthy=False, detail=detail, required=False)]


def _describe_loops(failing: Sequence[FailingLoop]) -> str:
    if not failing:
        return "every loop goes on"
    return "; ".join(
        f"{loop.name} fails since {loop.seconds:.1f} s: {loop.why}" for loop in failing
    )


def _describe(proof: Proof) -> str:
    since = proof.since.isoformat(timespec="seconds")
    if proof.holds:
        return f"every due instant since {since} has its row"
    tally, overdue = proof.audit.tally, proof.audit.overdue_count
    problems = [
        f"{tally.unaccounted_count} due instants have no row" if tally.unaccounted_count else "",
        f"{tally.duplicates_count} instants have a row too many" if tally.duplicates_count else "",
        f"{overdue} due instants are overdue" if overdue and tally.is_clean else "",
    ]
    named = "; ".join(filter(None, problems))
    return f"since {since} {named}; GET /api/v1/ledger/verify lists them"
