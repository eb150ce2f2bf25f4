"""The composition root: the only file that builds objects and wires them to each other.

``open_service`` opens everything behind the API in order and closes it in the reverse order;
``create_app`` puts the API in front of it. ``serve`` runs both under uvicorn, and ``app`` is there
for ``uvicorn app.main:app``.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.middleware import Middleware

from app import __version__
from app.api import health
from app.api.deps import Services
from app.api.docs import install_docs
from app.api.errors import install_error_handlers
from app.api.middleware import HeadMiddleware, RequestIdMiddleware, TrailingSlashMiddleware
from app.api.v1.router import router
from app.backends.embedded import DataLock, EmbeddedLeader, process_name
from app.core.config import ConfigError, Settings, load_settings
from app.core.logging import configure_logging
from app.db.migrate import migrate as migrate_database
from app.db.session import (
    DatabaseOptions,
    open_postgres_reader,
    open_sqlite_reader,
    open_sqlite_writer,
)
from app.db.unit_of_work import SqliteWriter, UnitOfWork, WriteConnection
from app.domain.clock import Clock, SystemClock
from app.domain.errors import AddressUnavailableError, StorageUnavailableError
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
from app.services.schedule_service import JobTransitions, ScheduleService
from app.telemetry.execution_log import log_execution

log = structlog.get_logger(__name__)

# Open connections (a browser on a live page) are closed this long after a stop was asked for.
_CONNECTIONS_GRACE_SECONDS = 3

_DESCRIPTION = "Schedules HTTP calls: every due run is made, retried sensibly, and accounted for."


def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit code.

    Raises ``StorageInUseError``, ``StorageUnavailableError`` and ``AddressUnavailableError`` if it
    cannot start.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stdout)
    uvloop.run(_serve(settings))
    return 0


def migrate(settings: Settings) -> list[str]:
    """Bring the database to this version's schema; return the revisions applied."""
    options = DatabaseOptions(url=settings.database_url)
    return asyncio.run(migrate_database(options))


def report_transitions(settings: Settings, *, year: int | None) -> list[JobTransitions]:
    """Tell what each stored job does where its zone's clock jumps in a year (None: this one).

    Reads the database only; a service may run on it. Raises ``StorageUnavailableError``.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    return asyncio.run(_report_transitions(settings, year))


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """Build the API. Without ``services`` it opens its own when it starts (its lifespan)."""

    @contextlib.asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        if services is not None:
            yield
            return
        async with open_service(settings) as opened:
            api.state.services = opened
            yield

    api = FastAPI(
        title="MyScheduler",
        version=__version__,
        description=_DESCRIPTION,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        max_body_size=settings.request_bytes_max,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(TrailingSlashMiddleware),
            Middleware(HeadMiddleware),
        ],
    )
    api.state.services = services
    api.include_router(health.router)
    api.include_router(router)
    install_docs(api)
    install_error_handlers(api, request_bytes_max=settings.request_bytes_max)
    return api


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


class _NoWriter:
    """The writing door of a program that only reads."""

    async def write(self, unit: Callable[[WriteConnection], Any]) -> NoReturn:
        """Refuse: nothing here writes."""
        raise AssertionError(f"{unit} must not be written")

    async def close(self) -> None:
        """Do nothing: nothing is open."""


async def _report_transitions(settings: Settings, year: int | None) -> list[JobTransitions]:
    options = DatabaseOptions(url=settings.database_url, readers=1)
    if not options.is_sqlite:
        reader = open_postgres_reader(options.url, connections=1)
    elif options.sqlite_path.exists():
        reader = open_sqlite_reader(options.sqlite_path, readers=1)
    else:
        raise StorageUnavailableError(
            "There is no database where DATABASE_URL points; correct it, or start the service once"
        )
    unit_of_work = UnitOfWork(reader=reader, writer=_NoWriter())
    try:
        service = ScheduleService(unit_of_work=unit_of_work, clock=SystemClock())
        return await service.report(year)
    finally:
        await unit_of_work.close()


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


class _Server(uvicorn.Server):
    """uvicorn, leaving by return instead of by the signal that stopped it.

    ``on_stop`` is called at once when a stop is asked for, before connections are closed.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop firing and claiming, then let uvicorn close its connections."""
        self._on_stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the stop signals until the process ends, so that a second one does no harm."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(settings: Settings) -> None:
    # The port first: what cannot be reached must not send.
    listener = _listen(settings.host, settings.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listener)
        services = await stack.enter_async_context(open_service(settings))
        config = uvicorn.Config(
            create_app(settings, services),
            host=settings.host,
            port=settings.port,
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CONNECTIONS_GRACE_SECONDS,
        )
        # What lives now lives until the end: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        await _Server(config, services.begin_stop).serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port, or raise ``AddressUnavailableError`` saying what is in the way."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressUnavailableError(host, port, error.strerror or "unknown reason") from error
    return listener


def __getattr__(name: str) -> FastAPI:
    """Build ``app`` when a server asks for it, so that importing this module reads nothing."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = load_settings(os.environ, env_file=Path(".env"))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logging(settings.log_level, settings.log_format, stream=sys.stdout)
    return create_app(settings)
