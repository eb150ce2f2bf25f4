"""Use cases that list jobs: all of them, or a page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.job import Job, JobPosition, JobState
from app.repositories import job_list_repository, job_repository

T = TypeVar("T")

# Larger totals are not counted out.
TOTAL_MAX = job_list_repository.COUNTED_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Jobs in the order of the list; a ``total`` above ``TOTAL_MAX`` means: more than that."""

    jobs: list[Job]
    next_position: JobPosition | None
    total: int


class JobListService:
    """Lists jobs, soonest first; those without a next run time last, by id."""

    def __init__(self, unit_of_work: UnitOfWork) -> None:
        self._unit_of_work = unit_of_work

    async def show_all(self, show: Callable[[list[Job]], T]) -> list[T]:
        """Read all jobs in one snapshot and ``show`` them, some at a time.

        However many there are, other work goes on meanwhile, and only what ``show`` makes is kept.
        """
        return await self._unit_of_work.read(
            lambda connection: [show(jobs) for jobs in job_list_repository.read_by_page(connection)]
        )

    async def page(
        self,
        *,
        limit: int,
        states: frozenset[JobState] = frozenset(),
        after: JobPosition | None = None,
    ) -> JobPage:
        """Read a page of the jobs in these states (none named: in all).

        A job that moves in the list while it is paged through may be on two pages or on none.
        """

        def read(connection: ReadConnection) -> JobPage:
            wanted = states or job_list_repository.LISTED_STATES
            found = job_list_repository.read_jobs(
                connection, limit=limit, states=wanted, after=after
            )
            total = job_list_repository.count_listed(connection, wanted)
            return JobPage(jobs=found.jobs, next_position=found.next_position, total=total)

        return await self._unit_of_work.read(read)

    async def count(self) -> int:
        """Count all jobs."""
        return await self._unit_of_work.read(job_repository.count_jobs)
