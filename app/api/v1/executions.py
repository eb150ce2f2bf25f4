"""Endpoints on executions, the entries of the ledger."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.deps import Services, ServicesDep, services_of
from app.api.errors import problems
from app.api.paging import link_next, refusing_query
from app.api.short_way import json_answer, read_plain_page, take_short_way
from app.api.strict_json import StrictJsonRequest
from app.api.v1 import PREFIX
from app.api.v1.jobs import JobIdPath, plain_job_id
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

router = APIRouter(prefix=PREFIX, tags=["executions"])

ExecutionIdPath = Annotated[str, Path(max_length=64, examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])]


@router.get(
    "/executions",
    response_model=ExecutionPage,
    responses=problems(404, 422),
    summary="Executions",
)
async def list_executions(
    asked: Annotated[ExecutionsRequest, Query()], services: ServicesDep, request: Request
) -> Response:
    """Read the executions of all jobs or of one, newest first, by any filters.

    With `from` or `to` and no job, newest is latest due. A page examines 20,000 executions at most:
    it may hold fewer than `limit`, even none, and still have a `next_cursor`.
    """
    fields = await _page(asked, asked.job_id, services)
    return _answer(ExecutionPage(**fields), request)


@router.get(
    "/jobs/executions/recent",
    response_model=ExecutionPage,
    responses=problems(422),
    summary="Recent executions",
)
async def recent_executions(
    asked: Annotated[RecentRequest, Query()], services: ServicesDep, request: Request
) -> Response:
    """Read the newest executions of all jobs, by any filters; pages as in `GET /executions`."""
    fields = await _page(asked, None, services)
    return _answer(ExecutionPage(**fields), request)


@router.get(
    "/jobs/{job_id}/executions",
    response_model=JobExecutionPage,
    responses=problems(404, 422),
    summary="A job's executions",
)
async def job_executions(
    job_id: JobIdPath,
    asked: Annotated[HistoryRequest, Query()],
    services: ServicesDep,
    request: Request,
) -> Response:
    """Read a job's executions, newest first, by any filters. A deleted job's stay readable.

    A page examines 20,000 executions at most: it may hold fewer than `limit`, even none, and still
    have a `next_cursor`.
    """
    fields = await _page(asked, job_id, services)
    return _answer(JobExecutionPage(job_id=job_id, **fields), request)


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


async def _recent_plainly(request: StrictJsonRequest) -> Response | None:
    asked = read_plain_page(request, RecentRequest)
    return None if asked is None else await recent_executions(asked, services_of(request), request)


async def _of_job_plainly(request: StrictJsonRequest) -> Response | None:
    job_id, asked = plain_job_id(request), read_plain_page(request, HistoryRequest)
    if job_id is None or asked is None:
        return None
    return await job_executions(job_id, asked, services_of(request), request)


take_short_way(router, recent_executions, _recent_plainly)
take_short_way(router, job_executions, _of_job_plainly)


def _answer(page: ExecutionPage, request: Request) -> Response:
    response = json_answer(page)
    link_next(request, response, page.next_cursor)
    return response


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
