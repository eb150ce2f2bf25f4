"""Everything behind the API, opened in order and closed in the reverse order.

Which database it is, is asked here: one process on an SQLite file, or replicas on PostgreSQL.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from app import __version__
from app.api.deps import Services
from app.backends.embedded import (
    DataLock,
    EmbeddedLeader,
    NoWakeups,
    StopReserve,
    process_name,
)
from app.backends.postgres.leader import LeaderOptions, PostgresLeader
from app.backends.postgres.wakeups import PostgresWakeups, WakeupKind, WakeupOptions
from app.core.config import Settings
from app.core.logging import lines_together
from app.core.settings import Role
from app.db.damage import Damage
from app.db.migrate import migrate as migrate_database
from app.db.session import (
    DatabaseOptions,
    open_postgres,
    open_postgres_direct,
    open_postgres_reader,
    open_sqlite_reader,
    open_sqlite_writer,
)
from app.db.unit_of_work import PostgresWriter, SqliteWriter, UnitOfWork, WriteConnection
from app.domain.clock import Clock, SystemClock
from app.domain.errors import StorageUnavailableError
from app.domain.events import Event, JobChanged
from app.domain.execution import Reason
from app.domain.ids import ExecutionId, JobId
from app.engine.lifecycle import Lifecycle, Stations
from app.engine.ports import Leader, Wakeups
from app.engine.publisher import Publisher
from app.engine.tasks import Tasks
from app.main.services import build_services
from app.main.stations import Ground, build_stations
from app.repositories import leadership_repository
from app.runners.http import HttpRunner
from app.runners.http_options import HttpRunnerOptions
from app.runners.transports import build_transport
from app.schemas.job_answer import describe_trigger
from app.schemas.times import show_instant
from app.security.egress import EgressOptions, EgressPolicy
from app.telemetry.execution_log import log_execution

log = structlog.get_logger(__name__)

# Who asks the API waits so long for PostgreSQL to read; the pipeline waits longer.
_HURRY = timedelta(seconds=5)


@contextlib.asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Services]:
    """Open the database and start the pipeline; stop and close both at the end."""
    options = DatabaseOptions(url=settings.database_url)
    opened = _open_embedded if options.is_sqlite else _open_replica
    async with opened(settings, options) as services:
        yield services


@contextlib.asynccontextmanager
async def _open_embedded(settings: Settings, options: DatabaseOptions) -> AsyncIterator[Services]:
    """Open one process that owns an SQLite file."""
    if settings.role is not Role.ALL:
        raise StorageUnavailableError(
            "MYSCHEDULER_ROLE divides the work among replicas on PostgreSQL; with an SQLite file "
            "one process does all of it: leave the role out, or set DATABASE_URL"
        )
    clock = SystemClock()
    lock = DataLock(options.sqlite_path)
    lock.acquire(clock=clock)
    try:
        await _migrate(options)
        damage = Damage(options.sqlite_path)
        unit_of_work = UnitOfWork(
            reader=open_sqlite_reader(options.sqlite_path, readers=options.readers),
            writer=SqliteWriter(open_sqlite_writer(options.sqlite_path), damage=damage),
            damage=damage,
        )
        try:
            leader, last_beat = await _lead_alone(unit_of_work, clock)
            async with _open_pipeline(settings, unit_of_work, clock, leader, NoWakeups()) as made:
                await made.lifecycle.start_alone(last_beat)
                await _log_start(settings, made.services)
                # Freed before the pipeline stops: the stop has outcomes to write.
                with StopReserve(options.sqlite_path):
                    yield made.services
        finally:
            with damage.left_alone():
                await unit_of_work.close()
    finally:
        lock.release()


async def _lead_alone(
    unit_of_work: UnitOfWork, clock: Clock
) -> tuple[EmbeddedLeader, datetime | None]:
    owner, now = process_name(), clock.now()

    def lead(connection: WriteConnection) -> tuple[int, datetime | None]:
        last_beat = leadership_repository.last_beat(connection)
        term = leadership_repository.take_leadership(connection, holder=owner, now=now)
        return term, last_beat

    term, last_beat = await unit_of_work.write(lead)
    return EmbeddedLeader(owner=owner, term=term, since=now), last_beat


@contextlib.asynccontextmanager
async def _open_replica(settings: Settings, options: DatabaseOptions) -> AsyncIterator[Services]:
    """Open one of many processes on a PostgreSQL database."""
    clock = SystemClock()
    direct = settings.session_url
    await _migrate(DatabaseOptions(url=direct))
    heard: list[_Opened] = []

    def look_again() -> None:
        """Look at all that may be there: a change was maybe stored, and announced to nobody."""
        _wake(heard, WakeupKind.ALL, "")
        wakeups.send(WakeupKind.ALL)

    unit_of_work = _open_postgres_doors(
        options, proxied=direct != options.url, on_unanswered=look_again
    )
    engine = open_postgres_direct(direct)
    leader = PostgresLeader(
        engine=engine,
        unit_of_work=unit_of_work,
        # Containers share process numbers and names over restarts; this name is never used again.
        owner=f"{process_name()}:{uuid.uuid4().hex[:12]}",
        clock=clock,
        options=LeaderOptions(),
    )
    wakeups = PostgresWakeups(
        url=direct,
        options=WakeupOptions(),
        on_wakeup=lambda kind, key: _wake(heard, kind, key),
    )
    try:
        async with _open_pipeline(
            settings, unit_of_work, clock, leader, wakeups, resign=leader.resign
        ) as made:
            heard.append(made)
            made.lifecycle.start_working(claims=made.works)
            # Without them work is found by looking, a little later.
            made.tasks.loop("wakeups", wakeups.run, required=False)
            if settings.role in {Role.ALL, Role.SCHEDULER}:
                made.tasks.loop(
                    "leader",
                    lambda: leader.run(made.lifecycle.start_leading, made.lifecycle.stop_leading),
                )
            await _log_start(settings, made.services)
            try:
                yield made.services
            finally:
                leader.resign()
                await made.tasks.end_loop("leader")
    finally:
        await engine.dispose()
        await unit_of_work.close()


def _open_postgres_doors(
    options: DatabaseOptions, *, proxied: bool, on_unanswered: Callable[[], None]
) -> UnitOfWork:
    return UnitOfWork(
        reader=open_postgres_reader(options.url, connections=options.readers, proxied=proxied),
        writer=PostgresWriter(
            open_postgres(options.url, connections=options.writers, proxied=proxied),
            on_unanswered=on_unanswered,
        ),
        hurry=_HURRY,
    )


class _Opened:
    """A pipeline that is open."""

    def __init__(
        self,
        *,
        ground: Ground,
        stations: Stations,
        lifecycle: Lifecycle,
        services: Services,
    ) -> None:
        self.works = ground.works
        self.tasks = ground.tasks
        self.stations = stations
        self.lifecycle = lifecycle
        self.services = services


def _wake(heard: list[_Opened], kind: WakeupKind, key: str) -> None:
    """Do what another replica's wakeup asks for; nothing before the start and after the stop."""
    for made in heard:
        stations = made.stations
        match kind:
            case WakeupKind.JOB:
                if made.lifecycle.is_leading:
                    stations.window.forget(JobId(key))
            case WakeupKind.CANCEL_JOB:
                stations.dispatcher.cancel([JobId(key)])
            case WakeupKind.CANCEL_RUN:
                stations.dispatcher.cancel_run(ExecutionId(key), Reason.USER)
            case WakeupKind.RUNS:
                stations.dispatcher.look()
            case WakeupKind.ALL:
                stations.dispatcher.look()
                stations.window.read_soon()


@contextlib.asynccontextmanager
async def _open_pipeline(
    settings: Settings,
    unit_of_work: UnitOfWork,
    clock: Clock,
    leader: Leader,
    wakeups: Wakeups,
    *,
    resign: Callable[[], None] | None = None,
) -> AsyncIterator[_Opened]:
    """Build everything over a database; at the end, stop it.

    ``resign`` gives the lead up as soon as a stop is announced, before connections are closed.
    """
    egress = _egress(settings)
    runner = _runner(settings, egress, clock)
    ground = Ground(
        settings=settings,
        unit_of_work=unit_of_work,
        clock=clock,
        leader=leader,
        wakeups=wakeups,
        runner=runner,
        tasks=Tasks(),
        publisher=Publisher(around=lines_together),
        works=settings.role in {Role.ALL, Role.WORKER},
        alone=isinstance(wakeups, NoWakeups),
    )
    stations = build_stations(ground)
    lifecycle = Lifecycle(tasks=ground.tasks, stations=stations)

    def begin_stop() -> None:
        lifecycle.begin_stop()
        if resign is not None:
            resign()

    for_callers = replace(ground, unit_of_work=unit_of_work.for_callers())
    services = build_services(for_callers, stations, lifecycle, egress, begin_stop)

    def on_event(event: Event) -> None:
        if isinstance(event, JobChanged):
            if lifecycle.is_leading:
                stations.window.forget(event.job_id)
            wakeups.job_changed(event.job_id)

    ground.publisher.subscribe(on_event)
    ground.publisher.subscribe(log_execution)
    try:
        yield _Opened(ground=ground, stations=stations, lifecycle=lifecycle, services=services)
    finally:
        log.info("scheduler.stopping", running=stations.dispatcher.running_count)
        await lifecycle.stop(grace=timedelta(seconds=settings.shutdown_grace_seconds))
        await ground.tasks.end_all()
        await runner.close()
        log.info("scheduler.stopped")


async def _migrate(options: DatabaseOptions) -> None:
    applied = await migrate_database(options)
    if applied:
        log.info("database.migrated", revisions=applied)


def _egress(settings: Settings) -> EgressPolicy:
    return EgressPolicy(
        EgressOptions(
            mode=settings.egress,
            allow=settings.egress_allow,
            deny=settings.egress_deny,
            schemes=settings.egress_schemes,
        )
    )


def _runner(settings: Settings, egress: EgressPolicy, clock: Clock) -> HttpRunner:
    options = HttpRunnerOptions(
        response_bytes_max=settings.response_bytes_max,
        excerpt_bytes_max=settings.response_excerpt_bytes,
        trust_env_proxy=settings.http_trust_env,
    )
    transport = build_transport(settings.http_transport, options, egress)
    return HttpRunner(transport=transport, clock=clock, options=options, egress=egress)


async def _log_start(settings: Settings, services: Services) -> None:
    """Say what is scheduled: every job up to a limit, and how many there are."""
    page = await services.job_lists.page(limit=settings.startup_jobs_logged)
    for job in page.jobs:
        log.info(
            "job.registered",
            job_id=job.id,
            trigger=None if job.definition is None else describe_trigger(job.definition.schedule),
            state=job.state.value,
            next_run_time=show_instant(job.next_run_time, settings.timezone),
        )
    count = await services.job_lists.count()
    log.info(
        "scheduler.started",
        message="Scheduler started",
        jobs=count,
        jobs_listed=len(page.jobs),
        version=__version__,
        timezone=settings.timezone,
        egress=settings.egress.value,
    )
