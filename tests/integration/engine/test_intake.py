"""What changes while the database is read for waiting runs: claims, retries, times, backlogs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

import app.engine.intake as intake_module
import app.main.stations as stations_module
from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import SystemClock, to_us
from app.domain.errors import UnavailableError
from app.domain.execution import Attempt, ExecutionStatus, NewExecution, Outcome, Reason
from app.domain.ids import JobId
from app.domain.job import Delivery, HttpTarget
from app.domain.policies import OverlapPolicy, RetryPolicy
from app.engine.dispatcher import DispatcherOptions
from app.engine.intake import Intake, IntakeOptions
from app.repositories import execution_repository
from app.repositories.waiting_repository import Waiting, runs_of_each_job, soonest_runs
from tests.conformance.builders import make_row
from tests.integration.engine.test_pipeline import (
    EVERY_HOUR,
    REFUSED,
    SECOND,
    create,
    ended,
    now,
)
from tests.support.builders import make_delivery, make_policy
from tests.support.homes import Home
from tests.support.pipeline import OK, Pipeline, ScriptedRunner, open_pipeline
from tests.support.service import eventually

CROWD = [f"crowd-{number}" for number in range(20)]
HOUR = 3600 * SECOND


class HeldJobs(ScriptedRunner):
    """A runner of which each job's attempts are held back until its gate opens; others end well."""

    def __init__(self, *held: str, **ends: Outcome) -> None:
        super().__init__()
        self.gates = {name: asyncio.Event() for name in held}
        self.ends = ends

    async def run(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        if attempt.job_id in self.gates:
            await self.gates[attempt.job_id].wait()
        return self.ends.get(attempt.job_id, OK)

    def numbers_of(self, job_id: str) -> list[int]:
        """Tell which attempts of a job were made."""
        return [attempt.number for attempt in self.attempts if attempt.job_id == job_id]


class Answers:
    """What looks at the database find, held back at will once it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: Callable[..., Waiting] = runs_of_each_job
        self.read = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        real = UnitOfWork.read

        async def read(doors: UnitOfWork, unit: Any) -> Any:
            found = await real(doors, unit)
            if getattr(unit, "func", None) is self.of and not self.go.is_set():
                self.read.set()
                await self.go.wait()
            return found

        monkeypatch.setattr(UnitOfWork, "read", read)

    @contextlib.asynccontextmanager
    async def held(self, pipeline: Pipeline, of: Callable[..., Waiting]) -> AsyncIterator[None]:
        """Within this block an answer of this kind is read and has not arrived."""
        self.of = of
        self.read.clear()
        self.go.clear()
        pipeline.stations.dispatcher.look()
        await self.read.wait()
        yield
        self.go.set()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


@pytest.fixture(autouse=True)
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let memory hold sixteen runs, two of each job, one slot for each host."""

    def choose(*, host_concurrency: int = 1, **changes: Any) -> None:
        values = {"ready_max": 16, "ready_max_per_job": 2, "sweep_every": SECOND, **changes}
        chosen = DispatcherOptions(
            intake=IntakeOptions(**values), host_concurrency=host_concurrency
        )
        monkeypatch.setattr(stations_module, "_dispatcher_options", lambda _: chosen)

    choose()
    return choose


def calling(host: str, **changes: Any) -> Delivery:
    return make_delivery(target=HttpTarget(method="GET", url=f"http://{host}/"), **changes)


async def create_crowd(pipeline: Pipeline) -> None:
    for job_id in CROWD:
        await create(pipeline, job_id, EVERY_HOUR, delivery=calling("crowd.test"))


async def insert(pipeline: Pipeline, *rows: NewExecution) -> None:
    """Let executions wait that nobody hands over."""

    def write(connection: WriteConnection) -> None:
        execution_repository.insert_executions(connection, rows, now_us=to_us(now()))

    await pipeline.unit_of_work.write(write)


def crowd_rows(*, ago: timedelta = SECOND) -> list[NewExecution]:
    """Describe a run of each of the crowd's jobs, all ready since a while."""
    return [
        make_row(number, job_id, next_attempt_at=now() - ago) for number, job_id in enumerate(CROWD)
    ]


async def cancel(pipeline: Pipeline, *rows: NewExecution) -> None:
    """End executions that wait, as another process would."""

    def write(connection: WriteConnection) -> None:
        for row in rows:
            execution_repository.cancel_one(
                connection, row.id, reason=Reason.USER, now_us=to_us(now())
            )

    await pipeline.unit_of_work.write(write)


async def test_an_answer_of_before_brings_no_retry_forward(home: Home, answers: Answers):
    """A run that was read as waiting, and failed before the answer arrived, keeps to its wait."""
    runner = HeldJobs("first", *CROWD, calm=REFUSED)
    async with open_pipeline(home, grace=SECOND / 10, runner=runner, start=False) as pipeline:
        await create_crowd(pipeline)
        delivery = calling("calm.test", retry=RetryPolicy(max_retries=3, first_wait=HOUR))
        await create(pipeline, "first", EVERY_HOUR, delivery=delivery)
        await create(pipeline, "calm", EVERY_HOUR, delivery=delivery)
        await pipeline.lifecycle.start_alone(None)
        await pipeline.jobs.trigger(JobId("first"))
        await eventually(lambda: runner.numbers_of("first"))
        await pipeline.jobs.trigger(JobId("calm"))
        await insert(pipeline, *crowd_rows())
        async with answers.held(pipeline, runs_of_each_job):
            runner.gates["first"].set()

            async def retrying() -> bool:
                (execution,) = await pipeline.history("calm")
                return execution.status is ExecutionStatus.RETRYING

            await eventually(retrying)
        # What that answer brought is taken in before what the next one brings.
        await insert(pipeline, make_row(7, "calm"))
        await eventually(lambda: len(runner.numbers_of("calm")) == 2)
    assert runner.numbers_of("calm") == [1, 1]


async def test_a_small_job_of_a_flooded_host_is_found(home: Home, options: Callable[..., None]):
    """Jobs with more than their part hide no other job of their host, which has slots free."""
    options(host_concurrency=10)
    flooded = [f"flooded-{number}" for number in range(3)]
    policy = make_policy(overlap=OverlapPolicy.QUEUE_ALL, max_instances=1)
    async with open_pipeline(
        home, grace=SECOND / 10, runner=HeldJobs(*flooded), start=False
    ) as pipeline:
        for job_id in flooded:
            await create(pipeline, job_id, EVERY_HOUR, delivery=calling("a.test"), policy=policy)
        await create(pipeline, "small", EVERY_HOUR, delivery=calling("a.test"))
        rows = [make_row(number, flooded[number % 3]) for number in range(24)]
        await insert(pipeline, *rows, make_row(60, "small", next_attempt_at=now()))
        await pipeline.lifecycle.start_alone(None)
        await ended(pipeline, "small")


@pytest.mark.parametrize("of", [soonest_runs, runs_of_each_job])
async def test_a_clock_set_back_while_runs_are_read_leaves_no_old_time(
    home: Home, answers: Answers, options: Callable[..., None], of: Callable[..., Waiting]
):
    """What was read before the times changed is void, and read anew at once."""
    options(sweep_every=20 * SECOND)
    step = 30 * SECOND
    async with open_pipeline(
        home, grace=SECOND / 10, runner=HeldJobs(*CROWD), start=False
    ) as pipeline:
        await create_crowd(pipeline)
        await create(pipeline, "calm", EVERY_HOUR, delivery=calling("calm.test"))
        await pipeline.lifecycle.start_alone(None)
        later = now() + step + SECOND
        await insert(pipeline, *crowd_rows(), make_row(0, "calm", next_attempt_at=later))
        async with answers.held(pipeline, of):
            # What the clock watch does after such a step; the wall clock itself stays as it is.
            await pipeline.unit_of_work.write(
                lambda connection: execution_repository.move_back_waiting(
                    connection, now=now(), step=step
                )
            )
            pipeline.stations.dispatcher.read_again()
        (execution,) = await ended(pipeline, "calm")
        assert execution.started_at is not None
        assert execution.started_at - (later - step) < 5 * SECOND


async def test_a_clock_set_back_while_it_looks_costs_no_run_its_place(
    home: Home, answers: Answers, options: Callable[..., None]
):
    """A retry that memory let go of for the clock's sake is read again, not at the next sweep."""
    options(sweep_every=20 * SECOND)
    runner = ScriptedRunner(REFUSED, OK)
    async with open_pipeline(home, grace=SECOND / 10, runner=runner) as pipeline:
        dispatcher = pipeline.stations.dispatcher
        retry = RetryPolicy(max_retries=1, first_wait=1.5 * SECOND)
        await create(pipeline, "calm", EVERY_HOUR, delivery=calling("calm.test", retry=retry))
        await pipeline.jobs.trigger(JobId("calm"))
        await eventually(lambda: len(runner.attempts) == 1 and len(dispatcher._ready) == 1)
        async with answers.held(pipeline, soonest_runs):
            dispatcher.read_again()
        began = now()
        await ended(pipeline, "calm")
        assert now() - began < 5 * SECOND


async def test_a_host_whose_backlog_is_over_is_sought_again(
    home: Home, options: Callable[..., None]
):
    """While one host's backlog hides another's last run, that other is no crowd any more."""
    options(sweep_every=20 * SECOND)
    async with open_pipeline(home, grace=SECOND / 10, start=False) as pipeline:
        await create_crowd(pipeline)
        await create(pipeline, "last", EVERY_HOUR, delivery=calling("last.test"))
        intake = pipeline.stations.dispatcher.intake
        first = now() - 9 * SECOND
        of_last = [make_row(number, "last", next_attempt_at=first) for number in (1, 2)]
        hidden = make_row(3, "last", next_attempt_at=now())
        await insert(pipeline, *of_last, *crowd_rows(ago=8 * SECOND))
        await intake.look()
        assert intake._crowds == {"crowd.test:80", "last.test:80"}
        await cancel(pipeline, *of_last)
        await insert(pipeline, hidden)
        await intake.look()
        assert hidden.id not in pipeline.stations.dispatcher._ready.held
        pipeline.tasks.loop("survey", intake.survey)
        await eventually(lambda: hidden.id in pipeline.stations.dispatcher._ready.held)


class Suspended(SystemClock):
    """A monotonic clock that goes on while the machine sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept


async def test_a_suspended_machine_puts_no_search_off(
    home: Home, monkeypatch: pytest.MonkeyPatch, answers: Answers
):
    """However long reading seems to have taken, what a backlog hides is sought again soon."""
    clock, rests = Suspended(), list[float]()

    class Sleeps:
        """asyncio, for the module that rests."""

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        async def sleep(self, seconds: float) -> None:
            rests.append(seconds)
            await asyncio.sleep(seconds)

    monkeypatch.setattr(intake_module, "asyncio", Sleeps())
    async with open_pipeline(
        home, grace=SECOND / 10, runner=HeldJobs(*CROWD), clock=clock
    ) as pipeline:
        await create_crowd(pipeline)
        await insert(pipeline, *crowd_rows())
        async with answers.held(pipeline, runs_of_each_job):
            clock.slept = 3600
        await eventually(lambda: rests)
    assert rests[0] < 60


@pytest.mark.parametrize(
    ("error", "why"), [(UnavailableError("not in time"), "not in time"), (KeyError(), "KeyError")]
)
async def test_a_search_that_fails_is_told_and_made_again(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    options: Callable[..., None],
    error: Exception,
    why: str,
):
    """A database that does not answer in time costs one reading, not what is behind the backlog."""
    options(sweep_every=20 * SECOND)
    real, broken = UnitOfWork.read, True

    async def read(doors: UnitOfWork, unit: Any) -> Any:
        if broken and getattr(unit, "func", None) is runs_of_each_job:
            raise error
        return await real(doors, unit)

    monkeypatch.setattr(UnitOfWork, "read", read)
    async with open_pipeline(
        home, grace=SECOND / 10, runner=HeldJobs(*CROWD), start=False
    ) as pipeline:
        await create_crowd(pipeline)
        await create(pipeline, "calm", EVERY_HOUR, delivery=calling("calm.test"))
        await insert(pipeline, *crowd_rows(), make_row(0, "calm", next_attempt_at=now()))
        await pipeline.lifecycle.start_alone(None)
        await eventually(pipeline.tasks.failing)
        (failing,) = pipeline.tasks.failing()
        assert (failing.name, failing.why, failing.required) == ("survey", why, False)
        broken = False
        began = now()
        await ended(pipeline, "calm")
        assert now() - began < 5 * SECOND


async def test_what_is_all_read_hides_nothing(home: Home):
    """More of a job than its part, in an answer that told of all that waits, asks for no search."""
    async with open_pipeline(home, grace=SECOND / 10, start=False) as pipeline:
        await create_crowd(pipeline)
        await insert(pipeline, *(make_row(number, CROWD[0]) for number in range(100, 105)))
        intake = pipeline.stations.dispatcher.intake
        await intake.look()
        assert not intake._hides.is_set()
        await insert(pipeline, *crowd_rows())
        await intake.look()
        assert intake._hides.is_set()


async def test_a_look_that_read_much_is_not_repeated_in_a_hurry(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    """Of one job's backlog little is held; what each look reads of it is much all the same."""
    monkeypatch.setattr(intake_module, "_PLENTY", 3)
    clock = Suspended()
    async with open_pipeline(home, grace=SECOND / 10, start=False, clock=clock) as pipeline:
        await create_crowd(pipeline)
        await insert(pipeline, *(make_row(number, CROWD[0]) for number in range(100, 105)))
        intake = pipeline.stations.dispatcher.intake
        await intake.look()
        assert len(pipeline.stations.dispatcher._ready) == 2
        intake.ask()
        clock.slept += 0.2
        assert not intake.is_due()
        clock.slept += 0.4
        assert intake.is_due()


@pytest.mark.parametrize("tell", [Intake.ask, Intake.mislead])
async def test_a_look_that_is_wanted_soon_is_waited_for_no_longer(
    home: Home, options: Callable[..., None], tell: Callable[[Intake], None]
):
    """Whoever is told that the memory is behind waits a tenth of a second, not for the sweep."""
    options(sweep_every=20 * SECOND)
    async with open_pipeline(home, grace=SECOND / 10, start=False) as pipeline:
        intake = pipeline.stations.dispatcher.intake
        await intake.look()
        assert intake.seconds_left() > 15
        tell(intake)
        assert intake.seconds_left() == 0.1
