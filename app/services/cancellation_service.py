"""The use case of cancelling one execution.

What waits is cancelled in one transaction. Of what runs, the row first says that no attempt may
follow, then the attempt is ended; its recorder writes the end, for which the answer waits a little.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock, to_us
from app.domain.errors import ExecutionNotFoundError, ExecutionOverError
from app.domain.events import Event, ExecutionEnded
from app.domain.execution import FINAL_STATUSES, ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.repositories import execution_repository
from app.repositories.execution_repository import CancelledRun

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationOptions:
    """How long an answer waits."""

    # Until the end of a running attempt is recorded; usually that takes milliseconds.
    wait: timedelta = timedelta(seconds=2)
    # Of an end that another process records there is no event here: its row is looked at.
    look_every: timedelta = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """A cancelled execution; ``recorded`` is False while its attempt is still being ended."""

    execution_id: ExecutionId
    job_id: JobId
    recorded: bool


class CancellationService:
    """Cancels executions.

    ``stop`` ends an attempt that is under way in this process. ``on_event`` must be subscribed.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        stop: Callable[[ExecutionId, Reason], None],
        options: CancellationOptions,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._stop = stop
        self._options = options
        self._waiting: dict[ExecutionId, set[asyncio.Future[ExecutionStatus]]] = {}

    def on_event(self, event: Event) -> None:
        """Tell whoever waits for an execution that it ended."""
        if isinstance(event, ExecutionEnded) and event.status in FINAL_STATUSES:
            for waiting in self._waiting.get(event.execution_id, ()):
                if not waiting.done():
                    waiting.set_result(event.status)

    async def cancel(self, execution_id: ExecutionId) -> Cancellation:
        """Cancel an execution; when this returns, no further attempt of it starts.

        Cancelling again what this has cancelled is fine. Raises ``ExecutionNotFoundError``, and
        ``ExecutionOverError`` for one that ended otherwise, be it at the last moment.
        """
        now_us = to_us(self._clock.now())
        with self._listen(execution_id) as ended:
            found = await self._unit_of_work.write(
                lambda connection: execution_repository.cancel_one(
                    connection, execution_id, reason=Reason.USER, now_us=now_us
                )
            )
            if found is None:
                raise ExecutionNotFoundError(execution_id)
            status = found.status
            if status is ExecutionStatus.RUNNING:
                self._stop(execution_id, Reason.USER)
                status = await self._wait_for(execution_id, ended)
        return _judge(execution_id, found, status)

    @contextlib.contextmanager
    def _listen(self, execution_id: ExecutionId) -> Iterator[asyncio.Future[ExecutionStatus]]:
        """Give a future that an execution's end resolves, as long as the block lasts."""
        ended: asyncio.Future[ExecutionStatus] = asyncio.get_running_loop().create_future()
        listeners = self._waiting.setdefault(execution_id, set())
        listeners.add(ended)
        try:
            yield ended
        finally:
            listeners.discard(ended)
            if not listeners:
                self._waiting.pop(execution_id, None)

    async def _wait_for(
        self, execution_id: ExecutionId, ended: asyncio.Future[ExecutionStatus]
    ) -> ExecutionStatus:
        """Wait for an end, wherever it is recorded; ``running`` if it does not come in time."""
        last_look = self._clock.monotonic() + self._options.wait.total_seconds()
        while self._clock.monotonic() < last_look:
            pause = self._options.look_every.total_seconds()
            done, _ = await asyncio.wait({ended}, timeout=pause)
            if done:
                return ended.result()
            found = await self._unit_of_work.read(
                lambda connection: execution_repository.find_execution(connection, execution_id)
            )
            if found is not None and found.status in FINAL_STATUSES:
                return found.status
        return ExecutionStatus.RUNNING


def _judge(execution_id: ExecutionId, found: CancelledRun, status: ExecutionStatus) -> Cancellation:
    """Tell what came of it: ``found`` is what the transaction saw, ``status`` what is known now."""
    was_other = found.status is ExecutionStatus.CANCELLED and found.reason is not Reason.USER
    if was_other or status not in {ExecutionStatus.CANCELLED, ExecutionStatus.RUNNING}:
        raise ExecutionOverError(execution_id, status)
    recorded = status is ExecutionStatus.CANCELLED
    log.info(
        "execution.cancelled", execution_id=execution_id, job_id=found.job_id, recorded=recorded
    )
    return Cancellation(execution_id=execution_id, job_id=found.job_id, recorded=recorded)
