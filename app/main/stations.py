"""The pipeline's stations, each built and wired to the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.core.config import Settings
from app.db.unit_of_work import UnitOfWork
from app.domain.clock import Clock
from app.domain.execution import ClaimedRun, Reason, WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.engine.attempts import Attempts
from app.engine.auditor import Auditor, AuditorOptions
from app.engine.clock_watch import ClockWatch, ClockWatchOptions
from app.engine.dispatcher import Dispatcher, DispatcherOptions
from app.engine.intake import IntakeOptions
from app.engine.job_store import WindowJobStore
from app.engine.leases import SPAN_AMONG_REPLICAS, LeaseOptions
from app.engine.ledger import Committed, Ledger, LedgerOptions
from app.engine.lifecycle import Stations
from app.engine.pacer import Pacer, PacerOptions
from app.engine.ports import Leader, Runner, Wakeups
from app.engine.presence import Presence, PresenceOptions
from app.engine.pruner import Pruner, PrunerOptions
from app.engine.publisher import Publisher
from app.engine.recorder import Recorder, RecorderOptions
from app.engine.rescuer import PATIENCE_AMONG_REPLICAS, Rescuer, RescuerOptions
from app.engine.scheduler import GuardedScheduler, SchedulerOptions
from app.engine.tasks import Tasks
from app.engine.window import Window, WindowOptions
from app.repositories.run_repository import Ending

# A look that finds nothing costs the database one entry of an index. It is the net for wakeups.
_POLL_AMONG_REPLICAS = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every station stands on."""

    settings: Settings
    unit_of_work: UnitOfWork
    clock: Clock
    leader: Leader
    wakeups: Wakeups
    runner: Runner
    tasks: Tasks
    publisher: Publisher
    # Whether this process claims and sends, or leaves that to others.
    works: bool = True
    # Whether no other process works on this database.
    alone: bool = True


def build_stations(ground: Ground) -> Stations:
    """Build the pipeline's parts and wire each to the next."""

    def on_commit(committed: Committed) -> None:
        hand_over(ground, stations, committed.queued)
        if committed.in_doubt:
            look_for_runs(ground, stations)
        for job_id in committed.to_cancel:
            cancel_job(ground, stations, job_id)
        stations.window.refuse(committed.refused)
        stations.window.settle(advanced=committed.advanced, finished=committed.finished)

    def on_recorded(run: ClaimedRun, ending: Ending | None) -> None:
        stations.dispatcher.settled(run, ending)

    def wake() -> None:
        stations.scheduler.wake()

    presence = Presence(clock=ground.clock, options=PresenceOptions())
    ledger = _ledger(ground, presence, on_commit)
    window = _window(ground, presence, ledger, wake)
    recorder = _recorder(ground, on_recorded)
    dispatcher = _dispatcher(ground, recorder)
    stations = Stations(
        window=window,
        scheduler=_scheduler(window, ledger, ground.clock),
        ledger=ledger,
        dispatcher=dispatcher,
        recorder=recorder,
        rescuer=_rescuer(ground, dispatcher, lambda runs: hand_over(ground, stations, runs)),
        clock_watch=_clock_watch(ground, dispatcher, recorder),
        pruner=_pruner(ground),
        auditor=_auditor(ground),
    )
    return stations


def hand_over(ground: Ground, stations: Stations, runs: Sequence[WaitingRun]) -> None:
    """Give runs that wait to whoever works: this process, and the others on its database."""
    if not runs:
        return
    if ground.works:
        stations.dispatcher.add(runs)
    ground.wakeups.runs_waiting()


def look_for_runs(ground: Ground, stations: Stations) -> None:
    """Let whoever works look for runs that wait and were handed over by nobody."""
    if ground.works:
        stations.dispatcher.look()
    ground.wakeups.runs_waiting()


def cancel_job(ground: Ground, stations: Stations, job_id: JobId) -> None:
    """End a job's attempts, wherever they run."""
    stations.dispatcher.cancel([job_id])
    ground.wakeups.cancel_job(job_id)


def cancel_run(
    ground: Ground, stations: Stations, execution_id: ExecutionId, reason: Reason
) -> None:
    """End one attempt, wherever it runs."""
    stations.dispatcher.cancel_run(execution_id, reason)
    ground.wakeups.cancel_run(execution_id)


def _pruner(ground: Ground) -> Pruner:
    settings = ground.settings
    return Pruner(
        unit_of_work=ground.unit_of_work,
        leader=ground.leader,
        clock=ground.clock,
        options=PrunerOptions(
            keep_failed=timedelta(days=settings.history_failed_days),
            keep_others=timedelta(days=settings.history_days),
            keep_per_job=settings.history_per_job,
        ),
    )


def _ledger(ground: Ground, presence: Presence, on_commit: Callable[[Committed], None]) -> Ledger:
    rate = ground.settings.late_starts_per_second
    options = PacerOptions(starts_per_second=rate or None)
    return Ledger(
        unit_of_work=ground.unit_of_work,
        leader=ground.leader,
        clock=ground.clock,
        options=LedgerOptions(),
        pacer=Pacer(clock=ground.clock, presence=presence, options=options),
        presence=presence,
        on_commit=on_commit,
    )


def _window(ground: Ground, presence: Presence, ledger: Ledger, wake: Callable[[], None]) -> Window:
    horizon = timedelta(seconds=ground.settings.read_ahead_seconds)
    return Window(
        unit_of_work=ground.unit_of_work,
        clock=ground.clock,
        options=WindowOptions(horizon=horizon),
        presence=presence,
        submit=ledger.submit,
        submit_broken=ledger.submit_broken,
        wake=wake,
    )


def _scheduler(window: Window, ledger: Ledger, clock: Clock) -> GuardedScheduler:
    store = WindowJobStore(window=window, submit=ledger.submit)
    return GuardedScheduler(store=store, clock=clock, options=SchedulerOptions())


def _recorder(ground: Ground, on_recorded: Callable[[ClaimedRun, Ending | None], None]) -> Recorder:
    return Recorder(
        unit_of_work=ground.unit_of_work,
        publisher=ground.publisher,
        options=RecorderOptions(),
        on_recorded=on_recorded,
    )


def _dispatcher(ground: Ground, recorder: Recorder) -> Dispatcher:
    options = _dispatcher_options(ground)
    return Dispatcher(
        unit_of_work=ground.unit_of_work,
        leader=ground.leader,
        clock=ground.clock,
        options=options,
        tasks=ground.tasks,
        attempts=Attempts(
            runner=ground.runner,
            clock=ground.clock,
            owner=ground.leader.owner,
            lease_margin=options.leases.margin,
        ),
        recorder=recorder,
    )


def _dispatcher_options(ground: Ground) -> DispatcherOptions:
    settings = ground.settings
    rate = settings.host_starts_per_second
    return DispatcherOptions(
        concurrency=settings.concurrency,
        host_concurrency=settings.host_concurrency,
        host_gap=timedelta(seconds=1 / rate) if rate else timedelta(0),
        leases=LeaseOptions(span=None if ground.alone else SPAN_AMONG_REPLICAS),
        intake=IntakeOptions(poll_every=timedelta.max if ground.alone else _POLL_AMONG_REPLICAS),
        # Among replicas a claim holds its hosts' locks: more of them would meet more often.
        claim_max=(settings.concurrency + 1) // 2 if ground.alone else None,
    )


def _rescuer(
    ground: Ground, dispatcher: Dispatcher, rescued: Callable[[list[WaitingRun]], None]
) -> Rescuer:
    return Rescuer(
        unit_of_work=ground.unit_of_work,
        clock=ground.clock,
        options=RescuerOptions(patience=timedelta(0) if ground.alone else PATIENCE_AMONG_REPLICAS),
        in_touch_since=lambda: ground.leader.in_touch_since,
        owned=lambda: dispatcher.leases.held,
        rescued=rescued,
    )


def _clock_watch(ground: Ground, dispatcher: Dispatcher, recorder: Recorder) -> ClockWatch:
    return ClockWatch(
        unit_of_work=ground.unit_of_work,
        leader=ground.leader,
        clock=ground.clock,
        publisher=ground.publisher,
        options=ClockWatchOptions(),
        move_pending=recorder.move_back,
        on_set_back=dispatcher.read_again,
    )


def _auditor(ground: Ground) -> Auditor:
    every = timedelta(seconds=ground.settings.verify_every_seconds)
    return Auditor(
        unit_of_work=ground.unit_of_work, clock=ground.clock, options=AuditorOptions(every=every)
    )
