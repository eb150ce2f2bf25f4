"""The real pipeline over a real database, with a runner and a writer that tests control."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from app.backends.embedded import EmbeddedLeader, NoWakeups
from app.db.connection_watch import ConnectionLimits
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.db.unit_of_work import UnitOfWork, WriteConnection, Writer
from app.domain.clock import Clock, SystemClock
from app.domain.errors import StorageUnavailableError
from app.domain.events import Event, JobChanged
from app.domain.execution import Attempt, AttemptOutcome, Execution, Outcome
from app.domain.history import HistoryFilter
from app.domain.ids import JobId
from app.domain.job import Job
from app.engine.lifecycle import Lifecycle, Stations
from app.engine.publisher import Publisher
from app.engine.tasks import Tasks
from app.main import Ground, build_stations
from app.repositories import history_repository, job_list_repository, leadership_repository
from app.security.egress import EgressOptions, EgressPolicy
from app.services.job_service import JobService, JobServiceOptions
from tests.support.databases import open_unit_of_work
from tests.support.homes import Home
from tests.support.service import settings_for

T = TypeVar("T")

OK = Outcome(kind=AttemptOutcome.RESPONSE, http_status=200, response_bytes=0, response_excerpt="")

# Where the loop's seconds are short (``HurriedLoop``), the database seems slow.
_PATIENT = ConnectionLimits(pool=1000, connect=1000, server=1000, client=2000, transaction=3000)


class ScriptedRunner:
    """Gives the outcomes it is told, in order, the last one for ever; may hold attempts back."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self.outcomes = list(outcomes or [OK])
        self.attempts: list[Attempt] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        await self.gate.wait()
        number = min(len(self.attempts), len(self.outcomes)) - 1
        outcome = self.outcomes[number]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        return


class FaultyWriter:
    """A writer that refuses while ``broken`` is set, as a full or locked database does."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.broken = False
        self.refused = 0

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        if self.broken:
            self.refused += 1
            raise StorageUnavailableError("The database did not take the change")
        return await self._writer.write(unit)

    async def close(self) -> None:
        await self._writer.close()


@dataclass
class Pipeline:
    """Everything a test of the engine touches."""

    jobs: JobService
    stations: Stations
    lifecycle: Lifecycle
    unit_of_work: UnitOfWork
    writer: FaultyWriter
    runner: ScriptedRunner
    tasks: Tasks
    ground: Ground
    events: list[Event] = field(default_factory=list)
    crashed: bool = False

    async def crash(self) -> None:
        """End as a killed process does: nothing is drained, and nothing more is written."""
        self.crashed = True
        self.writer.broken = True
        self.stations.scheduler.shutdown(wait=False)
        await self.tasks.end_all()

    async def history(self, job_id: str) -> list[Execution]:
        """Read a job's executions, oldest first."""
        wanted = HistoryFilter(job_id=JobId(job_id))
        found = await self.unit_of_work.read(
            lambda connection: history_repository.read_history(connection, wanted, limit=1000)
        )
        return found.executions[::-1]

    async def listed(self) -> list[Job]:
        """Read all jobs."""
        return await self.unit_of_work.read(job_list_repository.read_all_jobs)

    async def due(self) -> list[JobId]:
        """Tell which jobs have a next run time."""
        return [job.id for job in await self.listed() if job.next_run_time is not None]


@contextlib.asynccontextmanager
async def open_pipeline(
    home: Home,
    *,
    runner: ScriptedRunner | None = None,
    clock: Clock | None = None,
    start: bool = True,
    grace: timedelta = timedelta(seconds=5),
    **settings: object,
) -> AsyncIterator[Pipeline]:
    """Open the pipeline on a home's database; stop and close it at the end.

    On PostgreSQL too it is alone on it: what replicas do to each other is shown elsewhere.
    """
    clock = clock or SystemClock()
    configured = settings_for(home, **settings)
    options = DatabaseOptions(url=configured.database_url, readers=2)
    # On a loop of its own, whose seconds are whole.
    await asyncio.to_thread(asyncio.run, migrate(options))
    unit_of_work = open_unit_of_work(options, writing=_PATIENT, reading=_PATIENT)
    writer = unit_of_work._writer = FaultyWriter(unit_of_work._writer)
    now = clock.now()

    def lead(connection: WriteConnection) -> tuple[int, datetime | None]:
        last_beat = leadership_repository.last_beat(connection)
        return leadership_repository.take_leadership(connection, holder="me", now=now), last_beat

    term, last_beat = await unit_of_work.write(lead)
    runner = runner or ScriptedRunner()
    tasks, publisher = Tasks(), Publisher()
    leader = EmbeddedLeader(owner="me", term=term, since=now)
    ground = Ground(
        settings=configured,
        unit_of_work=unit_of_work,
        clock=clock,
        leader=leader,
        wakeups=NoWakeups(),
        runner=runner,
        tasks=tasks,
        publisher=publisher,
    )
    stations = build_stations(ground)
    pipeline = Pipeline(
        jobs=JobService(
            unit_of_work=unit_of_work,
            clock=clock,
            publisher=publisher,
            options=JobServiceOptions(),
            dispatch=stations.dispatcher.add,
            egress=EgressPolicy(EgressOptions()),
        ),
        stations=stations,
        lifecycle=Lifecycle(tasks=tasks, stations=stations),
        unit_of_work=unit_of_work,
        writer=writer,
        runner=runner,
        tasks=tasks,
        ground=ground,
    )

    def on_event(event: Event) -> None:
        pipeline.events.append(event)
        if isinstance(event, JobChanged):
            stations.window.forget(event.job_id)

    publisher.subscribe(on_event)
    try:
        if start:
            await pipeline.lifecycle.start_alone(last_beat)
        yield pipeline
    finally:
        writer.broken = False
        runner.gate.set()
        if not pipeline.crashed:
            await pipeline.lifecycle.stop(grace=grace)
        await unit_of_work.close()
