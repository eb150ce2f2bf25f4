"""Use cases on the ledger: reading history."""

from dataclasses import dataclass

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.errors import ExecutionNotFoundError, JobNotFoundError
from app.domain.execution import AttemptRecord, Execution
from app.domain.ids import ExecutionId, JobId
from app.repositories import execution_repository, job_repository


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Executions, newest first; ``next_before`` continues below the last one, if there is more.

    ``zones`` tells each job's zone, in which its times are shown.
    """

    executions: list[Execution]
    zones: dict[JobId, str]
    next_before: int | None


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

    async def of_job(self, job_id: JobId, *, limit: int, before: int | None = None) -> HistoryPage:
        """Read a job's history; a deleted job's stays readable.

        Raises ``JobNotFoundError`` for an id that has neither job nor history.
        """

        def read(connection: ReadConnection) -> HistoryPage:
            found = execution_repository.job_history(
                connection, job_id, limit=limit + 1, before=before
            )
            if not found and not _is_known(connection, job_id):
                raise JobNotFoundError(job_id)
            return _page(connection, found, limit)

        return await self._unit_of_work.read(read)

    async def recent(self, *, limit: int, before: int | None = None) -> HistoryPage:
        """Read all jobs' history."""

        def read(connection: ReadConnection) -> HistoryPage:
            found = execution_repository.recent_history(connection, limit=limit + 1, before=before)
            return _page(connection, found, limit)

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


def _page(connection: ReadConnection, found: list[Execution], limit: int) -> HistoryPage:
    """Cut a page; one row more than asked was read to know whether there is a next."""
    shown = found[:limit]
    job_ids = sorted({execution.job_id for execution in shown})
    return HistoryPage(
        executions=shown,
        zones=job_repository.zones_of(connection, job_ids),
        next_before=shown[-1].sequence if len(found) > limit else None,
    )
