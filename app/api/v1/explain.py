"""The endpoint that explains why a job did, did not, will or will not run at a time."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import ServicesDep
from app.api.errors import problems
from app.api.v1 import PREFIX
from app.api.v1.jobs import JobIdPath
from app.domain.ids import JobId
from app.schemas.explain_answer import ExplainAnswer, to_explain
from app.schemas.explain_request import AskedText, read_asked

router = APIRouter(prefix=f"{PREFIX}/jobs", tags=["jobs"])


@router.get("/{job_id}/explain", responses=problems(404, 422), summary="Explain a run, or its lack")
async def explain_job(
    job_id: JobIdPath, services: ServicesDep, at: Annotated[AskedText | None, Query()] = None
) -> ExplainAnswer:
    """Say in a sentence why the job did, did not, will or will not run at a time, with the facts.

    The past of a deleted job is explained too.
    """
    schedule = await services.explain.schedule_of(JobId(job_id))
    asked = read_asked(at, schedule, now=services.explain.now())
    return to_explain(await services.explain.explain(JobId(job_id), asked))
