"""Endpoints on executions, the entries of the ledger."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.deps import Services, ServicesDep
from app.api.errors import problems
from app.api.paging import link_next, refusing_query
from app.api.v1.jobs import JobIdPath
from app.domain.ids import ExecutionId
from app.schemas.execution_answer import (
    CancelAnswer,
    ExecutionDetailAnswer,
    ExecutionPage,
    JobExecutionPage,
    to_cancelled,
    to_execution,
    to_execution_detail,
)
from app.schemas.history_request import (
    ExecutionsRequest,
    HistoryRequest,
    RecentRequest,
    write_position,
)

router = APIRouter(tags=["executions"])

ExecutionIdPath = Annotated[str, Path(max_length=64, examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])]


@router.get("/executions", responses=problems(404, 422), summary="Executions")
async def list_executions(
    asked: Annotated[ExecutionsRequest, Query()],
    services: ServicesDep,
    request: Request,
    response: Response,
) -> ExecutionPage:
    """Read the executions of all jobs or of one, newest first, by any filters.

    With `from` or `to` and no job, newest is latest due. A page examines 20,000 executions at most:
    it may hold fewer than `limit`, even none, and still have a `next_cursor`.
    """
    fields = await _page(asked, asked.job_id, services)
    link_next(request, response, fields["next_cursor"])
    return ExecutionPage(**fields)


@router.get("/jobs/executions/recent", responses=problems(422), summary="Recent executions")
async def recent_executions(
    asked: Annotated[RecentRequest, Query()],
    services: ServicesDep,
    request: Request,
    response: Response,
) -> ExecutionPage:
    """Read the newest executions of all jobs, by any filters; pages as in `GET /executions`."""
    fields = await _page(asked, None, services)
    link_next(request, response, fields["next_cursor"])
    return ExecutionPage(**fields)


@router.get("/jobs/{job_id}/executions", responses=problems(404, 422), summary="A job's executions")
async def job_executions(
    job_id: JobIdPath,
    asked: Annotated[HistoryRequest, Query()],
    services: ServicesDep,
    request: Request,
    response: Response,
) -> JobExecutionPage:
    """Read a job's executions, newest first, by any filters. A deleted job's stay readable.

    A page examines 20,000 executions at most: it may hold fewer than `limit`, even none, and still
    have a `next_cursor`.
    """
    fields = await _page(asked, job_id, services)
    link_next(request, response, fields["next_cursor"])
    return JobExecutionPage(job_id=job_id, **fields)


@router.get("/executions/{execution_id}", responses=problems(404, 422), summary="Read an execution")
async def read_execution(
    execution_id: ExecutionIdPath, services: ServicesDep
) -> ExecutionDetailAnswer:
    """Read one execution with all its attempts."""
    detail = await services.executions.get(ExecutionId(execution_id))
    zone = detail.zone or services.defaults.zone
    return to_execution_detail(detail.execution, detail.attempts, zone)


@router.post(
    "/executions/{execution_id}/cancel",
    responses=problems(404, 409, 422),
    summary="Cancel an execution",
)
async def cancel_execution(execution_id: ExecutionIdPath, services: ServicesDep) -> CancelAnswer:
    """Cancel an execution: no further attempt of it starts. Cancelling twice is fine.

    One that waits is cancelled at once. Of one that runs, the connection is closed; the target may
    have received the request all the same. The answer waits up to 2 seconds for its end to be
    recorded; then `status` is `running`, and `detail` says so. One that has ended otherwise is 409.
    """
    cancelled = await services.cancellations.cancel(ExecutionId(execution_id))
    return to_cancelled(cancelled)


async def _page(asked: HistoryRequest, job_id: str | None, services: Services) -> dict[str, Any]:
    zone = services.defaults.zone
    with refusing_query():
        wanted = asked.to_filter(job_id, zone)
        before = asked.position(wanted)
    page = await services.executions.history(wanted, limit=asked.limit, before=before)
    return {
        "executions": [
            to_execution(execution, page.zones.get(execution.job_id, zone))
            for execution in page.executions
        ],
        "count": len(page.executions),
        "total": page.total.exact,
        "total_at_least": page.total.at_least,
        "next_cursor": write_position(page.next_position, wanted),
    }
