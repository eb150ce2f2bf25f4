"""The whole engine on a virtual clock, driven at random; the ledger is judged after every step.

``make sweep`` runs it at length. Its threads are real, so a failure may depend on their timing and
not come again; it then tells its story all the same.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.domain.clock import from_us, to_us
from app.domain.errors import InvalidScheduleError, JobNotFoundError, StorageUnavailableError
from app.domain.execution import AttemptOutcome, Outcome, Reason
from app.domain.ids import JobId
from app.domain.job import JobDefinition, JobState
from app.domain.schedule import IntervalRule
from app.services.job_service import JobService, NewJob
from tests.support.clocked_pipeline import ClockedPipeline
from tests.support.databases import DatabaseKind, Databases
from tests.support.homes import open_home
from tests.support.job_wishes import HOUR, MINUTE, SECOND, Wish, night_wishes, wishes
from tests.support.ledger_model import TOLERANCE, Judge, LedgerModel, read_rows
from tests.support.pipeline import OK, ScriptedRunner
from tests.support.virtual_clock import HurriedLoop, VirtualClock

# New York's clocks go forward on 14 March 2027 at 07:00 UTC and back on 7 November at 06:00 UTC.
STARTS = [
    datetime(2027, 3, 14, 3, 29, 57, 250_000, tzinfo=UTC),
    datetime(2027, 11, 7, 2, 59, 30, 500_000, tzinfo=UTC),
    datetime(2027, 6, 1, 12, 0, 0, tzinfo=UTC),
]
FAILED = Outcome(
    kind=AttemptOutcome.RESPONSE, reason=Reason.STATUS, http_status=500, error="It said 500"
)
# The age of the last sign of life at a crash, and a step that is waited out.
UNSEEN = 10 * SECOND + TOLERANCE
# The longest wait that anything here asks for: jitter, a retry's backoff, a late start's place.
WAIT_MAX = MINUTE
# A sweep of the database for retries that are not in memory comes within this time.
SWEEP = 21 * SECOND
_RUNNING = "SELECT id FROM executions WHERE status = 'running'"
_WAITING = "SELECT id, next_attempt_us FROM executions WHERE status IN ('queued', 'retrying')"

KEPT = ("active", "paused", "finished")
turns = st.integers(0, 2)
no_time = st.just(timedelta(0))
names = st.sampled_from(["a", "b", "c"])
seconds = st.timedeltas(timedelta(0), 10 * SECOND)
spans = st.sampled_from([SECOND, 7 * SECOND, 30 * SECOND, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR])
# How long the service has not looked when a request comes.
lags = st.sampled_from([timedelta(0), timedelta(0), 3 * SECOND, 40 * SECOND, 25 * MINUTE])
steps = st.sampled_from([SECOND, 4 * SECOND, 6 * SECOND, MINUTE, 25 * MINUTE, HOUR, 2 * HOUR])


class LedgerMachine(RuleBasedStateMachine):
    """Does to a service what users, disks and clocks do, and keeps the books beside it."""

    databases: Databases
    kind: DatabaseKind

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner(loop_factory=lambda: HurriedLoop(20))
        self.opened = contextlib.ExitStack()
        folder = self.opened.enter_context(tempfile.TemporaryDirectory(prefix="ledger-"))
        # Made before the clock stands still: what is waited for meanwhile has a deadline.
        self.home = self.opened.enter_context(open_home(self.databases, self.kind, Path(folder)))
        self.clock = VirtualClock(STARTS[0])
        self.clock.__enter__()
        self.runner = ScriptedRunner()
        self.service = ClockedPipeline(self.home, self.clock, self.runner)
        self.model = LedgerModel()
        self.story: list[str] = []
        self.manual: set[str] = set()
        # Whether the service had nothing left to do when it was last looked at.
        self.settled = False
        # How far the clock was set back since the service last compared.
        self.set_back = timedelta(0)
        # Steps back that were too small to mend, as far as they are not over yet.
        self.waited_out = timedelta(0)
        # What was under way when the clock was set back: as things are, its retry waits until the
        # clock has come there again.
        self.overtaken: set[str] = set()
        # The latest the clock has shown since the service last had to begin anew.
        self.latest = STARTS[0]

    @initialize(
        start=st.sampled_from(STARTS),
        rate=st.sampled_from([0.0, 50.0]),
        first=st.tuples(night_wishes, wishes, wishes),
    )
    def open(self, start: datetime, rate: float, first: tuple[Wish, ...]) -> None:
        self.clock.step(start - self.now)
        self.latest = start
        # Nothing is removed for its age, so that the books may be compared from their first page.
        self.service = ClockedPipeline(
            self.home, self.clock, self.runner,
            late_starts_per_second=rate, history_days=3650, history_failed_days=3650,
        )  # fmt: skip
        self.run(self.service.start())
        for name, wish in zip("abc", first, strict=True):
            self.store(name, wish.define(self.now, name), str(wish))

    def teardown(self) -> None:
        self.runner.gate.set()
        self.run(self.service.close())
        self.clock.__exit__()
        self.loop.close()
        self.opened.close()

    # What users do.

    @rule(name=names, wish=wishes, late=lags)
    @precondition(lambda self: self.answers)
    def put(self, name: str, wish: Wish, late: timedelta) -> None:
        self.let_unseen(late)
        self.store(name, wish.define(self.now, name), str(wish))

    @rule(turn=turns, wish=wishes, late=lags)
    @precondition(lambda self: self.answers and self.any_of("active", "paused"))
    def put_by_the_same_schedule(self, turn: int, wish: Wish, late: timedelta) -> None:
        self.let_unseen(late)
        name = self.pick(turn, "active", "paused")
        schedule = self.model.jobs[name].schedule
        definition = replace(wish.define(self.now, name), schedule=schedule)
        self.store(name, definition, "the same schedule")

    @rule(turn=turns, late=lags)
    @precondition(lambda self: self.answers and self.any_of("active"))
    def pause(self, turn: int, late: timedelta) -> None:
        self.let_unseen(late)
        self.pause_one(self.pick(turn, "active"))

    @rule(turn=turns, passed=spans, back=no_time | steps)
    @precondition(lambda self: self.answers and self.any_of("active"))
    def pause_for_a_while(self, turn: int, passed: timedelta, back: timedelta) -> None:
        name = self.pick(turn, "active")
        self.pause_one(name)
        self.pass_time(passed)
        if back:
            self.set_clock_back(back, noticed=True)
        self.resume_one(name)

    def pause_one(self, name: str) -> None:
        job = self.ask(lambda: self.jobs.pause(JobId(name), actor="test"), f"pause {name}")
        if job is not None and job.state is JobState.PAUSED:
            self.model.pause(name, now=self.now)
        self.settle()

    @rule(turn=turns, late=lags)
    @precondition(lambda self: self.answers and self.any_of("paused"))
    def resume(self, turn: int, late: timedelta) -> None:
        self.let_unseen(late)
        self.resume_one(self.pick(turn, "paused"))

    def resume_one(self, name: str) -> None:
        if self.ask(lambda: self.jobs.resume(JobId(name), actor="test"), f"resume {name}"):
            self.model.resume(name, now=self.now)
        self.settle()

    @rule(turn=turns, late=lags)
    @precondition(lambda self: self.answers and self.any_of(*KEPT))
    def delete(self, turn: int, late: timedelta) -> None:
        self.let_unseen(late)
        self.delete_one(self.pick(turn, *KEPT))

    @rule(turn=turns, wish=wishes, late=lags)
    @precondition(lambda self: self.answers and self.any_of(*KEPT))
    def make_again(self, turn: int, wish: Wish, late: timedelta) -> None:
        self.let_unseen(late)
        name = self.pick(turn, *KEPT)
        self.delete_one(name)
        self.store(name, wish.define(self.now, name), str(wish))

    def delete_one(self, name: str) -> None:
        if self.ask(lambda: self.jobs.delete(JobId(name), actor="test"), f"delete {name}"):
            self.model.delete(name, now=self.now)
        self.settle()

    @rule(turn=turns)
    @precondition(lambda self: self.answers and self.any_of(*KEPT))
    def trigger(self, turn: int) -> None:
        name = self.pick(turn, *KEPT)
        run_id = self.ask(lambda: self.jobs.trigger(JobId(name)), f"trigger {name}")
        self.manual |= {run_id} - {None}
        self.settle()

    # What targets and disks do.

    @rule(mood=st.sampled_from(["answer", "fail", "hold"]))
    def target(self, mood: str) -> None:
        """Let targets answer from now on, with 200 or 500, or hold all answers back."""
        self.tell(f"targets {mood}")
        self.runner.outcomes = [FAILED if mood == "fail" else OK]
        if mood == "hold":
            self.runner.gate.clear()
        else:
            self.runner.gate.set()
        self.settle()

    @rule()
    @precondition(lambda self: not self.broken)
    def break_database(self) -> None:
        self.tell("the database refuses writes")
        self.service.current.writer.broken = True
        self.settled = False

    @rule()
    @precondition(lambda self: self.broken)
    def mend_database(self) -> None:
        self.tell("the database takes writes")
        self.service.current.writer.broken = False
        self.settle()

    # What time does.

    @rule(passed=spans | st.sampled_from([24 * HOUR, 48 * HOUR]), more=seconds)
    def advance(self, passed: timedelta, more: timedelta) -> None:
        self.pass_time(passed + more)

    @rule(passed=spans, more=seconds)
    def advance_unseen(self, passed: timedelta, more: timedelta) -> None:
        """Let the next thing happen before the service has looked at the clock."""
        self.let_unseen(passed + more)

    @rule(turn=turns, times=st.integers(1, 4), late=st.sampled_from([timedelta(0), SECOND / 2]))
    @precondition(lambda self: self.answers and self.any_of("active"))
    def run_on_time(self, turn: int, times: int, late: timedelta) -> None:
        """Go to a job's next instants and be there in time, as a machine that is awake is."""
        job = self.model.jobs[self.pick(turn, "active")]
        for _ in range(times):
            if job.next_time is not None:
                self.pass_time(max(job.next_time - self.now, timedelta(0)) + late)

    @rule(step=steps, noticed=st.booleans())
    def set_clock_back(self, step: timedelta, noticed: bool) -> None:  # noqa: FBT001 - drawn
        self.turn(step, back=True)
        self.settle(compare=noticed)

    @rule(step=steps)
    def set_clock_forward(self, step: timedelta) -> None:
        self.turn(step, back=False)
        self.run(self.service.poke())
        self.pass_time(SWEEP)

    def turn(self, step: timedelta, *, back: bool) -> None:
        if back:
            self.overtaken |= {execution for (execution,) in self.service.rows(_RUNNING)}
        self.clock.step(-step if back else step)
        self.tell(f"the clock is set {'back' if back else 'forward'} by {step}")
        self.set_back += step if back else -step
        self.latest = max(self.latest, self.now)
        self.settled = False

    @rule(killed=st.booleans(), passed=no_time | spans, step=no_time | steps, back=st.booleans())
    def outage(self, killed: bool, passed: timedelta, step: timedelta, back: bool) -> None:  # noqa: FBT001 - drawn
        """Be stopped or killed, and started again after a time; the clock may be set meanwhile."""
        self.end(killed=killed)
        self.let_unseen(passed)
        if step:
            self.turn(step, back=back)
        self.start()

    @rule(passed=spans, turns=st.integers(0, 30))
    def crash_at_work(self, passed: timedelta, turns: int) -> None:
        """Be killed while doing what became due, and be started again."""
        self.let_unseen(passed)
        self.run(self.service.poke())
        self.run(_turn(turns))
        self.end(killed=True)
        self.start()

    def end(self, *, killed: bool) -> None:
        self.tell("the service is killed" if killed else "the service stops")
        self.run(self.service.crash() if killed else self.service.stop())
        self.settled = False

    def start(self) -> None:
        self.tell("the service starts")
        last_beat = from_us(self.service.rows("SELECT beat_us FROM leadership")[0][0])
        before = read_rows(self.service.rows)
        self.run(self.service.start())
        self.set_back = timedelta(0)
        if last_beat - self.now > TOLERANCE:
            self.model.set_back(self.now, step=last_beat - self.now, rows=before)
            self.latest = self.now
        self.settle()

    # The books.

    @invariant()
    def every_instant_has_its_one_row(self) -> None:
        rows = read_rows(self.service.rows)
        self.judged(lambda: Judge(self.model).check(rows, now=self.latest, settled=self.settled))

    @invariant()
    def every_request_was_announced(self) -> None:
        recorded = dict(self.service.rows("SELECT id, attempts FROM executions"))
        kept = self.service.rows("SELECT execution_id, number FROM attempts")
        for attempt in self.runner.attempts:
            known = recorded.get(attempt.execution_id, 0)
            assert attempt.number <= known, f"nothing announced {attempt}"
            last = attempt.number == known
            assert last or (attempt.execution_id, attempt.number) in kept, f"{attempt} is lost"
        assert self.manual <= set(recorded), "a manual run that was answered has no row"

    @invariant()
    def nothing_is_silent(self) -> None:
        """Each job waits for its next instant, and no longer than its rule says."""
        if self.settled and not self.set_back:
            self.judged(self._check_next_times)
            for execution, at_us in self.service.rows(_WAITING):
                if execution in self.overtaken:
                    continue
                wait = from_us(at_us) - self.now
                assert wait <= WAIT_MAX + UNSEEN, f"{execution} waits {wait}"

    def _check_next_times(self) -> None:
        stored = self.service.rows("SELECT id, state, next_run_us FROM jobs")
        states = {job_id: (state, next_us) for job_id, state, next_us in stored}
        last: dict[str, int] = {}
        for row in read_rows(self.service.rows):
            last[row.job_id] = max(last.get(row.job_id, 0), row.last)
        for job in self.model.jobs.values():
            following = job.next_time
            assert (job.state, following and to_us(following)) == states[job.id], job.id
            if following is not None:
                base = self.now + UNSEEN + self.waited_out
                if not isinstance(job.schedule.rule, IntervalRule):
                    base = max(base, from_us(last.get(job.id, 0)))
                latest = job.span.trigger.next_after(base)
                assert latest is None or following <= latest, f"{job.id} waits until {following}"

    def judged(self, check: Callable[[], None]) -> None:
        """Let a failure tell how it came to be."""
        try:
            check()
        except AssertionError as error:
            error.add_note("\n".join(self.story))
            raise

    # How it is driven.

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def jobs(self) -> JobService:
        return self.service.current.jobs

    @property
    def broken(self) -> bool:
        return self.service.up and self.service.current.writer.broken

    @property
    def answers(self) -> bool:
        """Tell whether requests may succeed; sometimes one is sent to a broken database too."""
        return not self.broken or len(self.story) % 3 == 0

    def any_of(self, *states: str) -> bool:
        return any(job.state in states for job in self.model.jobs.values())

    def pick(self, turn: int, *states: str) -> str:
        """Choose a job of these states."""
        found = sorted(job.id for job in self.model.jobs.values() if job.state in states)
        return found[turn % len(found)]

    def tell(self, what: str) -> None:
        self.story.append(f"{self.now:%d %H:%M:%S.%f} {what}")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    def store(self, name: str, definition: JobDefinition, words: str) -> None:
        new = NewJob(id=JobId(name), definition=definition, replace_existing=True)
        if self.ask(lambda: self.jobs.create(new, actor="test"), f"put {name}: {words}"):
            rows = read_rows(self.service.rows)
            self.model.put(name, definition.schedule, now=self.now, rows=rows)
        self.settle()

    def ask(self, request: Callable[[], Coroutine[Any, Any, Any]], words: str) -> Any:
        """Send a request and return what it was answered with; None if it was refused."""
        try:
            answer = self.run(request())
        except (InvalidScheduleError, JobNotFoundError, StorageUnavailableError) as error:
            self.tell(f"{words}: {error}")
            if isinstance(error, StorageUnavailableError) and not self.broken:
                raise
            return None
        self.tell(words)
        return answer

    def pass_time(self, passed: timedelta) -> None:
        self.turn_clocks(passed)
        self.settle()

    def let_unseen(self, passed: timedelta) -> None:
        """Let time pass without the service having looked at the clock."""
        if passed:
            self.turn_clocks(passed)
            self.settled = False

    def turn_clocks(self, passed: timedelta) -> None:
        self.clock.advance(passed)
        self.waited_out = max(self.waited_out - passed, timedelta(0))
        self.latest = max(self.latest, self.now)
        self.tell(f"{passed} later")

    def settle(self, *, compare: bool = True) -> None:
        """Let the service see the time, and wait until it has done what is to do."""
        if compare and self.run(self.service.compare_clocks()):
            if self.set_back > TOLERANCE:
                rows = read_rows(self.service.rows)
                self.model.set_back(self.now, step=self.set_back, rows=rows)
                self.latest = self.now
            elif self.set_back > timedelta(0):
                self.waited_out += self.set_back
            self.set_back = timedelta(0)
        self.run(self.service.poke())
        if self.broken:
            self.run(_turn(3))
            return
        self.judged(lambda: self.run(self.service.quiet()))
        rows = read_rows(self.service.rows)
        self.model.see(self.now, rows=rows, latest=self.latest)
        self.settled = True


async def _turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0.001)


@pytest.fixture(scope="module", autouse=True)
def _ground(databases: Databases, database_kind: DatabaseKind) -> None:
    """Tell the machines what they stand on."""
    LedgerMachine.databases, LedgerMachine.kind = databases, database_kind


def drive(*, examples: int, length: int) -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=length,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_ledger_accounts_for_everything(database_kind: DatabaseKind):
    """Whatever users, targets, disks and clocks do, each due instant has exactly one entry."""
    drive(examples=40 if database_kind is DatabaseKind.SQLITE else 10, length=30)


@pytest.mark.sweep
def test_the_ledger_accounts_for_everything_at_length():
    """The same over many more and longer histories."""
    drive(examples=400, length=60)
