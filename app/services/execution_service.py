"""Use cases on the ledger: reading history."""

from dataclasses import dataclass

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.errors import ExecutionNotFoundError, JobNotFoundError
from app.domain.execution import AttemptRecord, Execution, ExecutionStatus
from app.domain.history import HistoryCount, HistoryFilter, HistorySlice, Position
from app.domain.ids import ExecutionId, JobId
from app.repositories import (
    execution_repository,
    history_repository,
    job_repository,
    totals_repository,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Executions, newest first; ``next_position`` continues where the page ended.

    ``zones`` tells each job's zone, in which its times are shown.
    """

    executions: list[Execution]
    zones: dict[JobId, str]
    next_position: Position | None
    total: HistoryCount


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHistory:
    """A job's newest executions, and how many instants of it came to each end, ever."""

    page: HistoryPage
    totals: dict[ExecutionStatus, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionDetail:
    """One execution with all its attempts."""

    execution: Execution
    attempts: list[AttemptRecord]
    zone: str | None


class ExecutionService:
    """Reads executions."""

    def __init__(self, unit_of_work: UnitOfWork) -> None:
        self._unit_of_work = unit_of_work

    async def history(
        self, wanted: HistoryFilter, *, limit: int, before: Position | None = None
    ) -> HistoryPage:
        """Read a page of what a filter lets through, of one job or of all.

        A page may end before it is full, or empty, and still have a next one. Of one job, also a
        deleted one, ``total`` is exact unless the range in time is bounded. Raises
        ``JobNotFoundError`` for a job that has neither definition nor history.
        """

        def read(connection: ReadConnection) -> HistoryPage:
            job_id = wanted.job_id
            found = history_repository.read_history(connection, wanted, limit=limit, before=before)
            if not found.executions and job_id is not None and not _is_known(connection, job_id):
                raise JobNotFoundError(job_id)
            total = _total(connection, wanted, found, is_first=before is None)
            return _page(connection, found, total)

        return await self._unit_of_work.read(read)

    async def of_job(self, job_id: JobId, *, limit: int) -> JobHistory:
        """Read a job's newest executions and its totals."""

        def read(connection: ReadConnection) -> JobHistory:
            wanted = HistoryFilter(job_id=job_id)
            found = history_repository.read_history(connection, wanted, limit=limit)
            total = HistoryCount(exact=totals_repository.count_kept(connection, wanted))
            return JobHistory(
                page=_page(connection, found, total),
                totals=totals_repository.lifetime_instants(connection, job_id),
            )

        return await self._unit_of_work.read(read)

    async def get(self, execution_id: ExecutionId) -> ExecutionDetail:
        """Read one execution. Raises ``ExecutionNotFoundError``."""

        def read(connection: ReadConnection) -> ExecutionDetail | None:
            found = execution_repository.find_execution(connection, execution_id)
            if found is None:
                return None
            return ExecutionDetail(
                execution=found,
                attempts=execution_repository.list_attempts(connection, execution_id),
                zone=job_repository.zones_of(connection, [found.job_id]).get(found.job_id),
            )

        detail = await self._unit_of_work.read(read)
        if detail is None:
            raise ExecutionNotFoundError(execution_id)
        return detail


def _is_known(connection: ReadConnection, job_id: JobId) -> bool:
    present = job_repository.find_job(connection, job_id) is not None
    return present or execution_repository.has_history(connection, job_id)


def _total(
    connection: ReadConnection, wanted: HistoryFilter, found: HistorySlice, *, is_first: bool
) -> HistoryCount:
    """Count what matches from counters or an index; else tell what this page shows."""
    if wanted.job_id is not None and not wanted.has_range:
        return HistoryCount(exact=totals_repository.count_kept(connection, wanted))
    shown = len(found.executions)
    if is_first and found.next_position is None:
        return HistoryCount(exact=shown)
    counted = history_repository.count_history(connection, wanted)
    return HistoryCount(at_least=shown) if counted is None else counted


def _page(connection: ReadConnection, found: HistorySlice, total: HistoryCount) -> HistoryPage:
    job_ids = sorted({execution.job_id for execution in found.executions})
    return HistoryPage(
        executions=found.executions,
        zones=job_repository.zones_of(connection, job_ids),
        next_position=found.next_position,
        total=total,
    )
