"""Starts and stops the pipeline.

Loops are supervised: one that raises is logged and started again after a wait, so none dies
quietly. Start: lost attempts are settled, then recorder, dispatcher, ledger, window and scheduler
begin. Stop, in this order: scheduler and window (nothing new is due), ledger (accepted ticks are
written), dispatcher (no claims; attempts get the grace period, the rest is given back), recorder
(outcomes are written). ``stop`` is safe before ``start`` and twice.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from app.engine.dispatcher import Dispatcher
from app.engine.ledger import Ledger
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


class Lifecycle:
    """Starts the stations in order, and stops them in order, each draining into the next."""

    def __init__(self, *, tasks: Tasks, stations: Stations) -> None:
        self._tasks = tasks
        self._stations = stations
        self._started = False
        self._stopping = False

    @property
    def running(self) -> bool:
        """Tell whether the pipeline is started and not stopping."""
        return self._started and not self._stopping

    async def start(self) -> None:
        """Settle what an earlier process left, then begin. Raises if the database is away."""
        stations = self._stations
        lost = await stations.rescuer.settle_all()
        if lost:
            log.warning("attempts.rescued", count=lost)
        self._tasks.loop("recorder", stations.recorder.run)
        self._tasks.loop("dispatcher", stations.dispatcher.run)
        self._tasks.loop("ledger", stations.ledger.run)
        self._tasks.loop("rescuer", stations.rescuer.run)
        stations.scheduler.start()  # type: ignore[no-untyped-call]  # APScheduler's own
        self._tasks.loop("window", stations.window.run)
        self._tasks.loop("catch_up", stations.window.catch_up)
        self._tasks.loop("watch", stations.scheduler.watch)
        self._started = True

    def begin_stop(self) -> None:
        """Fire and claim no more from now on; ``stop`` does the rest."""
        self._stopping = True
        self._stations.dispatcher.hold()
        if self._stations.scheduler.running:
            self._stations.scheduler.pause()  # type: ignore[no-untyped-call]  # APScheduler's own

    async def stop(self, *, grace: timedelta) -> None:
        """Stop within ``grace`` plus what the database takes to write what is accepted.

        When it returns, every outcome known to this process is written, and what had to be given up
        is back in the queue.
        """
        if not self._started:
            return
        self._started = False
        stations = self._stations
        for name in ("watch", "window", "catch_up", "rescuer"):
            await self._tasks.end_loop(name)
        stations.scheduler.shutdown(wait=False)  # type: ignore[no-untyped-call]  # as above
        await _drain(stations.ledger.drained(), "ledger")
        await self._tasks.end_loop("ledger")
        await stations.dispatcher.stop(grace=grace)
        await _drain(stations.recorder.drained(), "recorder")
        await self._tasks.end_loop("dispatcher")
        await _drain(stations.recorder.drained(), "recorder")
        await self._tasks.end_loop("recorder")
        await self._tasks.end_all()


async def _drain(drained: Awaitable[None], station: str) -> None:
    """Wait for a station to write what it accepted; not for ever, if the database is away."""
    try:
        async with asyncio.timeout(_DRAIN_WITHIN.total_seconds()):
            await drained
    except TimeoutError:
        log.exception("station.not_drained", station=station)
