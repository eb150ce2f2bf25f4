"""Endpoints on jobs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from app.api.deps import Services, ServicesDep, services_of
from app.api.errors import problems
from app.api.idempotency import IdempotencyKey, has_plain_key, request_key
from app.api.paging import link_next, refusing_query
from app.api.short_way import (
    json_answer,
    read_plain_body,
    read_plain_page,
    take_short_way,
)
from app.api.strict_json import StrictJsonRequest, StrictJsonRoute
from app.api.v1 import PREFIX
from app.domain.errors import JobNotFoundError
from app.domain.ids import JobId
from app.domain.job import Job, JobDefinition
from app.schemas.execution_answer import to_execution
from app.schemas.history_request import JobListRequest
from app.schemas.job_answer import (
    ActionAnswer,
    CreatedAnswer,
    JobDetail,
    JobInfo,
    JobList,
    TriggerAnswer,
    to_created,
    to_job_detail,
    to_job_info,
)
from app.schemas.job_mapping import keep_masked_headers, remark_times, to_definition
from app.schemas.job_request import JobRequest
from app.services.job_list_service import TOTAL_MAX
from app.services.job_service import NewJob

router = APIRouter(
    prefix=f"{PREFIX}/jobs",
    tags=["jobs"],
    route_class=StrictJsonRoute,
    strict_content_type=False,
)

JobIdPath = Annotated[
    str, Path(description="The job's id.", examples=["daily-report"], max_length=255)
]
_JOB_ID = TypeAdapter[str](JobIdPath)

# A page of the list, when only a filter or a cursor is given.
_PAGE_JOBS = 100
_INFOS = TypeAdapter(list[JobInfo])
# A job's page shows so many of its newest executions.
_DETAIL_EXECUTIONS = 50


@router.post("", responses=problems(400, 409, 413, 422), summary="Create or replace a job")
async def create_job(
    request: JobRequest, services: ServicesDep, http: Request, _key: IdempotencyKey = None
) -> CreatedAnswer:
    """Store a job and schedule it; when this is answered, it survives any crash.

    An unknown field is ignored and reported in `warnings`; so is how a local time was read that
    the zone's clock jumps over or shows twice.
    """
    job_id = request.id or services.jobs.new_id()
    definition = to_definition(request, job_id, services.defaults)
    if request.replace_existing:
        definition = keep_masked_headers(definition, await _stored(services, job_id))
    else:
        definition = keep_masked_headers(definition, None)
    new = NewJob(id=job_id, definition=definition, replace_existing=request.replace_existing)
    job = await services.jobs.create(new, actor=_actor(http), request_key=await request_key(http))
    warnings = [*request.unknown_fields(), *remark_times(request, definition.schedule)]
    return to_created(job, definition.schedule.timezone, warnings)


@router.get("", response_model=JobList, responses=problems(422), summary="List jobs")
async def list_jobs(
    asked: Annotated[JobListRequest, Query()], services: ServicesDep, http: Request
) -> Response:
    """List jobs, soonest first; those without a next run time come last, by id.

    All of them, unless `limit`, `cursor` or `status` asks for a page (of 100, if `limit` does not
    say). A job that moves in the list meanwhile may be on two pages or on none.
    """
    if not asked.wants_page:
        parts = await services.job_lists.show_all(_Part.of)
        total = sum(part.count for part in parts)
        return _join(parts, next_cursor=None, total=total, at_least=None)
    with refusing_query():
        after = asked.position()
    limit = asked.limit or _PAGE_JOBS
    page = await services.job_lists.page(limit=limit, states=asked.states(), after=after)
    is_counted = page.total <= TOTAL_MAX
    cursor = asked.write_position(page.next_position)
    response = _join(
        [_Part.of(page.jobs)],
        next_cursor=cursor,
        total=page.total if is_counted else None,
        at_least=None if is_counted else TOTAL_MAX,
    )
    link_next(http, response, cursor)
    return response


@router.get("/{job_id}", responses=problems(404, 422), summary="Read a job")
async def read_job(job_id: JobIdPath, services: ServicesDep) -> JobDetail:
    """Read a job in full, with its 50 newest executions."""
    job = await services.jobs.get(JobId(job_id))
    history = await services.executions.of_job(job.id, limit=_DETAIL_EXECUTIONS)
    zone = history.page.zones.get(job.id, services.defaults.zone)
    executions = [to_execution(execution, zone) for execution in history.page.executions]
    return to_job_detail(
        job, executions, totals=history.totals, default_zone=services.defaults.zone
    )


@router.delete("/{job_id}", responses=problems(404, 422), summary="Delete a job")
async def delete_job(job_id: JobIdPath, services: ServicesDep, http: Request) -> ActionAnswer:
    """Delete a job. No new attempt starts after this answer; its history stays readable."""
    job = await services.jobs.delete(JobId(job_id), actor=_actor(http))
    return ActionAnswer(job_id=job.id, status="deleted")


@router.post("/{job_id}/pause", responses=problems(404, 422), summary="Pause a job")
async def pause_job(job_id: JobIdPath, services: ServicesDep, http: Request) -> ActionAnswer:
    """Pause a job: waiting runs are cancelled, runs under way end. Pausing twice is fine."""
    job = await services.jobs.pause(JobId(job_id), actor=_actor(http))
    return ActionAnswer(job_id=job.id, status="paused")


@router.post("/{job_id}/resume", responses=problems(404, 422), summary="Resume a job")
async def resume_job(job_id: JobIdPath, services: ServicesDep, http: Request) -> ActionAnswer:
    """Resume a job at its next time from now; what passed in the pause is recorded as skipped."""
    job = await services.jobs.resume(JobId(job_id), actor=_actor(http))
    return ActionAnswer(job_id=job.id, status="resumed")


@router.post("/{job_id}/trigger", responses=problems(404, 409, 413, 422), summary="Run a job now")
async def trigger_job(
    job_id: JobIdPath, services: ServicesDep, http: Request, _key: IdempotencyKey = None
) -> TriggerAnswer:
    """Run a job once more, now. Its schedule and state stay as they are, paused ones included."""
    execution_id = await services.jobs.trigger(JobId(job_id), request_key=await request_key(http))
    return TriggerAnswer(job_id=job_id, status="triggered", execution_id=execution_id)


def plain_job_id(request: Request) -> str | None:
    """Read the id in a path that ``JobIdPath`` would let pass; None: it would not."""
    try:
        return _JOB_ID.validate_python(request.path_params["job_id"])
    except ValidationError:
        return None


async def _create_plainly(http: StrictJsonRequest) -> Response | None:
    if not has_plain_key(http) or (request := await read_plain_body(http, JobRequest)) is None:
        return None
    return json_answer(await create_job(request, services_of(http), http))


async def _list_plainly(http: StrictJsonRequest) -> Response | None:
    asked = read_plain_page(http, JobListRequest)
    return None if asked is None else await list_jobs(asked, services_of(http), http)


async def _read_plainly(http: StrictJsonRequest) -> Response | None:
    job_id = plain_job_id(http)
    return None if job_id is None else json_answer(await read_job(job_id, services_of(http)))


async def _trigger_plainly(http: StrictJsonRequest) -> Response | None:
    job_id = plain_job_id(http)
    if job_id is None or not has_plain_key(http):
        return None
    return json_answer(await trigger_job(job_id, services_of(http), http))


take_short_way(router, create_job, _create_plainly)
take_short_way(router, read_job, _read_plainly)
take_short_way(router, trigger_job, _trigger_plainly)
take_short_way(router, list_jobs, _list_plainly)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some jobs of a list, written as JSON without its brackets."""

    count: int
    text: bytes

    @classmethod
    def of(cls, jobs: list[Job]) -> Self:
        return cls(len(jobs), _INFOS.dump_json([to_job_info(job) for job in jobs])[1:-1])


def _join(
    parts: Sequence[_Part], *, next_cursor: str | None, total: int | None, at_least: int | None
) -> Response:
    rest = {"next_cursor": next_cursor, "total": total, "total_at_least": at_least}
    listed = b",".join(part.text for part in parts)
    content = b'{"jobs":[' + listed + b"]," + json.dumps(rest).encode()[1:]
    return Response(content, media_type="application/json")


async def _stored(services: Services, job_id: JobId) -> JobDefinition | None:
    try:
        return (await services.jobs.get(job_id)).definition
    except JobNotFoundError:
        return None


def _actor(http: Request) -> str | None:
    """Name who asks: the address, until there is authentication."""
    return None if http.client is None else http.client.host
