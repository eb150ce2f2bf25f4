"""Endpoints on executions, the entries of the ledger."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from app.api.deps import ServicesDep
from app.api.errors import problems
from app.api.v1.jobs import JobIdPath
from app.domain.ids import ExecutionId, JobId
from app.schemas.execution_answer import (
    ExecutionDetailAnswer,
    ExecutionPage,
    JobExecutionPage,
    to_execution,
    to_execution_detail,
)
from app.services.execution_service import HistoryPage

router = APIRouter(tags=["executions"])

Limit = Annotated[int, Query(ge=1, le=1000, description="How many executions to answer.")]
Cursor = Annotated[
    int | None,
    Query(ge=1, le=2**63 - 1, description="`next_cursor` of the page before."),
]


@router.get("/jobs/executions/recent", responses=problems(422), summary="Recent executions")
async def recent_executions(
    services: ServicesDep, limit: Limit = 100, cursor: Cursor = None
) -> ExecutionPage:
    """Read the newest executions of all jobs."""
    page = await services.executions.recent(limit=limit, before=cursor)
    return ExecutionPage(**_fields(page, services.defaults.zone))


@router.get("/jobs/{job_id}/executions", responses=problems(404, 422), summary="A job's executions")
async def job_executions(
    job_id: JobIdPath, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> JobExecutionPage:
    """Read a job's executions, newest first. A deleted job's stay readable."""
    page = await services.executions.of_job(JobId(job_id), limit=limit, before=cursor)
    return JobExecutionPage(job_id=job_id, **_fields(page, services.defaults.zone))


@router.get("/executions/{execution_id}", responses=problems(404, 422), summary="Read an execution")
async def read_execution(
    execution_id: Annotated[str, Path(max_length=64, examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])],
    services: ServicesDep,
) -> ExecutionDetailAnswer:
    """Read one execution with all its attempts."""
    detail = await services.executions.get(ExecutionId(execution_id))
    zone = detail.zone or services.defaults.zone
    return to_execution_detail(detail.execution, detail.attempts, zone)


def _fields(page: HistoryPage, default_zone: str) -> dict[str, Any]:
    return {
        "executions": [
            to_execution(execution, page.zones.get(execution.job_id, default_zone))
            for execution in page.executions
        ],
        "count": len(page.executions),
        "next_cursor": None if page.next_before is None else str(page.next_before),
    }
