"""Writes what attempts came to, many in one transaction, then tells the news.

An ending is written at once when nothing else is being written, and together with all that arrived
meanwhile otherwise. A write that fails is repeated until it succeeds: losing an outcome would cost
a duplicate. At most as many endings wait here as attempts may run at once, because the next claim
needs the same database.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import structlog

from app.db.unit_of_work import UnitOfWork
from app.domain.errors import StorageUnansweredError, UnavailableError
from app.domain.events import ExecutionEnded
from app.domain.execution import ClaimedRun
from app.engine.course import Course
from app.engine.publisher import Publisher
from app.repositories import doubt_repository, run_repository
from app.repositories.run_repository import Ending

log = structlog.get_logger(__name__)

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(slots=True)
class Ended:
    """A claimed run and what became of it."""

    run: ClaimedRun
    ending: Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderOptions:
    """How failed writes are repeated."""

    # Wait before a failed write is repeated, doubling from the first to the second.
    retry_first: timedelta = timedelta(milliseconds=100)
    retry_max: timedelta = timedelta(seconds=5)


class Recorder:
    """Takes endings with ``put``; ``run`` writes them.

    ``on_recorded`` hears of every ending once it is settled: of what was written (which may differ
    from what the attempt wanted), or None when the run was no longer this process's. ``course``
    tells how the loop fares.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        publisher: Publisher,
        options: RecorderOptions,
        on_recorded: Callable[[ClaimedRun, Ending | None], None],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._publisher = publisher
        self._options = options
        self._on_recorded = on_recorded
        self.course = Course()
        self._pending: list[Ended] = []
        self._writing: list[Ended] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, run: ClaimedRun, ending: Ending) -> None:
        """Accept an ending."""
        self._pending.append(Ended(run, ending))
        self._idle.clear()
        self._news.set()

    def move_back(self, step: timedelta) -> None:
        """Let retries that are not recorded yet wait no longer although the clock was set back."""
        for ended in (*self._pending, *self._writing):
            if ended.ending.next_attempt_at is not None:
                later = ended.ending.next_attempt_at - step
                ended.ending = replace(ended.ending, next_attempt_at=later)

    async def drained(self) -> None:
        """Wait until everything accepted is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write endings as they come, until cancelled."""
        while True:
            await self._news.wait()
            self._writing, self._pending = self._pending, []
            try:
                written = await self._write()
            except BaseException:
                self._pending[:0] = self._writing
                raise
            finally:
                batch, self._writing = self._writing, []
            self.course.go_on()
            self._tell(batch, written)
            if not self._pending:
                self._news.clear()
                self._idle.set()

    async def _write(self) -> list[Ending]:
        wait, record = self._options.retry_first, run_repository.record_endings
        while True:
            endings = [ended.ending for ended in self._writing]
            try:
                return await self._unit_of_work.write(partial(record, endings=endings))
            except UnavailableError as error:
                self.course.fail(str(error))
                log.warning("outcomes.postponed", count=len(endings), why=str(error))
                if isinstance(error, StorageUnansweredError):
                    record = doubt_repository.record_again
            await asyncio.sleep(wait.total_seconds())
            wait = min(wait * 2, self._options.retry_max)

    def _tell(self, batch: Sequence[Ended], written: Sequence[Ending]) -> None:
        """Tell the news of each; a failure of one takes nobody else's slot with it."""
        by_id = {ending.execution_id: ending for ending in written}
        events: list[ExecutionEnded] = []
        for ended in batch:
            ending = by_id.get(ended.ending.execution_id)
            try:
                self._on_recorded(ended.run, ending)
                if ending is not None:
                    events.append(_event(ended.run, ending))
            except Exception:
                log.exception("outcome.not_told", execution_id=ended.ending.execution_id)
            if ending is None:
                _tell_dropped(ended)
        self._publisher.publish(*events)


def _tell_dropped(ended: Ended) -> None:
    log.warning(
        "outcome.dropped",
        job_id=ended.run.attempt.job_id,
        execution_id=ended.ending.execution_id,
        attempt=ended.ending.number,
        why="the execution was no longer owned by this process",
    )


def _event(run: ClaimedRun, ending: Ending) -> ExecutionEnded:
    lateness = run.first_started_at - run.attempt.scheduled_for
    duration = ending.ended_at - run.first_started_at
    return ExecutionEnded(
        execution_id=ending.execution_id,
        job_id=run.attempt.job_id,
        status=ending.status,
        reason=ending.reason,
        http_status=ending.outcome.http_status,
        attempts=ending.number,
        lateness_ms=lateness // _MILLISECOND,
        duration_ms=duration // _MILLISECOND,
        error=ending.outcome.error,
        replica=ending.owner,
    )
