import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from app.domain.clock import SystemClock, from_us
from app.domain.execution import (
    AttemptOutcome,
    Cause,
    ClaimedRun,
    Execution,
    ExecutionStatus,
    Outcome,
    Reason,
    WaitingRun,
)
from app.domain.ids import ExecutionId, JobId, random_execution_id
from app.domain.job import Change
from app.domain.policies import OnCrash
from app.models.tables import executions
from app.repositories import execution_repository, job_repository, orphan_repository, run_repository
from app.repositories.unreadable_repository import UnreadableRun
from tests.conformance.builders import (
    FENCE,
    JOB,
    NOW,
    NOW_US,
    OWNER,
    SECOND,
    add_job,
    add_rows,
    break_job,
    claim_all,
    claim_one,
    list_waiting,
    make_claim,
    make_definition,
    make_ending,
    make_row,
    make_unrun,
    read_history,
    record,
)
from tests.support.databases import Database, DatabaseKind

LATER = NOW + timedelta(days=1)
OTHER = JobId("other")
MICROSECOND = timedelta(microseconds=1)

NOT_THE_OWNER = [
    {"owner": "another:2"},
    {"fence": FENCE + 1},
    {"fence": FENCE - 1},
    {"number": 2},
    {"execution_id": ExecutionId("exe_unknown")},
]


async def found(database: Database, execution_id: ExecutionId) -> Execution:
    execution = await database.read(execution_repository.find_execution, execution_id)
    assert execution is not None
    return execution


async def test_what_was_put_off_since_it_was_found_is_not_claimed(database: Database):
    """An attempt that failed elsewhere meanwhile is not repeated before its wait is over."""
    await add_job(database)
    await add_rows(database, make_row())
    found = await list_waiting(database)
    run = await claim_one(database)
    retry_at = NOW + 60 * SECOND
    await record(database, make_ending(run, ExecutionStatus.RETRYING, next_attempt_at=retry_at))
    for moment, numbers in ((retry_at - MICROSECOND, []), (retry_at, [2])):
        claimed, unreadable = await database.write(
            run_repository.claim_runs, found, make_claim(now=moment)
        )
        assert ([one.attempt.number for one in claimed], unreadable) == (numbers, [])


async def test_a_clock_set_back_keeps_no_run_from_being_claimed(database: Database):
    """What was ready before the step is claimed though its time is to come again."""
    await add_job(database)
    await add_rows(database, make_row(next_attempt_at=NOW + 60 * SECOND))
    run = await claim_one(database, now=NOW)
    assert run.attempt.started_at == NOW


async def test_a_claim_commits_the_attempt_with_owner_fence_and_lease(database: Database):
    """Before anything is sent, the row says who may send, as which attempt, until when."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    columns = "status, owner, fence, lease_until_us, attempts, started_us, attempt_started_us"
    rows = await database.rows(f"SELECT {columns}, next_attempt_us FROM executions")  # noqa: S608 - constant
    assert rows == [
        {
            "status": "running",
            "owner": OWNER,
            "fence": FENCE,
            "lease_until_us": rows[0]["lease_until_us"],
            "attempts": 1,
            "started_us": NOW_US + 1_000_000,
            "attempt_started_us": NOW_US + 1_000_000,
            "next_attempt_us": None,
        }
    ]
    assert (run.fence, run.retries, run.first_started_at) == (FENCE, 0, NOW + SECOND)
    # The claim at +1 s (PostgreSQL: by its own clock), the timeout of 30 s, the margin of 10 s.
    lease = from_us(int(rows[0]["lease_until_us"])) - 40 * SECOND
    if database.kind is DatabaseKind.SQLITE:
        assert lease == NOW + SECOND
    else:
        assert abs(lease - SystemClock().now()) < 10 * SECOND


async def test_a_claimed_run_carries_what_its_attempt_needs(database: Database):
    """Target, timeout, number and due instant come from the revision that was due."""
    job = await add_job(database)
    assert job.definition is not None
    await add_rows(database, make_row())
    edited = replace(job, revision=2, definition=make_definition(name="Edited"))
    await database.write(
        job_repository.save_job, edited, Change.EDITED, accounted=edited.cursor, actor=None
    )
    run = await claim_one(database)
    assert run.delivery == job.definition.delivery
    assert run.policy == job.definition.policy
    assert run.attempt.execution_id == make_row().id
    assert run.attempt.job_revision == 1
    assert run.attempt.number == 1
    assert run.attempt.scheduled_for == NOW
    assert run.attempt.started_at == NOW + SECOND
    assert run.attempt.timeout == timedelta(seconds=30)
    assert run.attempt.target == job.definition.delivery.target


async def test_a_second_claim_takes_nothing(database: Database):
    """What is claimed once cannot be claimed again, by whomever."""
    await add_job(database)
    await add_rows(database, make_row())
    runs = await list_waiting(database)
    first, _ = await database.write(run_repository.claim_runs, runs, make_claim())
    again, unreadable = await database.write(
        run_repository.claim_runs, runs, make_claim(owner="another:2", fence=FENCE + 1)
    )
    assert len(first) == 1
    assert (again, unreadable) == ([], [])
    assert await database.rows("SELECT owner, attempts FROM executions") == [
        {"owner": OWNER, "attempts": 1}
    ]


async def test_a_claim_leaves_out_what_was_cancelled_meanwhile(database: Database):
    """Between reading and claiming an execution may end; the others are claimed."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(), make_row(0, OTHER))
    runs = await list_waiting(database)
    await database.write(
        execution_repository.cancel_waiting, JOB, reason=Reason.USER, now_us=NOW_US
    )
    claimed, _ = await database.write(run_repository.claim_runs, runs, make_claim())
    assert [run.attempt.execution_id for run in claimed] == [make_row(0, OTHER).id]
    assert (await found(database, make_row().id)).status is ExecutionStatus.CANCELLED


async def test_a_claim_of_nothing_takes_nothing(database: Database):
    """An empty batch is allowed."""
    assert await database.write(run_repository.claim_runs, [], make_claim()) == ([], [])


async def test_more_runs_than_a_statement_takes_are_claimed_at_once(database: Database):
    """A batch of 600 is claimed whole."""
    await add_job(database)
    await add_rows(database, *(make_row(number, exclusive=False) for number in range(600)))
    claimed, _ = await claim_all(database)
    assert len(claimed) == 600
    assert await database.rows("SELECT status, count(*) AS n FROM executions GROUP BY status") == [
        {"status": "running", "n": 600}
    ]


async def test_of_two_exclusive_runs_of_a_job_one_is_claimed(database: Database):
    """Where a job allows one running execution the second goes on waiting, others are claimed."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(1), make_row(2), make_row(3, OTHER))
    claimed, _ = await claim_all(database)
    assert [run.attempt.execution_id for run in claimed] == [
        make_row(1).id,
        make_row(3, OTHER).id,
    ]
    again, _ = await claim_all(database)
    assert again == []
    assert [run.id for run in await list_waiting(database)] == [make_row(2).id]


@pytest.mark.parametrize("column", ["policy", "delivery"])
async def test_an_unreadable_revision_is_not_claimed(database: Database, column: str):
    """A run whose definition cannot be read is told apart and goes on waiting."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(), make_row(0, OTHER))
    runs = await list_waiting(database)
    await break_job(database, column)
    claimed, unreadable = await database.write(run_repository.claim_runs, runs, make_claim())
    assert [run.attempt.execution_id for run in claimed] == [make_row(0, OTHER).id]
    assert unreadable == [
        UnreadableRun(execution_id=make_row().id, problem=f"the stored {column} cannot be read")
    ]
    assert (await found(database, make_row().id)).status is ExecutionStatus.QUEUED


@pytest.mark.parametrize(
    "status", [ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.UNKNOWN], ids=str
)
async def test_an_ending_is_final(database: Database, status: ExecutionStatus):
    """The last attempt's outcome ends the execution; owner, fence and lease are given up."""
    await add_job(database)
    await add_rows(database, make_row())
    ending = make_ending(await claim_one(database), status)
    assert await record(database, ending) == [ending]
    execution = await found(database, make_row().id)
    assert execution.status is status
    assert execution.reason == ending.reason
    assert execution.finished_at == ending.ended_at
    assert execution.http_status == ending.outcome.http_status
    assert execution.response_bytes == ending.outcome.response_bytes
    assert execution.response_excerpt == ending.outcome.response_excerpt
    assert execution.error == ending.outcome.error
    assert await database.rows("SELECT owner, fence, lease_until_us FROM executions") == [
        {"owner": None, "fence": None, "lease_until_us": None}
    ]
    assert await database.rows("SELECT * FROM attempts") == []


@pytest.mark.parametrize("changes", NOT_THE_OWNER, ids=str)
async def test_who_does_not_own_a_run_does_not_end_it(
    database: Database, changes: dict[str, object]
):
    """An ending under another owner, fence or number writes nothing and says so."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    for status in (ExecutionStatus.COMPLETED, ExecutionStatus.RETRYING):
        assert await record(database, make_ending(run, status, **changes)) == []
    assert (await found(database, make_row().id)).status is ExecutionStatus.RUNNING
    assert await database.rows("SELECT * FROM attempts") == []


async def test_an_ending_is_written_once(database: Database):
    """The same ending written again, after an unclear commit, changes nothing."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.COMPLETED))
    before = await found(database, make_row().id)
    assert await record(database, make_ending(run, ExecutionStatus.RETRYING)) == []
    assert await found(database, make_row().id) == before


async def test_foreign_endings_do_not_hold_up_owned_ones(database: Database):
    """Of endings written together, those of runs owned are written."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(), make_row(0, OTHER))
    mine, theirs = (await claim_all(database))[0]
    good = make_ending(mine, ExecutionStatus.COMPLETED)
    lost = make_ending(theirs, ExecutionStatus.COMPLETED, owner="another:2")
    assert await record(database, lost, good) == [good]


async def test_of_two_endings_of_one_run_only_the_owned_one_is_written(database: Database):
    """A zombie's ending, in one batch with the owner's, is neither written nor answered."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    zombie = make_ending(run, ExecutionStatus.RETRYING, fence=FENCE - 1)
    owned = make_ending(run, ExecutionStatus.COMPLETED)
    assert await record(database, zombie, owned) == [owned]
    assert await database.rows("SELECT * FROM attempts") == []


async def test_no_endings_are_no_statement(database: Database):
    """Recording nothing is allowed."""
    assert await record(database) == []


async def test_a_retry_keeps_the_attempt_and_waits(database: Database):
    """The attempt moves to its own row, and the execution waits for its next one."""
    await add_job(database)
    await add_rows(database, make_row())
    ending = make_ending(await claim_one(database), ExecutionStatus.RETRYING)
    await record(database, ending)
    execution = await found(database, make_row().id)
    assert execution.status is ExecutionStatus.RETRYING
    assert execution.next_attempt_at == ending.next_attempt_at
    assert execution.finished_at is None
    columns = "number, started_us, ended_us, outcome, reason, http_status, response_excerpt, error"
    assert await database.rows(f"SELECT {columns} FROM attempts") == [  # noqa: S608 - constant
        {
            "number": 1,
            "started_us": NOW_US + 1_000_000,
            "ended_us": NOW_US + 2_000_000,
            "outcome": "response",
            "reason": "status",
            "http_status": 503,
            "response_excerpt": "no",
            "error": "The target answered 503",
        }
    ]


async def test_the_next_attempt_starts_clean_and_counts_on(database: Database):
    """A second claim raises number and retries, keeps the first start, and forgets the answer."""
    await add_job(database)
    await add_rows(database, make_row())
    await record(database, make_ending(await claim_one(database), ExecutionStatus.RETRYING))
    again = await claim_one(database, now=NOW + timedelta(minutes=1))
    assert (again.attempt.number, again.retries) == (2, 1)
    assert again.first_started_at == NOW + SECOND
    execution = await found(database, make_row().id)
    assert (execution.attempts, execution.started_at) == (2, NOW + SECOND)
    assert (execution.reason, execution.http_status, execution.error) == (None, None, None)
    assert (execution.response_bytes, execution.response_excerpt) == (None, None)


@pytest.mark.parametrize("reason", [Reason.PAUSED, Reason.JOB_DELETED, Reason.OVERLAP], ids=str)
async def test_a_stopped_run_is_cancelled_instead_of_retried(database: Database, reason: Reason):
    """No attempt follows one whose job was paused or deleted meanwhile; its outcome is kept."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await database.write(execution_repository.stop_running, JOB, reason=reason)
    ending = make_ending(run, ExecutionStatus.RETRYING)
    written = await record(database, ending)
    assert [(end.status, end.reason, end.next_attempt_at) for end in written] == [
        (ExecutionStatus.CANCELLED, reason, None)
    ]
    execution = await found(database, make_row().id)
    assert (execution.status, execution.reason) == (ExecutionStatus.CANCELLED, reason)
    assert (execution.finished_at, execution.http_status) == (ending.ended_at, 503)
    listed = await database.read(execution_repository.list_attempts, make_row().id)
    assert [(attempt.number, attempt.http_status) for attempt in listed] == [(1, 503)]


@pytest.mark.parametrize("status", [ExecutionStatus.COMPLETED, ExecutionStatus.FAILED], ids=str)
async def test_a_stopped_run_that_ends_by_itself_ends_so(
    database: Database, status: ExecutionStatus
):
    """A stop changes only what would have been tried again."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await database.write(execution_repository.stop_running, JOB, reason=Reason.PAUSED)
    await record(database, make_ending(run, status))
    assert (await found(database, make_row().id)).status is status


async def test_orphans_are_the_runs_whose_lease_is_over(database: Database):
    """A lease that ends exactly then still holds; without an instant all that run are read."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row())
    await claim_all(database)
    await add_rows(database, make_row(0, OTHER))
    await claim_all(database, now=NOW + timedelta(hours=1))
    both = [make_row().id, make_row(0, OTHER).id]

    async def orphans(now: datetime | None, *, limit: int = 10) -> list[ExecutionId]:
        rows = await database.read(orphan_repository.orphan_runs, now=now, limit=limit)
        return [row.execution_id for row in rows]

    lease_end = NOW + 41 * SECOND
    if database.kind is DatabaseKind.SQLITE:
        assert await orphans(lease_end) == []
        assert await orphans(lease_end + MICROSECOND) == both[:1]
    else:
        # The server's clock decides, whatever a replica's shows.
        assert await orphans(NOW + timedelta(days=36500)) == []
        over = sa.update(executions).where(executions.c.job_id == JOB).values(lease_until_us=1)
        await database.write(lambda connection: connection.execute(over))
        assert await orphans(NOW - timedelta(days=3650)) == both[:1]
    assert await orphans(None) == both
    assert await orphans(None, limit=1) == both[:1]


async def test_an_orphan_can_be_ended_under_its_old_owner(database: Database):
    """What is read of an orphan is enough to settle it by compare-and-set."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    (orphan,) = await database.read(orphan_repository.orphan_runs, now=None, limit=1)
    assert (orphan.owner, orphan.fence, orphan.number) == (OWNER, FENCE, 1)
    assert (orphan.job_id, orphan.host, orphan.retries) == (JOB, "target.test:80", 0)
    assert orphan.attempt_started_at == run.attempt.started_at
    assert orphan_repository.on_crash(orphan) is OnCrash.RETRY
    outcome = orphan_repository.lost(orphan)
    ending = make_ending(run, ExecutionStatus.RETRYING, outcome=outcome, reason=Reason.CRASH)
    assert await record(database, ending) == [ending]
    assert await database.rows("SELECT outcome, reason, http_status FROM attempts") == [
        {"outcome": "lost", "reason": "crash", "http_status": None}
    ]


async def test_an_orphan_of_an_unreadable_job_is_not_sent_again(database: Database):
    """Who cannot say what a crash means gets no second attempt."""
    await add_job(database)
    await add_rows(database, make_row())
    await claim_one(database)
    await break_job(database, "policy")
    (orphan,) = await database.read(orphan_repository.orphan_runs, now=None, limit=1)
    assert orphan.policy is None
    assert orphan_repository.on_crash(orphan) is OnCrash.FAIL


@pytest.mark.parametrize("outcome", list(AttemptOutcome), ids=str)
async def test_every_outcome_can_be_recorded(database: Database, outcome: AttemptOutcome):
    """Each way an attempt can end is taken by its row and by its execution's."""
    await add_job(database)
    await add_rows(database, make_row())
    status = 503 if outcome is AttemptOutcome.RESPONSE else None
    came_to = Outcome(kind=outcome, reason=Reason.STATUS, http_status=status, error="It failed")
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.RETRYING, outcome=came_to))
    again = await claim_one(database, now=NOW + timedelta(minutes=1))
    await record(database, make_ending(again, ExecutionStatus.FAILED, outcome=came_to))
    listed = await database.read(execution_repository.list_attempts, make_row().id)
    assert [attempt.outcome for attempt in listed] == [outcome, outcome]


async def test_every_cause_and_reason_can_be_stored(database: Database):
    """No word of the ledger is refused by a constraint."""
    await add_job(database)
    by_cause = [make_row(id=random_execution_id(), cause=c, clock_epoch=n)
                for n, c in enumerate(Cause)]  # fmt: skip
    by_reason = [make_unrun(number, reason=reason) for number, reason in enumerate(Reason, start=1)]
    await add_rows(database, *by_cause, *by_reason)
    kept = await read_history(database)
    assert {execution.cause for execution in kept} == set(Cause)
    assert {execution.reason for execution in kept} == {None, *Reason}


async def test_a_waiting_run_goes_by_the_definition_it_was_queued_with(database: Database):
    """After an edit a waiting run counts against the host that it will call, not the new one."""
    job = await add_job(database)
    await add_rows(database, make_row(1))
    assert job.definition is not None
    delivery = job.definition.delivery
    moved = replace(delivery, target=replace(delivery.target, url="http://other.test:8080/hook"))
    edited = replace(job, revision=2, definition=replace(job.definition, delivery=moved))
    await database.write(
        job_repository.save_job, edited, Change.EDITED, accounted=edited.cursor, actor=None
    )
    await add_rows(database, make_row(2, job_revision=2))
    first, second = await list_waiting(database)
    assert first.host != "other.test:8080"
    assert second.host == "other.test:8080"


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="with SQLite there is no other process")
async def test_replicas_share_a_jobs_limit(postgres: Database):
    """Of claims made by several processes at once, no more are granted than the job may run."""
    policy = replace(make_definition().policy, max_instances=2)
    await add_job(postgres, definition=make_definition(policy=policy))
    await add_rows(postgres, *(make_row(number, exclusive=False) for number in range(6)))
    runs = await list_waiting(postgres)
    assert {run.job_slots for run in runs} == {2}
    claims = [
        postgres.write(run_repository.claim_runs, [run], make_claim(owner=f"replica:{number}"))
        for number, run in enumerate(runs)
    ]
    granted = [claimed for answer, _ in await asyncio.gather(*claims) for claimed in answer]
    assert len(granted) == 2
    owner = granted_by(runs, granted[0])
    await record(postgres, make_ending(granted[0], ExecutionStatus.COMPLETED, owner=owner))
    rest = [run for run in runs if run.id not in {one.attempt.execution_id for one in granted}]
    again, _ = await postgres.write(run_repository.claim_runs, rest, make_claim())
    assert len(again) == 1


def granted_by(runs: list[WaitingRun], claimed: ClaimedRun) -> str:
    return f"replica:{[run.id for run in runs].index(claimed.attempt.execution_id)}"
