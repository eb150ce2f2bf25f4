"""Endpoints on schedules: what they mean and when they fire, before anything is stored."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import ServicesDep
from app.api.errors import problems
from app.api.strict_json import StrictJsonRoute
from app.api.v1 import PREFIX
from app.api.v1.jobs import JobIdPath
from app.domain.ids import JobId
from app.schemas.job_mapping import remark_times, to_instant, to_schedule
from app.schemas.schedule_answer import (
    JobNextAnswer,
    PreviewAnswer,
    SimulationAnswer,
    to_job_next,
    to_preview,
    to_simulation,
)
from app.schemas.schedule_request import PreviewRequest, SimulationRequest

router = APIRouter(
    prefix=PREFIX, tags=["schedules"], route_class=StrictJsonRoute, strict_content_type=False
)

Count = Annotated[int, Query(ge=1, le=1000, description="How many times to answer.")]


@router.post("/schedules/preview", responses=problems(400, 413, 422), summary="Preview a schedule")
async def preview_schedule(request: PreviewRequest, services: ServicesDep) -> PreviewAnswer:
    """Say a schedule in words and list its next times; nothing is stored.

    Each time says what the zone's clock did to it; times that the clock drops are listed apart.
    """
    schedule = to_schedule(request, default_zone=services.defaults.zone)
    begin = to_instant(request.from_, schedule.timezone, field="from")
    preview = await services.schedules.preview(schedule, begin=begin, count=request.count)
    warnings = [*request.unknown_fields(), *remark_times(request, schedule)]
    return to_preview(preview, warnings)


@router.post(
    "/schedules/simulate",
    responses=problems(400, 413, 422),
    summary="Simulate a schedule where clocks change",
)
async def simulate_schedule(request: SimulationRequest, services: ServicesDep) -> SimulationAnswer:
    """Tell what a schedule does at each transition of its zone; nothing is stored.

    At most ten years, and at most 100 local times for each transition; `walls_omitted` counts more.
    """
    schedule = to_schedule(request, default_zone=services.defaults.zone)
    begin = to_instant(request.from_, schedule.timezone, field="from")
    end = to_instant(request.until, schedule.timezone, field="until")
    assert begin is not None
    assert end is not None
    found = await services.schedules.simulate(schedule, begin=begin, end=end)
    warnings = [*request.unknown_fields(), *remark_times(request, schedule)]
    return to_simulation(schedule, found, begin=begin, end=end, warnings=warnings)


@router.get("/jobs/{job_id}/next", responses=problems(404, 409, 422), summary="A job's next times")
async def next_times(job_id: JobIdPath, services: ServicesDep, count: Count = 5) -> JobNextAnswer:
    """List the times at which a job's schedule fires from now on.

    Of a paused job: the times at which it would.
    """
    return to_job_next(await services.schedules.next_of_job(JobId(job_id), count=count))
