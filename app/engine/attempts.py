"""One attempt, from claimed run to ending: call the runner, guard against it, conclude.

The boundary where anything a runner raises becomes an outcome. A claim that grew so old before the
send (the process was suspended) that its lease could end before its deadline, or before it can be
renewed, is given back unsent.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from app.domain.clock import Clock
from app.domain.execution import AttemptOutcome, ClaimedRun, Outcome, Reason
from app.engine.ports import Runner
from app.engine.retries import conclude
from app.repositories.run_repository import Ending

log = structlog.get_logger(__name__)

_WHO_STOPS: dict[Reason | None, str] = {
    Reason.USER: "A user cancelled the execution",
    Reason.OVERLAP: "The job's next run took its place",
}


_OVERRUN = Outcome(
    kind=AttemptOutcome.TIMEOUT,
    reason=Reason.TIMEOUT,
    error="The attempt did not end at its deadline and was cut off",
)


@dataclass(slots=True)
class Stop:
    """Why an attempt's task was cancelled: on purpose, or (None) because the service stops.

    ``overran``: it had not ended at its deadline, which a runner keeps by itself.
    """

    reason: Reason | None = None
    overran: bool = False


class Attempts:
    """Makes attempts with a runner and says how they ended."""

    def __init__(
        self, *, runner: Runner, clock: Clock, owner: str, lease_margin: timedelta
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._owner = owner
        self._lease_margin = lease_margin
        self._chance = random.Random()  # noqa: S311 - spreads retries, guards nothing

    async def make(self, run: ClaimedRun, stop: Stop, released: Callable[[], None]) -> Ending:
        """Make the attempt; ``released`` is called when the target is done with.

        Never raises. A cancelled task's attempt ends as interrupted; its execution goes on later,
        unless ``stop`` says why it ends with it.
        """
        try:
            outcome = await self._run(run, stop)
        finally:
            released()
        return self._conclude(run, outcome)

    def unsent(self, run: ClaimedRun, reason: Reason | None) -> Ending:
        """Give back a claimed run whose attempt never began; ``reason`` as in ``Stop``."""
        return self._conclude(run, _ended_early(reason, sent=False))

    async def _run(self, run: ClaimedRun, stop: Stop) -> Outcome:
        attempt = run.attempt
        if self._clock.now() - attempt.started_at >= self._lease_margin:
            # What is left of its lease could be shorter than what it covers of the attempt.
            return _interrupted(
                Reason.SHUTDOWN, "The service was suspended before the send", sent=False
            )
        try:
            return await self._runner.run(attempt)
        except asyncio.CancelledError:
            return _OVERRUN if stop.overran else _ended_early(stop.reason, sent=True)
        except Exception:
            log.exception(
                "attempt.broke",
                job_id=attempt.job_id,
                execution_id=attempt.execution_id,
                attempt=attempt.number,
            )
            return Outcome(
                kind=AttemptOutcome.PROTOCOL_ERROR,
                reason=Reason.PROTOCOL,
                error="The attempt failed inside the scheduler; its log has the details",
            )

    def _conclude(self, run: ClaimedRun, outcome: Outcome) -> Ending:
        now, began = self._clock.now(), run.attempt.started_at
        ending = conclude(run, outcome, owner=self._owner, ended_at=now, chance=self._chance)
        # A clock that is set back meanwhile must not let an attempt end before it began.
        return replace(ending, ended_at=began) if now < began else ending


def _ended_early(reason: Reason | None, *, sent: bool) -> Outcome:
    """Describe an attempt whose task was cancelled."""
    moment = "the target had answered" if sent else "the request was sent"
    who = _WHO_STOPS.get(reason, "The service stopped")
    return _interrupted(reason or Reason.SHUTDOWN, f"{who} before {moment}", sent=sent)


def _interrupted(reason: Reason, why: str, *, sent: bool) -> Outcome:
    """Describe an attempt that this process gave up; no retry is spent on it."""
    return Outcome(kind=AttemptOutcome.INTERRUPTED, reason=reason, error=why, sent=sent)
