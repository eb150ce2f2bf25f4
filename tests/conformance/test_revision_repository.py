"""What is asked of a job's past, on each database."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.ids import JobId
from app.domain.job import Change, JobState
from app.repositories import job_repository, revision_repository
from tests.conformance.builders import (
    JOB,
    NOW,
    SECOND,
    add_job,
    add_rows,
    break_job,
    claim_one,
    make_row,
    make_unrun,
)
from tests.support.databases import Database

HOUR = timedelta(hours=1)
WHOLE = {"begin": NOW, "end": NOW + HOUR}


async def change_state(database: Database, state: JobState, change: Change, after: timedelta):
    """Store a change of the job's state, made and accounted for at a time."""

    def save(connection):
        job = job_repository.find_job_for_change(connection, JOB)
        assert job is not None
        at = NOW + after
        changed = replace(
            job, revision=job.revision + 1, state=state, next_run_time=None, cursor=at,
            updated_at=at,
        )  # fmt: skip
        job_repository.save_state(connection, changed, change, accounted=at, actor="ann")

    await database.write(save)


async def test_revisions_tell_their_spans(database: Database):
    """A revision goes from its beginning to where the next one says it has accounted."""
    await add_job(database)
    await change_state(database, JobState.PAUSED, Change.PAUSED, HOUR)
    await change_state(database, JobState.ACTIVE, Change.RESUMED, 2 * HOUR)
    found = await database.read(revision_repository.revisions_before, JOB, NOW + 3 * HOUR, limit=2)
    assert [(one.change, one.since - NOW, one.until) for one in found] == [
        (Change.RESUMED, 2 * HOUR, None),
        (Change.PAUSED, HOUR, NOW + 2 * HOUR),
    ]
    assert found[1].actor == "ann"
    (paused,) = await database.read(
        revision_repository.revisions_before, JOB, NOW + 2 * HOUR, limit=1
    )
    assert paused.state is JobState.PAUSED
    assert await database.read(revision_repository.revisions_before, JOB, NOW, limit=1) == []


async def test_changes_of_state_are_found(database: Database):
    """The change that began a state, and the one that ended it, are found by number."""
    await add_job(database)
    await change_state(database, JobState.PAUSED, Change.PAUSED, HOUR)
    await change_state(database, JobState.PAUSED, Change.EDITED, 2 * HOUR)
    await change_state(database, JobState.DELETED, Change.DELETED, 3 * HOUR)
    read = revision_repository
    began = await database.read(read.last_change, JOB, upto=3, changes=[Change.PAUSED])
    ended = await database.read(read.first_of_other_state, JOB, after=2, state=JobState.PAUSED)
    deleted = await database.read(read.first_of_state, JOB, after=1, state=JobState.DELETED)
    first = await database.read(read.first_revision, JOB)
    assert [one and one.number for one in (began, ended, deleted, first)] == [2, 4, 4, 1]
    assert await database.read(read.first_of_other_schedule, JOB, after=1) is None
    await database.execute("UPDATE job_revisions SET schedule = '{}' WHERE revision = 4")
    other = await database.read(read.first_of_other_schedule, JOB, after=1)
    assert other is not None
    assert (other.number, other.schedule) == (4, None)


async def test_where_a_job_stands(database: Database):
    """A job is found with its cursor, deleted or unreadable as it may be; an unknown one is not."""
    await add_job(database)
    await change_state(database, JobState.DELETED, Change.DELETED, HOUR)
    await break_job(database, "policy")
    await database.execute("UPDATE jobs SET pruned_us = cursor_us")
    found = await database.read(revision_repository.find_standing, JOB)
    assert found is not None
    assert (found.state, found.cursor, found.pruned_until) == (
        JobState.DELETED, NOW + HOUR, NOW + HOUR
    )  # fmt: skip
    revision = await database.read(revision_repository.find_revision, JOB, found.revision)
    assert revision is not None
    assert revision.policy is None
    assert revision.schedule is not None
    assert await database.read(revision_repository.find_standing, JobId("none")) is None


async def test_rows_of_a_span(database: Database):
    """The first due row of a span is found, the newest of equal ones, and no manual run."""
    await add_job(database)
    early = make_row(5, id="early", clock_epoch=0)
    late = make_row(5, id="late", clock_epoch=1)
    manual = make_row(4, id="manual", cause=Cause.MANUAL)
    await add_rows(database, manual, make_row(6, id="next"), early, late)
    find = revision_repository.due_entries
    (found,) = await database.read(find, JOB, {0, 1}, **WHOLE)
    assert (found.execution.id, found.born_at) == ("late", NOW)
    (found,) = await database.read(find, JOB, {0}, **WHOLE)
    assert found.execution.id == "early"
    assert await database.read(find, JOB, set(), **WHOLE) == []
    others = await database.read(revision_repository.others_about, JOB, limit=5, **WHOLE)
    assert others == ["manual"]


@pytest.mark.parametrize(
    ("begin", "found"), [(9, []), (10, ["row"]), (15, ["row"]), (20, ["row"]), (21, [])]
)
async def test_a_row_of_many_instants(database: Database, begin, found):
    """A stretch is found from its first to its last instant, both included."""
    await add_job(database)
    await add_rows(database, make_unrun(10, id="row", until=NOW + 20 * SECOND, instant_count=11))
    span = {"begin": NOW + begin * SECOND, "end": NOW + (begin + 1) * SECOND}
    entries = await database.read(revision_repository.stretches_over, JOB, {0}, **span)
    assert [entry.execution.id for entry in entries] == found


async def test_what_was_in_the_way_and_what_followed(database: Database):
    """Before a row stands the newest one not over, behind it the next that was queued."""
    await add_job(database)
    skipped: dict[str, Any] = {
        "status": ExecutionStatus.SKIPPED,
        "reason": Reason.OVERLAP,
        "next_attempt_at": None,
    }
    await add_rows(database, make_row(0, id="first", exclusive=False))
    await add_rows(database, make_row(1, id="other life", clock_epoch=1, exclusive=False))
    await add_rows(database, make_row(1, id="before", **skipped))
    await add_rows(database, make_row(2, id="row", **skipped))
    await add_rows(database, make_row(3, id="behind", **skipped))
    await add_rows(database, make_row(4, id="next", exclusive=False))
    (row,) = await database.read(
        revision_repository.due_entries, JOB, {0}, begin=NOW + 2 * SECOND, end=NOW + 3 * SECOND
    )
    assert await database.read(revision_repository.find_in_the_way, row) == "first"
    assert await database.read(revision_repository.find_successor, row) == "next"
    assert await database.read(revision_repository.find_merged_into, row) == "next"
    (last,) = await database.read(
        revision_repository.due_entries, JOB, {0}, begin=NOW + 4 * SECOND, end=NOW + 5 * SECOND
    )
    assert await database.read(revision_repository.find_successor, last) is None
    assert await database.read(revision_repository.find_merged_into, last) is None


async def test_what_runs(database: Database):
    """Running executions are counted by host, and listed by job."""
    await add_job(database)
    await add_rows(database, make_row(0, id="runs"))
    assert await database.read(revision_repository.running_of_job, JOB) == []
    await claim_one(database)
    assert await database.read(revision_repository.running_of_job, JOB) == ["runs"]
    by_host = await database.read(revision_repository.running_by_host)
    host = await database.read(revision_repository.host_of_revision, JOB, 1)
    assert by_host == {host: 1}
