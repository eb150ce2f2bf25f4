"""What endpoints get handed: the services, put on the application by ``main``."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.schemas.job_mapping import Defaults
from app.services.execution_service import ExecutionService
from app.services.health_service import HealthService
from app.services.job_service import JobService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the API calls."""

    jobs: JobService
    executions: ExecutionService
    health: HealthService
    defaults: Defaults


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
