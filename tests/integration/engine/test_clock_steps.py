"""What a step of the machine's clock does to jobs, by the real pipeline on a virtual clock."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar

import pytest

from app.db.unit_of_work import WriteConnection, Writer
from app.domain.clock import from_us, to_us
from app.domain.errors import StorageUnavailableError
from app.domain.execution import AttemptOutcome, Execution, ExecutionStatus, Outcome, Reason
from app.domain.ids import JobId
from app.domain.job import JobState
from app.domain.policies import CatchUp, RetryPolicy
from app.domain.schedule import Schedule
from app.services.job_service import NewJob
from tests.support.builders import make_definition, make_delivery, make_policy
from tests.support.clocked_pipeline import ClockedPipeline
from tests.support.homes import Home
from tests.support.pipeline import OK, ScriptedRunner
from tests.support.schedules import crontab_of, date_of, interval_of
from tests.support.service import eventually
from tests.support.virtual_clock import VirtualClock

T = TypeVar("T")

SECOND = timedelta(seconds=1)
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = datetime(2027, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)
EVERY_MINUTE = interval_of(MINUTE)
ON_THE_MINUTE = crontab_of("* * * * *")
FAILED = Outcome(
    kind=AttemptOutcome.RESPONSE, reason=Reason.STATUS, http_status=500, error="It said 500"
)


class Steps:
    """A running service, its clock, and what the tests do with them."""

    def __init__(self, service: ClockedPipeline) -> None:
        self.service = service
        self.clock = service.clock

    async def put(self, schedule: Schedule, job_id: str = "job", **changes: object) -> None:
        definition = make_definition(schedule=schedule, **changes)
        new = NewJob(id=JobId(job_id), definition=definition, replace_existing=True)
        await self.service.current.jobs.create(new, actor="test")
        await self.see()

    async def see(self) -> None:
        """Let the service see the clock, and wait until it has done what is to do."""
        await self.service.compare_clocks()
        await self.service.poke()
        await self.service.quiet()

    async def advance(self, passed: timedelta) -> None:
        self.clock.advance(passed)
        await self.see()

    async def set_by(self, step: timedelta) -> None:
        self.clock.step(step)
        await self.see()

    async def history(self, job_id: str = "job") -> list[Execution]:
        return await self.service.current.history(job_id)

    async def ran(self, job_id: str = "job") -> list[datetime]:
        """Tell the instants that were run, in the order of their rows."""
        history = await self.history(job_id)
        assert all(execution.attempts <= 1 for execution in history)
        return [execution.scheduled_for for execution in history if execution.attempts]

    async def next_time(self, job_id: str = "job") -> datetime | None:
        return (await self.service.current.jobs.get(JobId(job_id))).next_run_time

    async def epoch(self, job_id: str = "job") -> int:
        return (await self.service.current.jobs.get(JobId(job_id))).clock_epoch

    def events(self) -> list[tuple[str, datetime, datetime | None]]:
        """Read the service's own history: what, when, and the old clock or last sign of life."""
        found = self.service.rows("SELECT kind, at_us, since_us FROM service_events ORDER BY seq")
        return [
            (kind, from_us(at_us), None if since_us is None else from_us(since_us))
            for kind, at_us, since_us in found
        ]


class UndoingWriter:
    """A writer on a full disk: it runs what it is given, and undoes it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.full = True
        self.undone = 0

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        def undo(connection: WriteConnection) -> T:
            unit(connection)
            self.undone += 1
            raise StorageUnavailableError("The disk is full")

        return await self._writer.write(undo if self.full else unit)

    async def close(self) -> None:
        await self._writer.close()


@contextlib.asynccontextmanager
async def steps_of(home: Home, *outcomes: Outcome, **settings: object) -> AsyncIterator[Steps]:
    """Start a service at ``START``; stop it at the end."""
    runner = ScriptedRunner(*outcomes)
    with VirtualClock(START) as clock:
        service = ClockedPipeline(home, clock, runner, **settings)
        await service.start()
        try:
            yield Steps(service)
        finally:
            runner.gate.set()
            await service.close()


async def test_what_was_found_by_the_old_clock_comes_due_again(home: Home):
    """An instant that waits to be written when the clock is set back is run at its time."""
    half_past = datetime(2027, 6, 1, 12, 30, tzinfo=UTC)
    async with steps_of(home) as steps:
        await steps.put(crontab_of("30 * * * *"))
        service = steps.service.current
        service.writer.broken = True
        steps.clock.advance(30 * MINUTE)
        await steps.service.poke()
        await eventually(service.stations.ledger.lag)
        steps.clock.step(-25 * MINUTE)
        service.writer.broken = False
        await steps.see()
        assert await steps.history() == []
        assert await steps.next_time() == half_past
        await steps.advance(25 * MINUTE)
        assert await steps.ran() == [half_past]


async def test_an_interval_goes_on_with_the_rest_of_its_period(home: Home):
    """After a step back an interval job runs when its period is over, then at every period."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        await steps.advance(MINUTE)
        await steps.advance(20 * SECOND)
        await steps.set_by(-HOUR)
        assert await steps.next_time() == steps.clock.now() + 40 * SECOND
        await steps.advance(40 * SECOND)
        await steps.advance(MINUTE)
        ran = await steps.ran()
    first = START + MINUTE
    assert ran == [first, first + MINUTE - HOUR, first + 2 * MINUTE - HOUR]


async def test_an_interval_in_a_new_epoch_keeps_one_row_per_instant(home: Home):
    """Set back by a multiple of its period, a job runs at the same instants under new ids."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        await steps.advance(MINUTE)
        await steps.set_by(-MINUTE)
        await steps.advance(MINUTE)
        history = await steps.history()
    assert [execution.scheduled_for for execution in history] == [START + MINUTE] * 2
    assert len({execution.id for execution in history}) == 2


async def test_a_cron_rule_repeats_nothing(home: Home):
    """After a step back the instants that ran are not run again, and the first new one is."""
    async with steps_of(home) as steps:
        await steps.put(ON_THE_MINUTE)
        await steps.advance(MINUTE)
        await steps.advance(MINUTE)
        before = await steps.ran()
        await steps.set_by(-HOUR)
        await steps.advance(30 * MINUTE)
        await steps.advance(30 * MINUTE)
        assert await steps.ran() == before
        await steps.advance(MINUTE)
        assert await steps.ran() == [*before, before[-1] + MINUTE]


async def test_a_cron_rule_runs_what_comes_again_without_a_row(home: Home):
    """An instant before the job was made, which the clock reaches again, is run."""
    async with steps_of(home) as steps:
        await steps.put(crontab_of("30 20 * * *"))
        assert await steps.next_time() == datetime(2027, 6, 2, 11, 30, tzinfo=UTC)
        await steps.set_by(-HOUR)
        await steps.advance(30 * MINUTE)
        assert await steps.ran() == [datetime(2027, 6, 1, 11, 30, tzinfo=UTC)]
        assert await steps.next_time() == datetime(2027, 6, 2, 11, 30, tzinfo=UTC)


async def test_a_one_off_runs_once_at_its_time(home: Home):
    """A date to come waits for the clock to show it; one that was run is not run again."""
    async with steps_of(home) as steps:
        await steps.put(date_of(START + MINUTE), "done")
        await steps.put(date_of(START + 10 * MINUTE), "to come")
        await steps.advance(5 * MINUTE)
        await steps.set_by(-HOUR)
        await steps.advance(HOUR)
        assert await steps.ran("to come") == []
        await steps.advance(5 * MINUTE)
        assert await steps.ran("to come") == [START + 10 * MINUTE]
        assert await steps.ran("done") == [START + MINUTE]
        done = await steps.service.current.jobs.get(JobId("done"))
        assert done.state is JobState.FINISHED


async def test_a_retry_waits_no_longer_than_it_would_have(home: Home):
    """A waiting retry moves back with the clock."""
    retry = RetryPolicy(max_retries=1, first_wait=30 * SECOND, wait_max=30 * SECOND)
    async with steps_of(home, FAILED, OK) as steps:
        await steps.put(date_of(START), delivery=make_delivery(retry=retry))
        (execution,) = await steps.history()
        assert execution.next_attempt_at == START + 30 * SECOND
        await steps.advance(10 * SECOND)
        await steps.set_by(-HOUR)
        (execution,) = await steps.history()
        assert execution.next_attempt_at == steps.clock.now() + 20 * SECOND
        await steps.advance(19 * SECOND)
        assert len(steps.service.runner.attempts) == 1
        await steps.advance(SECOND)
        (execution,) = await steps.history()
    assert (execution.status, execution.attempts) == (ExecutionStatus.COMPLETED, 2)


async def test_a_jittered_start_moves_back_too(home: Home):
    """What was queued for a moment to come starts as long after the step as before it."""
    async with steps_of(home) as steps:
        await steps.put(date_of(START + SECOND, jitter=10 * MINUTE))
        await steps.advance(SECOND)
        (execution,) = await steps.history()
        assert execution.next_attempt_at is not None
        left = execution.next_attempt_at - steps.clock.now()
        await steps.set_by(-HOUR)
        await steps.advance(left)
        (execution,) = await steps.history()
    assert execution.status is ExecutionStatus.COMPLETED


async def test_a_paused_job_resumes_within_its_period(home: Home):
    """A job that was paused before the step goes on after it as any other."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        await steps.advance(30 * MINUTE)
        await steps.service.current.jobs.pause(JobId("job"), actor="test")
        await steps.set_by(-HOUR)
        await steps.service.current.jobs.resume(JobId("job"), actor="test")
        assert await steps.next_time() == steps.clock.now() + MINUTE
        await steps.advance(MINUTE)
        assert (await steps.ran())[-1] == steps.clock.now()


@pytest.mark.parametrize("step", [-SECOND, -5 * SECOND, SECOND])
async def test_a_small_step_is_waited_out(home: Home, step: timedelta):
    """A step within the tolerance begins no epoch, repeats nothing, loses nothing, is no event."""
    async with steps_of(home) as steps:
        await steps.put(interval_of(SECOND))
        for _ in range(6):
            await steps.advance(SECOND)
        before = await steps.ran()
        await steps.set_by(step)
        if step < timedelta(0):
            await steps.advance(-step)
            assert await steps.ran() == before
            await steps.advance(SECOND)
        assert await steps.ran() == [*before, before[-1] + SECOND]
        assert await steps.epoch() == 0
        assert [kind for kind, _, _ in steps.events()] == ["started"]


async def test_a_suspended_machine_sends_nothing_twice(home: Home):
    """An hour's sleep in the middle of an attempt: both clocks jump, the event loop's does not.

    The attempt arrives once and is recorded as it ends, its lease long over; what came due follows
    each job's policy, and late starts are spread.
    """
    policies = {
        policy.value: make_policy(catch_up=policy, catch_up_max_runs=3, misfire_grace=SECOND)
        for policy in CatchUp
    }
    async with steps_of(home, late_starts_per_second=1) as steps:
        service, runner = steps.service, steps.service.runner
        for name, policy in policies.items():
            await steps.put(EVERY_MINUTE, name, policy=policy)
        runner.gate.clear()
        await steps.put(date_of(steps.clock.now()), "held")
        (held,) = runner.attempts
        slept_at = steps.clock.now()
        steps.clock.advance(HOUR + MINUTE / 2)
        # The rescuer's next round, as after a wake-up.
        stations, tasks = service.current.stations, service.current.tasks
        await tasks.end_loop("rescuer")
        tasks.loop("rescuer", stations.rescuer.run, course=stations.rescuer.course)
        await steps.see()
        (row,) = await steps.history("held")
        assert (row.status, row.attempts) == (ExecutionStatus.RUNNING, 1)
        # One late start at once, the others a second apart: no storm.
        assert len(runner.attempts) == 2
        runner.gate.set()
        for _ in range(10):
            await steps.advance(SECOND)
        (row,) = await steps.history("held")
        assert (row.status, row.attempts, row.id) == (
            ExecutionStatus.COMPLETED, 1, held.execution_id,
        )  # fmt: skip
        sent = [attempt.job_id for attempt in runner.attempts]
        late = {name: sent.count(JobId(name)) for name in policies}
        assert late == {"none": 0, "latest": 1, "all": 3}
        assert sent.count(JobId("held")) == 1
        for name in policies:
            history = await steps.history(name)
            assert sum(execution.instant_count for execution in history) == 60
            assert all(execution.scheduled_for > slept_at for execution in history)
    assert len({attempt.execution_id for attempt in runner.attempts}) == len(runner.attempts)


async def test_steps_are_events_of_the_service(home: Home):
    """Each step is kept with the time the clock showed after it, and would have shown."""
    async with steps_of(home) as steps:
        await steps.advance(SECOND)
        await steps.set_by(-HOUR)
        await steps.advance(SECOND)
        await steps.set_by(2 * HOUR)
        await steps.service.stop()
        events = steps.events()
    assert events == [
        ("started", START, None),
        ("clock_set_back", START + SECOND - HOUR, START + SECOND),
        ("clock_set_forward", START + 2 * SECOND + HOUR, START + 2 * SECOND - HOUR),
        ("stopped", START + 2 * SECOND + HOUR, None),
    ]


async def test_a_step_back_while_the_service_is_down(home: Home):
    """The last sign of life tells of it at the next start, and jobs go on from there."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        await steps.put(ON_THE_MINUTE, "cron")
        await steps.advance(MINUTE)
        cron = await steps.ran("cron")
        await steps.service.stop()
        steps.clock.step(-HOUR)
        await steps.service.start()
        assert await steps.next_time() == START + 2 * MINUTE - HOUR
        await steps.advance(MINUTE)
        assert await steps.ran() == [START + MINUTE, START + 2 * MINUTE - HOUR]
        assert await steps.ran("cron") == cron
        kinds = [(kind, since) for kind, _, since in steps.events()[1:]]
    assert kinds == [
        ("stopped", None),
        ("clock_set_back", START + MINUTE),
        ("started", START + MINUTE),
    ]


async def test_a_step_back_after_a_crash(home: Home):
    """A crash is dated by the last sign of life, at most ten seconds old."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        for _ in range(7):
            await steps.advance(10 * SECOND)
        await steps.service.crash()
        steps.clock.step(-HOUR)
        await steps.service.start()
        following = await steps.next_time()
    assert following is not None
    assert following - steps.clock.now() <= MINUTE


@pytest.mark.parametrize(
    ("catch_up", "runs", "covered"),
    [(CatchUp.LATEST, 1, 59), (CatchUp.NONE, 0, 60), (CatchUp.ALL, 3, 57)],
)
async def test_a_step_forward_is_no_storm(home: Home, catch_up: CatchUp, runs: int, covered: int):
    """What a step forward makes late follows the catch-up policy, and nothing is left out."""
    policy = make_policy(
        catch_up=catch_up, catch_up_max_runs=3, misfire_grace=timedelta(0), max_instances=3
    )
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE, policy=policy)
        await steps.set_by(HOUR + SECOND)
        await steps.advance(SECOND)
        history = await steps.history()
        assert len(steps.service.runner.attempts) == runs
        assert await steps.epoch() == 0
        assert [kind for kind, _, _ in steps.events()][1:] == ["clock_set_forward"]
    accounted = [execution for execution in history if not execution.attempts]
    assert sum(execution.instant_count for execution in accounted) == covered
    assert sum(execution.instant_count for execution in history) == 60


async def test_a_step_that_the_database_did_not_take_is_mended_later(home: Home):
    """While writes are refused a step stays unmended, and it is mended once they are not."""
    async with steps_of(home) as steps:
        await steps.put(EVERY_MINUTE)
        await steps.advance(10 * MINUTE)
        writer = steps.service.current.writer
        writer.broken = True
        steps.clock.step(-HOUR)
        assert not await steps.service.compare_clocks()
        steps.clock.advance(10 * SECOND)
        assert not await steps.service.compare_clocks()
        writer.broken = False
        await steps.see()
        following = await steps.next_time()
        events = steps.events()[1:]
    assert following == START + 11 * MINUTE - HOUR
    assert events == [
        ("clock_set_back", steps.clock.now(), steps.clock.now() + HOUR),
    ]


@pytest.mark.parametrize("refused", [1, 2, 3])
async def test_a_step_half_mended_moves_nothing_twice(home: Home, refused: int):
    """Whichever write of a mending the database refuses, a retry waits as long as was asked."""
    retry = RetryPolicy(max_retries=1, first_wait=2 * HOUR, wait_max=2 * HOUR)
    async with steps_of(home, FAILED, OK) as steps:
        await steps.put(date_of(START), delivery=make_delivery(retry=retry))
        service = steps.service.current
        await eventually(lambda: _is_retrying(steps))
        service.unit_of_work._writer = RefusingWriter(service.writer, at=refused)
        steps.clock.step(-HOUR)
        while not await steps.service.compare_clocks():
            steps.clock.advance(SECOND)
        service.unit_of_work._writer = service.writer
        (execution,) = await steps.history()
        kinds = [kind for kind, _, _ in steps.events()[1:]]
    assert execution.next_attempt_at == START - HOUR + 2 * HOUR
    assert kinds == ["clock_set_back"]


async def _is_retrying(steps: Steps) -> bool:
    return [row.status for row in await steps.history()] == [ExecutionStatus.RETRYING]


class RefusingWriter:
    """A writer that refuses one write, counted from 1."""

    def __init__(self, writer: Writer, *, at: int) -> None:
        self._writer = writer
        self._left = at

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        self._left -= 1
        if not self._left:
            raise StorageUnavailableError("The database did not take the change")
        return await self._writer.write(unit)

    async def close(self) -> None:
        await self._writer.close()


async def test_every_job_is_set_right(home: Home):
    """More jobs than one transaction takes all go on after a step back."""
    async with steps_of(home) as steps:
        for number in range(201):
            definition = make_definition(schedule=EVERY_MINUTE)
            job_id = JobId(f"job-{number}")
            new = NewJob(id=job_id, definition=definition, replace_existing=False)
            await steps.service.current.jobs.create(new, actor="test")
        await steps.see()
        await steps.advance(SECOND)
        await steps.set_by(-HOUR)
        found = steps.service.rows(
            "SELECT clock_epoch, next_run_us, count(*) FROM jobs GROUP BY 1, 2"
        )
    assert found == [(1, to_us(START + MINUTE - HOUR), 201)]


async def test_late_starts_after_an_outage_are_spread(home: Home):
    """Of twenty jobs due during an outage one starts at once, the others one after another."""
    async with steps_of(home, late_starts_per_second=10) as steps:
        for number in range(20):
            await steps.put(date_of(START + MINUTE), f"job-{number}")
        await steps.service.stop()
        steps.clock.advance(HOUR)
        await steps.service.start()
        await steps.see()
        assert len(steps.service.runner.attempts) == 1
        waiting = steps.service.rows(
            "SELECT next_attempt_us FROM executions WHERE status = 'queued' ORDER BY 1"
        )
        times = [steps.clock.now(), *(from_us(us) for (us,) in waiting)]
        assert [later - earlier for earlier, later in pairwise(times)] == [SECOND / 10] * 19
        await steps.advance(SECOND)
        assert len(steps.service.runner.attempts) == 11
        await steps.advance(SECOND)
        assert len(steps.service.runner.attempts) == 20


async def test_places_of_late_starts_are_not_used_up_by_refused_commits(home: Home):
    """However often the database undoes a tick, its first late run starts at once afterwards."""
    async with steps_of(home, late_starts_per_second=10) as steps:
        for number in range(20):
            await steps.put(date_of(START + MINUTE), f"job-{number}")
        writer = steps.service.current.writer
        full = writer._writer = UndoingWriter(writer._writer)
        steps.clock.advance(HOUR)
        await steps.service.poke()
        await eventually(lambda: full.undone >= 3)
        full.full = False
        await steps.see()
        assert len(steps.service.runner.attempts) == 1


@pytest.mark.parametrize(
    "before",
    [date_of(START + MINUTE), date_of(START + 30 * MINUTE), ON_THE_MINUTE],
    ids=["a one-off that ran", "a one-off to come", "a cron rule"],
)
async def test_a_new_schedule_begins_at_once(home: Home, before: Schedule):
    """A job replaced after a step back by an interval runs when the first period is over."""
    async with steps_of(home) as steps:
        await steps.put(before)
        await steps.advance(10 * MINUTE)
        await steps.set_by(-HOUR)
        await steps.put(EVERY_MINUTE)
        assert await steps.next_time() == steps.clock.now() + MINUTE


async def test_what_runs_counts_for_overlap_after_a_step_back(home: Home):
    """An instant that comes while the job's run from before the step goes on is skipped."""
    async with steps_of(home) as steps:
        steps.service.runner.gate.clear()
        await steps.put(EVERY_MINUTE)
        await steps.advance(MINUTE)
        await steps.set_by(-HOUR)
        await steps.advance(MINUTE)
        running, following = await steps.history()
    assert running.status is ExecutionStatus.RUNNING
    assert (following.status, following.reason) == (ExecutionStatus.SKIPPED, Reason.OVERLAP)


async def test_a_retry_of_what_was_under_way_waits_as_asked(home: Home):
    """An attempt during which the clock is set back is tried again after the wait it asks for."""
    retry = RetryPolicy(max_retries=1, first_wait=30 * SECOND, wait_max=30 * SECOND)
    async with steps_of(home, FAILED, OK) as steps:
        steps.service.runner.gate.clear()
        await steps.put(date_of(START), delivery=make_delivery(retry=retry))
        await steps.set_by(-HOUR)
        steps.service.runner.gate.set()
        await steps.see()
        (execution,) = await steps.history()
        assert execution.next_attempt_at == steps.clock.now() + 30 * SECOND


async def test_a_retry_that_could_not_be_recorded_waits_as_asked(home: Home):
    """An outcome that the database takes only after a step back is tried again after its wait."""
    retry = RetryPolicy(max_retries=1, first_wait=30 * SECOND, wait_max=30 * SECOND)
    async with steps_of(home, FAILED, OK) as steps:
        runner, writer = steps.service.runner, steps.service.current.writer
        runner.gate.clear()
        await steps.put(date_of(START), delivery=make_delivery(retry=retry))
        writer.broken = True
        runner.gate.set()
        await eventually(lambda: writer.refused >= 2)
        steps.clock.step(-HOUR)
        writer.broken = False
        await steps.see()
        (execution,) = await steps.history()
        assert execution.next_attempt_at is not None
        assert execution.next_attempt_at <= steps.clock.now() + 30 * SECOND
