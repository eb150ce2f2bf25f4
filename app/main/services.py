"""The services, built over the stations."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from app.api.deps import Services
from app.engine.lifecycle import Lifecycle, Stations
from app.main.stations import Ground, cancel_run, hand_over
from app.schemas.job_mapping import Defaults
from app.security.egress import EgressPolicy
from app.services.cancellation_service import CancellationOptions, CancellationService
from app.services.execution_service import ExecutionService
from app.services.explain_service import ExplainOptions, ExplainService
from app.services.health_service import HealthOptions, HealthService, Pulse
from app.services.job_list_service import JobListService
from app.services.job_service import JobService, JobServiceOptions
from app.services.ledger_service import LedgerService
from app.services.schedule_service import ScheduleService


def build_services(
    ground: Ground,
    stations: Stations,
    lifecycle: Lifecycle,
    egress: EgressPolicy,
    begin_stop: Callable[[], None],
) -> Services:
    """Build everything that the API calls."""
    settings, unit_of_work, clock = ground.settings, ground.unit_of_work, ground.clock
    grace = timedelta(seconds=settings.misfire_grace_seconds)

    def pulse() -> Pulse:
        return Pulse(
            running=lifecycle.running,
            ticks=lifecycle.is_leading,
            alone=ground.alone,
            seconds_since_pass=stations.scheduler.seconds_since_good_pass(),
            lag=max(stations.window.lag(), stations.ledger.lag()),
            held_up=stations.dispatcher.held_up(),
            failing=ground.tasks.failing(),
        )

    return Services(
        jobs=JobService(
            unit_of_work=unit_of_work,
            clock=clock,
            publisher=ground.publisher,
            options=JobServiceOptions(date_grace=grace),
            dispatch=partial(hand_over, ground, stations),
            egress=egress,
        ),
        job_lists=JobListService(unit_of_work),
        executions=ExecutionService(unit_of_work),
        cancellations=_cancellations(ground, stations),
        health=HealthService(
            unit_of_work=unit_of_work,
            clock=clock,
            pulse=pulse,
            tenure=lambda: ground.leader.tenure,
            options=HealthOptions(),
            auditor=stations.auditor,
        ),
        schedules=ScheduleService(unit_of_work=unit_of_work, clock=clock),
        explain=_explain(ground),
        ledger=LedgerService(stations.auditor),
        begin_stop=begin_stop,
        defaults=Defaults(
            zone=settings.timezone,
            misfire_grace=grace,
            definition_bytes_max=settings.definition_bytes_max,
        ),
    )


def _explain(ground: Ground) -> ExplainService:
    options = ExplainOptions(
        concurrency=ground.settings.concurrency,
        host_concurrency=ground.settings.host_concurrency,
    )
    return ExplainService(unit_of_work=ground.unit_of_work, clock=ground.clock, options=options)


def _cancellations(ground: Ground, stations: Stations) -> CancellationService:
    service = CancellationService(
        unit_of_work=ground.unit_of_work,
        clock=ground.clock,
        stop=partial(cancel_run, ground, stations),
        options=CancellationOptions(),
    )
    ground.publisher.subscribe(service.on_event)
    return service
