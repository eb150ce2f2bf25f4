"""Everything behind the API: the database, the pipeline and the services, built and wired.

``open_service`` opens all of it in order and closes it in the reverse order.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import structlog

from app import __version__
from app.api.deps import Services
from app.backends.embedded import DataLock, EmbeddedLeader, process_name
from app.core.config import Settings
from app.db.migrate import migrate as migrate_database
from app.db.session import (
    DatabaseOptions,
    open_sqlite_reader,
    open_sqlite_writer,
)
from app.db.unit_of_work import SqliteWriter, UnitOfWork
from app.domain.clock import Clock, SystemClock
from app.domain.errors import StorageUnavailableError
from app.domain.events import Event, JobChanged
from app.domain.execution import ClaimedRun
from app.engine.attempts import Attempts
from app.engine.dispatcher import Dispatcher, DispatcherOptions
from app.engine.job_store import WindowJobStore
from app.engine.ledger import Committed, Ledger, LedgerOptions
from app.engine.lifecycle import Lifecycle, Stations
from app.engine.ports import Leader, Runner
from app.engine.publisher import Publisher
from app.engine.recorder import Recorder, RecorderOptions
from app.engine.rescuer import Rescuer
from app.engine.scheduler import GuardedScheduler, SchedulerOptions
from app.engine.tasks import Tasks
from app.engine.window import Window, WindowOptions
from app.repositories import leadership_repository
from app.repositories.run_repository import Ending
from app.runners.http import HttpRunner
from app.runners.http_options import HttpRunnerOptions
from app.runners.transports import build_transport
from app.schemas.job_answer import describe_trigger
from app.schemas.job_mapping import Defaults
from app.schemas.times import show_instant
from app.security.egress import EgressOptions, EgressPolicy
from app.services.execution_service import ExecutionService
from app.services.health_service import HealthOptions, HealthService, Pulse
from app.services.job_service import JobService, JobServiceOptions
from app.services.schedule_service import ScheduleService
from app.telemetry.execution_log import log_execution

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Services]:
    """Open the database and start the pipeline; stop and close both at the end."""
    clock = SystemClock()
    options = DatabaseOptions(url=settings.database_url)
    if not options.is_sqlite:
        raise StorageUnavailableError(
            "Serving from PostgreSQL is not possible in this version; "
            "set DATABASE_URL to an SQLite file, such as sqlite:///./data/jobs.db"
        )
    lock = DataLock(options.sqlite_path)
    lock.acquire(clock=clock)
    try:
        applied = await migrate_database(options)
        if applied:
            log.info("database.migrated", revisions=applied)
        unit_of_work = UnitOfWork(
            reader=open_sqlite_reader(options.sqlite_path, readers=options.readers),
            writer=SqliteWriter(open_sqlite_writer(options.sqlite_path)),
        )
        try:
            async with _run_pipeline(settings, unit_of_work, clock) as services:
                yield services
        finally:
            await unit_of_work.close()
    finally:
        lock.release()


@contextlib.asynccontextmanager
async def _run_pipeline(
    settings: Settings, unit_of_work: UnitOfWork, clock: Clock
) -> AsyncIterator[Services]:
    owner, now = process_name(), clock.now()
    term = await unit_of_work.write(
        lambda connection: leadership_repository.take_leadership(connection, holder=owner, now=now)
    )
    leader = EmbeddedLeader(owner=owner, term=term)
    egress = _egress(settings)
    runner = _runner(settings, egress, clock)
    tasks, publisher = Tasks(), Publisher()
    stations = build_stations(settings, unit_of_work, clock, leader, runner, tasks, publisher)
    lifecycle = Lifecycle(tasks=tasks, stations=stations)
    services = _services(settings, unit_of_work, clock, publisher, stations, lifecycle, egress)

    def on_event(event: Event) -> None:
        if isinstance(event, JobChanged):
            stations.window.forget(event.job_id)

    publisher.subscribe(on_event)
    publisher.subscribe(log_execution)
    try:
        await lifecycle.start()
        await _log_start(settings, services)
        yield services
    finally:
        log.info("scheduler.stopping", running=stations.dispatcher.running_count)
        await lifecycle.stop(grace=timedelta(seconds=settings.shutdown_grace_seconds))
        await runner.close()
        log.info("scheduler.stopped")


def build_stations(
    settings: Settings,
    unit_of_work: UnitOfWork,
    clock: Clock,
    leader: Leader,
    runner: Runner,
    tasks: Tasks,
    publisher: Publisher,
) -> Stations:
    """Build the pipeline's parts and wire each to the next."""

    def on_commit(committed: Committed) -> None:
        stations.dispatcher.add(committed.queued)
        stations.dispatcher.cancel(committed.to_cancel)
        stations.window.refuse(committed.refused)
        stations.window.settle(advanced=committed.advanced, finished=committed.finished)

    def on_recorded(run: ClaimedRun, ending: Ending | None) -> None:
        stations.dispatcher.settled(run, ending)

    def wake() -> None:
        stations.scheduler.wake()

    ledger = _ledger(unit_of_work, leader, clock, on_commit)
    window = Window(
        unit_of_work=unit_of_work,
        clock=clock,
        options=_window_options(settings),
        submit=ledger.submit,
        submit_broken=ledger.submit_broken,
        wake=wake,
    )
    recorder = Recorder(
        unit_of_work=unit_of_work,
        publisher=publisher,
        options=RecorderOptions(),
        on_recorded=on_recorded,
    )
    dispatcher = Dispatcher(
        unit_of_work=unit_of_work,
        leader=leader,
        clock=clock,
        options=_dispatcher_options(settings),
        tasks=tasks,
        attempts=_attempts(settings, leader, runner, clock),
        recorder=recorder,
    )
    stations = Stations(
        window=window,
        scheduler=_scheduler(window, ledger, clock),
        ledger=ledger,
        dispatcher=dispatcher,
        recorder=recorder,
        rescuer=_rescuer(unit_of_work, clock, dispatcher),
    )
    return stations


def _ledger(
    unit_of_work: UnitOfWork,
    leader: Leader,
    clock: Clock,
    on_commit: Callable[[Committed], None],
) -> Ledger:
    return Ledger(
        unit_of_work=unit_of_work,
        leader=leader,
        clock=clock,
        options=LedgerOptions(),
        on_commit=on_commit,
    )


def _scheduler(window: Window, ledger: Ledger, clock: Clock) -> GuardedScheduler:
    store = WindowJobStore(window=window, submit=ledger.submit)
    return GuardedScheduler(store=store, clock=clock, options=SchedulerOptions())


def _window_options(settings: Settings) -> WindowOptions:
    return WindowOptions(horizon=timedelta(seconds=settings.read_ahead_seconds))


def _dispatcher_options(settings: Settings) -> DispatcherOptions:
    return DispatcherOptions(
        concurrency=settings.concurrency, host_concurrency=settings.host_concurrency
    )


def _attempts(settings: Settings, leader: Leader, runner: Runner, clock: Clock) -> Attempts:
    margin = _dispatcher_options(settings).lease_margin
    return Attempts(runner=runner, clock=clock, owner=leader.owner, lease_margin=margin)


def _rescuer(unit_of_work: UnitOfWork, clock: Clock, dispatcher: Dispatcher) -> Rescuer:
    return Rescuer(
        unit_of_work=unit_of_work,
        clock=clock,
        owned=lambda: dispatcher.owned,
        rescued=dispatcher.add,
    )


def _services(
    settings: Settings,
    unit_of_work: UnitOfWork,
    clock: Clock,
    publisher: Publisher,
    stations: Stations,
    lifecycle: Lifecycle,
    egress: EgressPolicy,
) -> Services:
    def pulse() -> Pulse:
        return Pulse(
            running=lifecycle.running,
            seconds_since_pass=stations.scheduler.seconds_since_good_pass(),
            lag=max(stations.window.lag(), stations.ledger.lag()),
        )

    return Services(
        jobs=JobService(
            unit_of_work=unit_of_work,
            clock=clock,
            publisher=publisher,
            options=JobServiceOptions(date_grace=timedelta(seconds=settings.misfire_grace_seconds)),
            dispatch=stations.dispatcher.add,
            egress=egress,
        ),
        executions=ExecutionService(unit_of_work),
        health=HealthService(
            unit_of_work=unit_of_work, clock=clock, pulse=pulse, options=HealthOptions()
        ),
        schedules=ScheduleService(unit_of_work=unit_of_work, clock=clock),
        begin_stop=lifecycle.begin_stop,
        defaults=Defaults(
            zone=settings.timezone,
            misfire_grace=timedelta(seconds=settings.misfire_grace_seconds),
            definition_bytes_max=settings.definition_bytes_max,
        ),
    )


def _egress(settings: Settings) -> EgressPolicy:
    return EgressPolicy(
        EgressOptions(mode=settings.egress, allow=settings.egress_allow, deny=settings.egress_deny)
    )


def _runner(settings: Settings, egress: EgressPolicy, clock: Clock) -> HttpRunner:
    options = HttpRunnerOptions(
        response_bytes_max=settings.response_bytes_max,
        excerpt_bytes_max=settings.response_excerpt_bytes,
        trust_env_proxy=settings.http_trust_env,
    )
    transport = build_transport(settings.http_transport, options, egress)
    return HttpRunner(transport=transport, clock=clock, options=options)


async def _log_start(settings: Settings, services: Services) -> None:
    """Say what is scheduled: every job up to a limit, and how many there are."""
    jobs = await services.jobs.list(limit=settings.startup_jobs_logged)
    for job in jobs:
        log.info(
            "job.registered",
            job_id=job.id,
            trigger=None if job.definition is None else describe_trigger(job.definition.schedule),
            state=job.state.value,
            next_run_time=show_instant(job.next_run_time, settings.timezone),
        )
    count = await services.jobs.count()
    log.info(
        "scheduler.started",
        message="Scheduler started",
        jobs=count,
        jobs_listed=len(jobs),
        version=__version__,
        timezone=settings.timezone,
        egress=settings.egress.value,
    )
