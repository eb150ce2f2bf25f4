"""What is relied upon inside APScheduler 3.11, and what is added to it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from app.domain.clock import SystemClock
from app.engine.catch_up import LISTED_MAX, find_due_instants
from app.engine.job_store import WindowJobStore
from app.engine.scheduler import GuardedScheduler, SchedulerOptions
from app.engine.tick import DueInstants
from app.engine.triggers import build_trigger
from app.engine.window import WaitingJob
from tests.support.builders import NOON, make_due_job, make_policy

SECOND = timedelta(seconds=1)


class RecordingStore(BaseJobStore):
    """A job store that notes what is asked of it."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls
        self.jobs: list[Any] = []

    def get_due_jobs(self, now):
        self.calls.append("get_due_jobs")
        return list(self.jobs)

    def get_next_run_time(self):
        self.calls.append("get_next_run_time")

    def update_job(self, job):
        self.calls.append(f"update {job.id}")

    def remove_job(self, job_id):
        self.calls.append(f"remove {job_id}")

    def add_job(self, job):
        self.jobs.append(job)

    def lookup_job(self, job_id):
        return None

    def get_all_jobs(self):
        return []

    def remove_all_jobs(self):
        return None


class RecordingExecutor(BaseExecutor):
    """An executor that notes what it is given."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def submit_job(self, job, run_times):
        self.calls.append(f"submit {job.id} {len(run_times)}")

    def _do_submit_job(self, job, run_times):
        raise AssertionError


async def test_a_pass_calls_in_the_order_that_the_tick_relies_on():
    """One pass: get_due_jobs, then submit and update or remove per job, get_next_run_time last."""
    calls: list[str] = []
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_jobstore(RecordingStore(calls), "default")
    scheduler.add_executor(RecordingExecutor(calls), "default")
    scheduler.start(paused=True)
    now = datetime.now(UTC)  # noqa: TID251 - APScheduler reads the real clock
    every = IntervalTrigger(seconds=60, timezone=UTC)
    once = IntervalTrigger(seconds=60, end_date=now, timezone=UTC)
    for name, trigger in (("a", every), ("b", once)):
        scheduler.add_job(print, trigger, id=name, next_run_time=now - SECOND, misfire_grace_time=9)
    calls.clear()
    scheduler.state = 1
    scheduler._process_jobs()
    scheduler.shutdown()
    await asyncio.sleep(0)
    assert calls == [
        "get_due_jobs",
        "submit a 1",
        "update a",
        "submit b 1",
        "remove b",
        "get_next_run_time",
    ]


class FakeWindow:
    """Hands out the jobs it is given, once, and counts what comes back."""

    def __init__(self, *jobs: WaitingJob) -> None:
        self.jobs = list(jobs)
        self.back: list[WaitingJob] = []
        self.broken = False

    def take_due(self, _now, *, limit):
        taken, self.jobs = self.jobs[:limit], self.jobs[limit:]
        return taken

    def put_back(self, jobs):
        self.back += list(jobs)

    def next_time(self):
        if self.broken:
            raise RuntimeError("boom")


def open_scheduler(window: FakeWindow, ticks: list[DueInstants]) -> GuardedScheduler:
    store = WindowJobStore(window=window, submit=ticks.extend)  # type: ignore[arg-type]  # a fake
    scheduler = GuardedScheduler(store=store, clock=SystemClock(), options=SchedulerOptions())
    scheduler.start(paused=True)
    scheduler.state = 1
    return scheduler


def waiting(job_id: str = "job", *, due: datetime, trigger: object | None = None) -> WaitingJob:
    job = make_due_job(job_id, next_run_time=due, anchor=due - timedelta(minutes=1))
    return WaitingJob(job, trigger or build_trigger(job.schedule, anchor=job.anchor))  # type: ignore[arg-type]  # a fake


async def test_one_pass_is_one_tick():
    """What a pass finds due is handed over together, with each job's next run time."""
    due = datetime.now(UTC) - 61 * SECOND  # noqa: TID251 - APScheduler reads the real clock
    ticks: list[DueInstants] = []
    scheduler = open_scheduler(FakeWindow(waiting("a", due=due), waiting("b", due=due)), ticks)
    scheduler._process_jobs()
    scheduler.shutdown()
    await asyncio.sleep(0)
    minute = 60 * SECOND
    assert [(found.job.id, found.fire_times, found.next_run_time) for found in ticks] == [
        ("a", (due, due + minute), due + 2 * minute),
        ("b", (due, due + minute), due + 2 * minute),
    ]
    assert scheduler.seconds_since_good_pass() is not None


async def test_a_schedule_that_raises_is_a_problem_of_its_job_alone():
    """A trigger that raises does not end the pass: its job is reported, the others go on."""

    class Broken:
        def get_next_fire_time(self, _previous, _now):
            raise RuntimeError("boom")

        def left_out(self, _after, _until):
            return ()

    due = datetime.now(UTC) - SECOND  # noqa: TID251 - APScheduler reads the real clock
    ticks: list[DueInstants] = []
    window = FakeWindow(waiting("bad", due=due, trigger=Broken()), waiting("good", due=due))
    scheduler = open_scheduler(window, ticks)
    scheduler._process_jobs()
    scheduler.shutdown()
    await asyncio.sleep(0)
    assert [(found.job.id, found.problem) for found in ticks] == [
        ("bad", "its schedule fails with RuntimeError"),
        ("good", None),
    ]


async def test_a_pass_that_raises_is_undone_and_repeated():
    """An exception in a pass puts its jobs back, is counted, and gives the wait for the next."""
    due = datetime.now(UTC) - SECOND  # noqa: TID251 - APScheduler reads the real clock
    window, ticks = FakeWindow(waiting(due=due)), list[DueInstants]()
    scheduler = open_scheduler(window, ticks)

    def fail(*_):
        raise RuntimeError("boom")

    scheduler._store.add_fire_times = fail  # type: ignore[method-assign]  # the fault to survive
    scheduler._store.get_next_run_time = fail  # type: ignore[method-assign]  # the fault to survive
    waits = [scheduler._process_jobs() for _ in range(5)]
    scheduler.shutdown()
    await asyncio.sleep(0)
    assert waits == [1, 2, 4, 8, 10]
    assert scheduler.failed_passes == 5
    assert [job.job.id for job in window.back] == ["job"]
    assert ticks == []


async def test_a_stopped_scheduler_is_not_woken():
    """After the stop a late wake-up call does nothing."""
    scheduler = open_scheduler(FakeWindow(), [])
    scheduler.shutdown()
    await asyncio.sleep(0)
    scheduler.wake()


async def test_jobs_do_not_enter_or_leave_by_the_scheduler():
    """Adding or removing jobs through APScheduler is refused; there is nothing to look up."""
    scheduler = open_scheduler(FakeWindow(), [])
    store = scheduler._store
    with pytest.raises(TypeError):
        store.add_job(object())  # type: ignore[arg-type]  # whatever it is
    with pytest.raises(TypeError):
        store.remove_all_jobs()
    with pytest.raises(TypeError):
        scheduler._executors["default"]._do_submit_job(None, [])
    assert store.get_all_jobs() == []
    scheduler.shutdown()
    await asyncio.sleep(0)


def test_a_long_outage_is_listed_up_to_a_bound_and_counted_beyond():
    """The newest instants are listed, the older counted; nothing is enumerated twice."""
    job = make_due_job(policy=make_policy())
    trigger = build_trigger(job.schedule, anchor=job.anchor)
    minutes = LISTED_MAX + 500
    found = find_due_instants(job, trigger, now=NOON + timedelta(minutes=minutes))
    assert len(found.fire_times) == LISTED_MAX
    assert found.fire_times[-1] == NOON + timedelta(minutes=minutes)
    assert found.next_run_time == NOON + timedelta(minutes=minutes + 1)
    assert found.elided is not None
    assert (found.elided.first, found.elided.count) == (NOON, 501)
    assert found.elided.last + timedelta(minutes=1) == found.fire_times[0]


async def test_a_wake_up_on_its_way_when_the_scheduler_is_shut_down():
    """It makes no pass and raises nothing: APScheduler has let go of its loop by then."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    ticks: list[DueInstants] = []
    due = datetime.now(UTC) - SECOND  # noqa: TID251 - APScheduler reads the real clock
    scheduler = open_scheduler(FakeWindow(waiting("a", due=due)), ticks)
    scheduler.shutdown(wait=False)
    scheduler.wakeup()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (failures, ticks) == ([], [])
