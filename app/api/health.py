"""Health endpoints: for people and clients, for the liveness probe, for the readiness probe."""

from fastapi import APIRouter, Response

from app import __version__
from app.api.deps import ServicesDep
from app.schemas.health_answer import (
    CheckAnswer,
    HealthAnswer,
    LiveAnswer,
    ReadyAnswer,
    to_leadership,
)

router = APIRouter(tags=["health"])


@router.get("/health", summary="Is the service there?")
async def health(services: ServicesDep) -> HealthAnswer:
    """Tell that the API answers, its version, the default timezone, and of the lead."""
    zone = services.defaults.zone
    return HealthAnswer(
        timezone=zone,
        version=__version__,
        leading=services.health.is_leading,
        leadership=to_leadership(services.health.tenure, zone),
    )


@router.get("/health/live", summary="Liveness")
async def live() -> LiveAnswer:
    """Tell only that the event loop turns; a restart helps if this fails."""
    return LiveAnswer()


@router.get(
    "/health/ready",
    summary="Readiness",
    responses={503: {"model": ReadyAnswer, "description": "A check fails; its detail says why."}},
)
async def ready(services: ServicesDep, response: Response) -> ReadyAnswer:
    """Check the database by writing to it, the scheduler's passes, and that nothing due waits.

    Any loop of the service that goes on failing is told by name within five seconds. The latest
    proof of the ledger is told too; it is not required, since taking the service away would mend
    nothing.
    """
    checks = await services.health.check()
    healthy = all(check.healthy for check in checks if check.required)
    if not healthy:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return ReadyAnswer(
        status="ready" if healthy else "not_ready",
        checks=[
            CheckAnswer(
                name=check.name,
                healthy=check.healthy,
                detail=check.detail,
                required=check.required,
            )
            for check in checks
        ],
    )
