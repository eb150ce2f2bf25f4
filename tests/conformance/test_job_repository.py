from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from app.domain.ids import JobId
from app.domain.job import BodyType, Change, Delivery, HttpTarget, Job, JobDefinition, JobState
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy, RetryPolicy, RunPolicy
from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    DstFold,
    DstGap,
    IntervalRule,
    Rule,
    Schedule,
)
from app.repositories import job_list_repository, job_repository
from app.repositories.job_repository import Advance, BrokenJob
from tests.conformance.builders import (
    JOB,
    NOW,
    SECOND,
    add_job,
    break_job,
    make_definition,
    make_job,
)
from tests.support.databases import Database

MINUTE = timedelta(minutes=1)
UNKNOWN = JobId("unknown")

RULES: list[Rule] = [
    CronRule(fields=(("day_of_week", "mon-fri"), ("hour", "9"), ("second", "0"))),
    CrontabRule(expression="*/5 9-17 * * 1-5"),
    IntervalRule(period=timedelta(hours=36), parts=(("days", 1), ("hours", 12))),
    DateRule(run_at=NOW + MINUTE),
]


async def stored(database: Database, job_id: str = JOB) -> Job:
    found = await database.read(job_repository.find_job, JobId(job_id))
    assert found is not None
    return found


def make_advance(job: Job, **changes: object) -> Advance:
    assert job.next_run_time is not None
    step = Advance(
        job_id=job.id,
        revision=job.revision,
        was=job.next_run_time,
        accounted_until=job.next_run_time,
        next_run_time=job.next_run_time + MINUTE,
    )
    return replace(step, **changes)  # type: ignore[arg-type]  # fields named by tests


def fullest_definition(rule: Rule) -> JobDefinition:
    return JobDefinition(
        name="Everything said",
        schedule=Schedule(
            rule=rule,
            timezone="America/New_York",
            start_at=NOW,
            end_at=NOW + timedelta(days=365),
            jitter=timedelta(seconds=2.5),
            dst_gap=DstGap.SHIFT,
            dst_fold=DstFold.BOTH,
        ),
        policy=RunPolicy(
            misfire_grace=None,
            catch_up=CatchUp.ALL,
            catch_up_window=timedelta(hours=6),
            catch_up_max_runs=7,
            overlap=OverlapPolicy.QUEUE_ALL,
            max_instances=3,
            on_crash=OnCrash.FAIL,
        ),
        delivery=Delivery(
            target=HttpTarget(
                method="PATCH",
                url="https://api.example:8443/a?x=%41%2Fb",
                headers=(("X-One", "1"), ("x-one", "2")),
                body_json='{"b":null}',
                body_type=BodyType.FORM,
                follow_redirects=True,
            ),
            timeout=timedelta(seconds=1.5),
            retry=RetryPolicy(
                max_retries=9,
                first_wait=timedelta(milliseconds=250),
                wait_max=timedelta(minutes=3),
                retry_statuses=frozenset({404, 409}),
            ),
        ),
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
async def test_a_stored_job_is_read_back_whole(database: Database, rule: Rule):
    """What a job was stored with is what is read: each field of its definition and state."""
    job = await add_job(database, definition=fullest_definition(rule), execution_count=12)
    assert await stored(database) == job


async def test_a_job_without_a_next_run_is_read_back(database: Database):
    """A paused job has no next run time, and keeps why it is paused."""
    job = await add_job(
        database, state=JobState.PAUSED, state_reason="maintenance", next_run_time=None
    )
    assert await stored(database) == job


async def test_an_unknown_job_is_none(database: Database):
    """A job that does not exist is read as None, for change too."""
    assert await database.read(job_repository.find_job, UNKNOWN) is None
    assert await database.write(job_repository.find_job_for_change, UNKNOWN) is None


async def test_a_deleted_job_is_a_tombstone(database: Database):
    """A deleted job is not found, listed or counted, but whoever changes it sees it."""
    job = await add_job(database, state=JobState.DELETED, next_run_time=None)
    assert await database.read(job_repository.find_job, JOB) is None
    assert await database.read(job_list_repository.read_all_jobs) == []
    assert await database.read(job_repository.count_jobs) == 0
    assert await database.write(job_repository.find_job_for_change, JOB) == job


async def test_a_second_job_of_one_id_is_refused(database: Database):
    """Two jobs cannot have one id."""
    await add_job(database)
    with pytest.raises(IntegrityError):
        await add_job(database)


async def test_a_new_job_is_accounted_up_to_its_anchor(database: Database):
    """The cursor of a new job is where its schedule begins."""
    await add_job(database)
    assert (await stored(database)).cursor == NOW


async def test_a_new_job_has_its_first_revision(database: Database):
    """Creating a job writes down who created what."""
    await database.write(job_repository.insert_job, make_job(), actor="alice")
    rows = await database.rows("SELECT job_id, revision, change, actor, state FROM job_revisions")
    assert rows == [
        {"job_id": JOB, "revision": 1, "change": "created", "actor": "alice", "state": "active"}
    ]


async def test_a_saved_job_replaces_the_stored_one(database: Database):
    """Saving a job changes every field, moves the cursor and writes a revision."""
    job = await add_job(database)
    changed = replace(
        job,
        revision=2,
        definition=make_definition(name="Another name"),
        state=JobState.PAUSED,
        state_reason="holidays",
        anchor=NOW + SECOND,
        clock_epoch=1,
        cursor=NOW + timedelta(hours=1),
        next_run_time=None,
        execution_count=5,
        updated_at=NOW + SECOND,
    )
    await database.write(
        job_repository.save_job, changed, Change.PAUSED, accounted=changed.cursor, actor="bob"
    )
    assert await stored(database) == changed
    rows = await database.rows(
        "SELECT revision, change, actor, name FROM job_revisions ORDER BY revision"
    )
    assert rows == [
        {"revision": 1, "change": "created", "actor": None, "name": "A job"},
        {"revision": 2, "change": "paused", "actor": "bob", "name": "Another name"},
    ]


async def test_a_saved_state_leaves_the_definition_as_it_is(database: Database):
    """Saving a state changes state, next run time and cursor, of unreadable jobs too."""
    job = await add_job(database)
    await break_job(database, "policy")
    deleted = replace(
        job,
        revision=2,
        state=JobState.DELETED,
        next_run_time=None,
        cursor=NOW + SECOND,
        updated_at=NOW + SECOND,
    )
    await database.write(
        job_repository.save_state, deleted, Change.DELETED, accounted=deleted.cursor, actor="bob"
    )
    found = await database.write(job_repository.find_job_for_change, JOB)
    assert found == replace(
        deleted, definition=None, state_reason="the stored policy cannot be read"
    )
    rows = await database.rows(
        "SELECT change, actor, state FROM job_revisions ORDER BY revision DESC LIMIT 1"
    )
    assert rows == [{"change": "deleted", "actor": "bob", "state": "deleted"}]


async def test_a_job_is_saved_on_the_revision_it_was_read_at(database: Database):
    """A change that was made on an older revision stores nothing."""
    job = await add_job(database)
    late = replace(job, revision=3, definition=make_definition(name="Too late"))
    with pytest.raises(AssertionError, match="read for change"):
        await database.write(
            job_repository.save_job, late, Change.EDITED, accounted=late.cursor, actor=None
        )
    assert await stored(database) == job


async def test_jobs_are_listed_soonest_first_and_idle_ones_last(database: Database):
    """The list is ordered by next run time, then id; jobs without one come last."""
    await add_job(database, "b-idle", state=JobState.PAUSED, next_run_time=None)
    await add_job(database, "d-late", next_run_time=NOW + 2 * MINUTE)
    await add_job(database, "c-soon")
    await add_job(database, "a-idle", state=JobState.FINISHED, next_run_time=None)
    await add_job(database, "b-soon")
    listed = await database.read(job_list_repository.read_all_jobs)
    assert [job.id for job in listed] == ["b-soon", "c-soon", "d-late", "a-idle", "b-idle"]
    first = await database.read(job_list_repository.read_jobs, limit=2)
    assert [job.id for job in first.jobs] == ["b-soon", "c-soon"]
    assert await database.read(job_repository.count_jobs) == 5


@pytest.mark.parametrize("column", ["schedule", "policy", "delivery"])
async def test_an_unreadable_job_is_listed_as_broken(database: Database, column: str):
    """A job whose definition cannot be read is still found, as broken, with the reason."""
    await add_job(database)
    await break_job(database, column)
    found = await stored(database)
    assert found.state is JobState.BROKEN
    assert found.definition is None
    assert found.state_reason == f"the stored {column} cannot be read"


async def test_due_jobs_are_those_due_by_an_instant_soonest_first(database: Database):
    """A job due exactly then is among them, a microsecond later it is not."""
    until = NOW + 5 * MINUTE
    await add_job(database, "exactly", next_run_time=until)
    await add_job(database, "after", next_run_time=until + timedelta(microseconds=1))
    await add_job(database, "before", next_run_time=until - timedelta(microseconds=1))
    await add_job(database, "idle", state=JobState.PAUSED, next_run_time=None)
    due, broken = await database.read(job_repository.due_jobs, until=until, limit=10)
    assert [job.id for job in due] == ["before", "exactly"]
    assert broken == []
    first, _ = await database.read(job_repository.due_jobs, until=until, limit=1)
    assert [job.id for job in first] == ["before"]


async def test_a_due_job_carries_what_a_tick_needs(database: Database):
    """Schedule, policy, anchor, revision, epoch and the host's key come with a due job."""
    job = await add_job(database, clock_epoch=3, revision=2)
    (due,), _ = await database.read(job_repository.due_jobs, until=NOW + MINUTE, limit=1)
    assert job.definition is not None
    assert (due.id, due.revision, due.clock_epoch) == (JOB, 2, 3)
    assert due.schedule == job.definition.schedule
    assert due.policy == job.definition.policy
    assert (due.anchor, due.next_run_time) == (NOW, NOW + MINUTE)
    assert due.host == "target.test:80"


@pytest.mark.parametrize("column", ["schedule", "policy"])
async def test_a_due_job_that_cannot_be_read_is_told_apart(database: Database, column: str):
    """Jobs with an unreadable schedule or policy do not hide the others that are due."""
    await add_job(database, "good")
    await add_job(database, "bad")
    await break_job(database, column, "bad")
    due, broken = await database.read(job_repository.due_jobs, until=NOW + MINUTE, limit=10)
    assert [job.id for job in due] == ["good"]
    assert broken == [
        BrokenJob(id=JobId("bad"), revision=1, problem=f"the stored {column} cannot be read")
    ]


async def test_due_jobs_by_id_are_those_with_a_next_run(database: Database):
    """Of many ids, more than one statement takes, those that have a next run time are read."""
    await add_job(database, "one")
    await add_job(database, "two", next_run_time=NOW + 1000 * MINUTE)
    await add_job(database, "idle", state=JobState.PAUSED, next_run_time=None)
    ids = [JobId(f"x{number}") for number in range(1200)]
    ids[3], ids[600], ids[1100] = JobId("one"), JobId("idle"), JobId("two")
    due, broken = await database.read(job_repository.due_jobs_by_id, ids)
    assert sorted(job.id for job in due) == ["one", "two"]
    assert broken == []


async def test_current_ticks_tell_revision_and_next_run(database: Database):
    """What a tick was planned on can be compared with what is stored; unknown ids are left out."""
    await add_job(database, "one", revision=4, next_run_time=NOW + SECOND)
    await add_job(database, "idle", state=JobState.PAUSED, next_run_time=None)
    ids = [JobId("one"), JobId("idle"), UNKNOWN]
    found = await database.write(job_repository.current_ticks, ids)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    in_us = (NOW + SECOND - epoch) // timedelta(microseconds=1)
    assert found == {"one": (4, in_us), "idle": (1, None)}


async def test_advancing_moves_cursor_and_next_run(database: Database):
    """A tick's step sets the next run time and accounts for what was due."""
    job = await add_job(database)
    await database.write(job_repository.advance_jobs, [make_advance(job)])
    assert (await stored(database)).next_run_time == NOW + 2 * MINUTE
    assert (await stored(database)).cursor == NOW + MINUTE


async def test_advancing_to_no_next_run_finishes_a_job(database: Database):
    """A job without a further instant is finished."""
    job = await add_job(database)
    await database.write(job_repository.advance_jobs, [make_advance(job, next_run_time=None)])
    found = await stored(database)
    assert (found.state, found.next_run_time) == (JobState.FINISHED, None)


@pytest.mark.parametrize(
    "stale",
    [{"revision": 2}, {"was": NOW + SECOND}, {"job_id": UNKNOWN}],
    ids=["other revision", "other next run", "other job"],
)
async def test_advancing_on_a_stale_reading_changes_nothing(
    database: Database, stale: dict[str, object]
):
    """A step counts only while revision and next run time are what was read."""
    job = await add_job(database)
    await database.write(job_repository.advance_jobs, [make_advance(job, **stale)])
    assert await stored(database) == job
    assert (await stored(database)).cursor == NOW


async def test_one_stale_step_does_not_hold_up_the_others(database: Database):
    """Of steps written together, the valid ones count."""
    jobs = [await add_job(database, f"job-{number}") for number in range(3)]
    steps = [make_advance(job) for job in jobs]
    steps[1] = replace(steps[1], revision=9)
    await database.write(job_repository.advance_jobs, steps)
    next_runs = [(await stored(database, job.id)).next_run_time for job in jobs]
    assert next_runs == [NOW + 2 * MINUTE, NOW + MINUTE, NOW + 2 * MINUTE]


async def test_no_steps_are_no_statement(database: Database):
    """Advancing nothing and counting nothing is allowed."""
    await database.write(job_repository.advance_jobs, [])
    await database.write(job_repository.count_starts, {})


async def test_starts_are_added_to_each_job(database: Database):
    """Starts count up per job, from what was stored."""
    await add_job(database, "one", execution_count=40)
    await add_job(database, "two")
    starts = {JobId("two"): 1, JobId("one"): 2, UNKNOWN: 3}
    await database.write(job_repository.count_starts, starts)
    assert (await stored(database, "one")).execution_count == 42
    assert (await stored(database, "two")).execution_count == 1


async def test_a_broken_job_leaves_the_schedule(database: Database):
    """Marking a job broken keeps its definition, says why and writes a revision."""
    job = await add_job(database)
    broken = BrokenJob(id=JOB, revision=1, problem="it computes nonsense")
    await database.write(job_repository.mark_broken, broken, now=NOW + SECOND)
    assert await stored(database) == replace(
        job,
        revision=2,
        state=JobState.BROKEN,
        state_reason="it computes nonsense",
        next_run_time=None,
        updated_at=NOW + SECOND,
    )
    rows = await database.rows(
        "SELECT revision, change, state FROM job_revisions ORDER BY revision DESC"
    )
    assert rows[0] == {"revision": 2, "change": "broken", "state": "broken"}


async def test_a_job_edited_meanwhile_is_not_marked_broken(database: Database):
    """What was found on an older revision breaks nothing."""
    job = await add_job(database, revision=2)
    broken = BrokenJob(id=JOB, revision=1, problem="it was")
    await database.write(job_repository.mark_broken, broken, now=NOW)
    assert await stored(database) == job
    assert len(await database.rows("SELECT 1 FROM job_revisions")) == 1


async def test_zones_are_told_for_every_readable_job(database: Database):
    """Deleted jobs have their zone too; unreadable and unknown ones are left out."""
    await add_job(database, "one")
    await add_job(database, "gone", state=JobState.DELETED, next_run_time=None)
    await add_job(database, "bad")
    await break_job(database, "schedule", "bad")
    ids = [JobId("one"), JobId("gone"), JobId("bad"), *[UNKNOWN] * 600]
    assert await database.read(job_repository.zones_of, ids) == {
        "one": "Asia/Tokyo",
        "gone": "Asia/Tokyo",
    }
