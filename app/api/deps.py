"""What endpoints get handed: the services, put on the application by ``main``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.schemas.job_mapping import Defaults
from app.services.cancellation_service import CancellationService
from app.services.execution_service import ExecutionService
from app.services.explain_service import ExplainService
from app.services.health_service import HealthService
from app.services.job_list_service import JobListService
from app.services.job_service import JobService
from app.services.ledger_service import LedgerService
from app.services.schedule_service import ScheduleService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the API calls, and how the server that carries it announces a stop."""

    jobs: JobService
    job_lists: JobListService
    executions: ExecutionService
    cancellations: CancellationService
    health: HealthService
    schedules: ScheduleService
    explain: ExplainService
    ledger: LedgerService
    defaults: Defaults
    begin_stop: Callable[[], None]


async def _services(request: Request) -> Services:
    return services_of(request)


def services_of(request: Request) -> Services:
    """Return the services of the application that a request is for."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
