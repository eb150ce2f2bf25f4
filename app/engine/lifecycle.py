"""Starts and stops the pipeline.

Loops are supervised: one that raises is logged and started again after a wait, so none dies
quietly, and one that goes on failing makes the service unready. Start: lost attempts are settled,
then recorder, dispatcher, ledger, window and scheduler begin. Among replicas only the leader ticks;
every worker claims. Stop, in this order: scheduler and window (nothing new is due), ledger
(accepted ticks are written), dispatcher (no claims; attempts get the grace period, the rest is
given back), recorder (outcomes are written). ``stop`` is safe before the start and twice.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain.errors import UnavailableError
from app.engine.auditor import Auditor
from app.engine.clock_watch import ClockWatch
from app.engine.dispatcher import Dispatcher
from app.engine.ledger import Ledger
from app.engine.pruner import Pruner
from app.engine.recorder import Recorder
from app.engine.rescuer import Rescuer
from app.engine.scheduler import GuardedScheduler
from app.engine.tasks import Tasks
from app.engine.window import Window

log = structlog.get_logger(__name__)

# A database that takes longer than this to write what is accepted is away; restart recovers.
_DRAIN_WITHIN = timedelta(seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stations:
    """The pipeline's parts, built and wired by ``main``."""

    window: Window
    scheduler: GuardedScheduler
    ledger: Ledger
    dispatcher: Dispatcher
    recorder: Recorder
    rescuer: Rescuer
    clock_watch: ClockWatch
    pruner: Pruner
    auditor: Auditor


class Lifecycle:
    """Starts the stations in order, and stops them in order, each draining into the next.

    ``start_working`` begins to claim and send, ``start_leading`` to tick; a process alone on its
    database does both at once (``start_alone``). The lead may be gained and lost many times.
    """

    def __init__(self, *, tasks: Tasks, stations: Stations) -> None:
        self._tasks = tasks
        self._stations = stations
        self._started = False
        self._stopping = False
        self._leading = False

    @property
    def running(self) -> bool:
        """Tell whether the pipeline is started and not stopping."""
        return self._started and not self._stopping

    @property
    def is_leading(self) -> bool:
        """Tell whether this process ticks."""
        return self._leading

    async def start_alone(self, last_beat: datetime | None) -> None:
        """Settle what an earlier process left, then begin. Raises if the database is away.

        ``last_beat`` is the earlier process's last sign of life (None: there was none).
        """
        lost = await self._stations.rescuer.settle_all()
        if lost:
            log.warning("attempts.rescued", count=lost)
        self.start_working()
        await self.start_leading(last_beat)

    def start_working(self, *, claims: bool = True) -> None:
        """Begin to claim and send (``claims``), ready to lead."""
        stations = self._stations
        if claims:
            recorder, dispatcher = stations.recorder, stations.dispatcher
            self._tasks.loop("recorder", recorder.run, course=recorder.course)
            self._tasks.loop("dispatcher", dispatcher.run, course=dispatcher.course)
            intake = dispatcher.intake
            self._tasks.loop("survey", intake.survey, course=intake.course, required=False)
            self._tasks.loop("deadlines", stations.dispatcher.keep_deadlines)
            if dispatcher.leases.are_renewed:
                leases = dispatcher.leases
                self._tasks.loop("leases", leases.run, course=leases.course)
        stations.scheduler.start(paused=True)  # type: ignore[no-untyped-call]  # APScheduler's own
        self._started = True

    async def start_leading(self, last_beat: datetime | None) -> None:
        """Begin to tick, as the only process that does. Raises if the database is away."""
        stations = self._stations
        if self._stopping:
            return
        stations.window.clear()
        stations.ledger.begin()
        await stations.clock_watch.begin(last_beat)
        self._leading = True
        ledger, rescuer, window = stations.ledger, stations.rescuer, stations.window
        self._tasks.loop("ledger", ledger.run, course=ledger.course)
        self._tasks.loop("rescuer", rescuer.run, course=rescuer.course)
        stations.scheduler.resume()  # type: ignore[no-untyped-call]  # as above
        self._tasks.loop("window", window.run, course=window.course)
        self._tasks.loop("catch_up", window.catch_up, course=window.catch_up_course)
        self._tasks.loop("watch", stations.scheduler.watch)
        clock_watch = stations.clock_watch
        self._tasks.loop("clock_watch", clock_watch.run, course=clock_watch.course)
        self._start_upkeep(last_beat)

    def _start_upkeep(self, last_beat: datetime | None) -> None:
        """Begin what keeps the ledger small and proven; runs do not need it."""
        pruner, auditor = self._stations.pruner, self._stations.auditor
        self._tasks.loop("pruner", pruner.run, course=pruner.course, required=False)
        if auditor.is_watching:
            auditor.begin(last_beat)
            self._tasks.loop("auditor", auditor.run, course=auditor.course, required=False)

    async def stop_leading(self) -> None:
        """End ticking at once; what is not committed is left to the next leader."""
        if not self._leading:
            return
        self._leading = False
        if self._stopping:
            await _note_end(self._stations.clock_watch)
        self._stations.scheduler.pause()  # type: ignore[no-untyped-call]  # as above
        for name in _LEADING_LOOPS:
            await self._tasks.end_loop(name)
        self._stations.window.clear()
        self._stations.ledger.begin()

    def begin_stop(self) -> None:
        """Fire and claim no more from now on; ``stop`` does the rest."""
        self._stopping = True
        self._stations.dispatcher.hold()
        if self._stations.scheduler.running:
            self._stations.scheduler.pause()  # type: ignore[no-untyped-call]  # as above

    async def stop(self, *, grace: timedelta) -> None:
        """Stop within ``grace`` plus what the database takes to write what is accepted.

        When it returns, every outcome known to this process is written, and what had to be given up
        is back in the queue.
        """
        if not self._started:
            return
        self._started, self._stopping = False, True
        led, self._leading = self._leading, False
        stations = self._stations
        for name in _LEADING_LOOPS:
            if name != "ledger":
                await self._tasks.end_loop(name)
        stations.scheduler.shutdown(wait=False)  # type: ignore[no-untyped-call]  # as above
        await _drain(stations.ledger.drained(), "ledger")
        await self._tasks.end_loop("ledger")
        await stations.dispatcher.stop(grace=grace)
        await _drain(stations.recorder.drained(), "recorder")
        await self._tasks.end_loop("deadlines")
        await self._tasks.end_loop("dispatcher")
        await _drain(stations.recorder.drained(), "recorder")
        await self._tasks.end_loop("recorder")
        await self._tasks.end_all()
        if led:
            await _note_end(stations.clock_watch)


# In the order in which they end: what finds work before what writes it.
_LEADING_LOOPS = (
    "auditor",
    "pruner",
    "watch",
    "clock_watch",
    "window",
    "catch_up",
    "rescuer",
    "ledger",
)


async def _note_end(clock_watch: ClockWatch) -> None:
    """Write that this was a stop in good order; without it, the stop is one all the same."""
    try:
        async with asyncio.timeout(_DRAIN_WITHIN.total_seconds()):
            await clock_watch.end()
    except (TimeoutError, UnavailableError) as error:
        log.warning("stop.not_noted", why=str(error))


async def _drain(drained: Awaitable[None], station: str) -> None:
    """Wait for a station to write what it accepted; not for ever, if the database is away."""
    try:
        async with asyncio.timeout(_DRAIN_WITHIN.total_seconds()):
            await drained
    except TimeoutError:
        log.exception("station.not_drained", station=station)
