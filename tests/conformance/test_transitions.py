"""Which changes the database itself refuses: the old state against the new one, whoever writes."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.db.unit_of_work import WriteConnection
from tests.conformance.builders import NOW_US
from tests.conformance.test_constraints import (
    ATTEMPT,
    ENDED,
    FINAL,
    JOB,
    QUEUED,
    RETRYING,
    RUNNING,
    TERM,
    insert,
    update,
)
from tests.support.births import any_birth
from tests.support.databases import Database

ALLOWED = "allowed"
NO_BIRTH = "an execution is born queued, skipped or missed"
NO_STEP = "an execution takes no such step"
OVER = "an execution that ended never changes"
BORN_AS = "an execution stays the one it was born as"
JOB_STEP = "a job takes no such step"
SENTENCES = (NO_BIRTH, NO_STEP, OVER, BORN_AS, JOB_STEP, "a job's revision never goes back")

ROWS: dict[str, dict[str, Any]] = {
    "queued": QUEUED,
    "running": RUNNING,
    "retrying": RETRYING,
    **{status: {**ENDED, "status": status, **shape} for status, shape in FINAL.items()},
}
BORN = {"queued", "skipped", "missed"}
# What is not named here is refused; a final status allows nothing.
STEPS = {
    "queued": {"queued", "running", "cancelled"},
    "retrying": {"retrying", "running", "cancelled"},
    "running": {"running", "retrying", "completed", "failed", "cancelled", "unknown"},
}
STATES = ("active", "paused", "finished", "broken", "deleted")
JOB_STEPS = {
    "active": set(STATES),
    "paused": set(STATES),
    "finished": {"active", "finished", "broken", "deleted"},
    "broken": {"active", "finished", "broken", "deleted"},
    "deleted": {"deleted"},
}
# All that a change of status changes.
_SHAPE = ("status", "reason", "owner", "fence", "lease_until_us", "next_attempt_us", "finished_us",
          "attempt_started_us", "http_status")  # fmt: skip
_REVISED = {"revision": 2}


class _UndoneError(Exception):
    """A change was made, and is not to stay."""


async def verdict(
    database: Database, table: str, row: dict[str, Any], change: dict[str, Any] | None
) -> str:
    """Store a row and change it (None: nothing more), undo that; tell the refusal's sentence."""

    def unit(connection: WriteConnection) -> None:
        metadata = sa.MetaData()
        target = sa.Table(table, metadata, autoload_with=connection)
        if table == "executions" and change is not None:
            with any_birth(connection):
                connection.execute(sa.insert(target), row)
        else:
            connection.execute(sa.insert(target), row)
        if change is not None:
            assert connection.execute(sa.update(target).values(change)).rowcount == 1
        raise _UndoneError

    try:
        await database.unit_of_work.write(unit)
    except _UndoneError:
        return ALLOWED
    except IntegrityError as refusal:
        said = str(refusal.orig)
        return next((sentence for sentence in SENTENCES if sentence in said), said)
    raise AssertionError("one of the two is always raised")


def shape_of(status: str, *, attempts: int) -> dict[str, Any]:
    """Describe the change of an execution to a status that fits it in every other column."""
    row = {"http_status": None, "owner": None, "fence": None, **ROWS[status]}
    return {name: row.get(name) for name in _SHAPE} | {"attempts": attempts}


def becoming(old: str, new: str) -> dict[str, Any]:
    """Describe a change of status, with the count of attempts that suits it best."""
    attempts: int = ROWS[old]["attempts"]
    if new == "running" and old in {"queued", "retrying"}:
        attempts += 1
    elif new in {"skipped", "missed"}:
        attempts = 0
    elif new == "completed":
        attempts = max(attempts, 1)
    return shape_of(new, attempts=attempts)


async def test_births(database: Database):
    """An execution begins as queued, skipped or missed, with no attempt, and as nothing else."""
    await insert(database, "jobs", JOB)
    found = {status: await verdict(database, "executions", ROWS[status], None) for status in ROWS}
    assert found == {status: ALLOWED if status in BORN else NO_BIRTH for status in ROWS}
    attempted = {**QUEUED, "attempts": 1}
    assert await verdict(database, "executions", attempted, None) == NO_BIRTH


@pytest.mark.parametrize("old", ROWS)
async def test_an_execution_goes_its_way(database: Database, old: str):
    """Of all statuses that a status could change to, the database lets those through that may."""
    await insert(database, "jobs", JOB)
    expected = {
        new: OVER if old in FINAL else ALLOWED if new in STEPS[old] else NO_STEP for new in ROWS
    }
    found = {
        new: await verdict(database, "executions", ROWS[old], becoming(old, new)) for new in ROWS
    }
    assert found == expected


FIFTH = {**RUNNING, "attempts": 5, "fence": 5}
REFUSED_STEPS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a claim that counts no attempt", RETRYING, shape_of("running", attempts=1)),
    ("a claim that skips an attempt", QUEUED, shape_of("running", attempts=2)),
    ("a first attempt withdrawn, and counted", RUNNING, shape_of("queued", attempts=1)),
    ("a later attempt queued anew", FIFTH, shape_of("queued", attempts=0)),
    ("two attempts withdrawn", FIFTH, shape_of("retrying", attempts=3)),
    ("an only attempt withdrawn, to retry", RUNNING, shape_of("retrying", attempts=0)),
    ("an attempt more at a retry", FIFTH, shape_of("retrying", attempts=6)),
    ("an attempt less at the end", FIFTH, shape_of("completed", attempts=4)),
    ("an attempt more at the end", FIFTH, shape_of("failed", attempts=6)),
    ("an attempt less at a cancellation", RETRYING, shape_of("cancelled", attempts=0)),
    ("a failure of what waits", QUEUED, shape_of("failed", attempts=0)),
    ("a failure of what waits, counted", RETRYING,
     {**shape_of("failed", attempts=2), "reason": "broken"}),
    ("attempts that go back", FIFTH, {"attempts": 1}),
    ("attempts that go on by themselves", FIFTH, {"attempts": 6}),
    ("attempts of what waits", RETRYING, {"attempts": 0}),
    ("a fence that goes back", FIFTH, {"fence": 4}),
    ("a fence that goes on", FIFTH, {"fence": 6}),
    ("another owner", FIFTH, {"owner": "zombie:1"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "change"), [case[1:] for case in REFUSED_STEPS],
                         ids=[case[0] for case in REFUSED_STEPS])  # fmt: skip
async def test_a_step_that_miscounts_is_refused(
    database: Database, row: dict[str, Any], change: dict[str, Any]
):
    """A status that may follow does so with its own count of attempts, and under its owner."""
    await insert(database, "jobs", JOB)
    assert await verdict(database, "executions", row, change) == NO_STEP


ALLOWED_STEPS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a first claim withdrawn", RUNNING, shape_of("queued", attempts=0)),
    ("a later claim withdrawn", FIFTH, shape_of("retrying", attempts=4)),
    ("a run that cannot be read", QUEUED, {**shape_of("failed", attempts=0), "reason": "broken"}),
    ("a retry that cannot be read", RETRYING,
     {**shape_of("failed", attempts=1), "reason": "broken"}),
    ("a lease renewed", FIFTH, {"lease_until_us": NOW_US + 1}),
    ("a stop that is to come", FIFTH, {"stop_reason": "user"}),
    ("a wait that is shorter", QUEUED, {"next_attempt_us": NOW_US - 1}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "change"), [case[1:] for case in ALLOWED_STEPS],
                         ids=[case[0] for case in ALLOWED_STEPS])  # fmt: skip
async def test_what_the_program_needs_beside_is_allowed(
    database: Database, row: dict[str, Any], change: dict[str, Any]
):
    """Claims are withdrawn, leases renewed, stops noted, waits shortened, the unreadable ended."""
    await insert(database, "jobs", JOB)
    assert await verdict(database, "executions", row, change) == ALLOWED


@pytest.mark.parametrize("row", [QUEUED, RUNNING, RETRYING], ids=lambda row: row["status"])
async def test_an_open_execution_stays_the_one_it_is(database: Database, row: dict[str, Any]):
    """Its number, id, job, revision, epoch, cause, instant, exclusiveness and birth never change.

    Writing them as they are is no change.
    """
    for job in (JOB, {**JOB, "id": "other"}):
        await insert(database, "jobs", job)
    others: dict[str, Any] = {
        "seq": 99, "id": "another", "job_id": "other", "job_revision": 2, "clock_epoch": 1,
        "cause": "manual", "scheduled_us": 5, "exclusive": 0, "queued_us": 5,
    }  # fmt: skip
    found = {
        name: await verdict(database, "executions", row, {name: value})
        for name, value in others.items()
    }
    assert found == dict.fromkeys(others, BORN_AS)
    same = {name: row[name] for name in others if name != "seq"}
    assert await verdict(database, "executions", row, same) == ALLOWED


@pytest.mark.parametrize("old", STATES)
async def test_a_job_goes_its_way(database: Database, old: str):
    """With a new revision a job changes to the states that may follow, and to no other."""
    row = {**JOB, "state": old, "next_run_us": None}
    found = {
        new: await verdict(database, "jobs", row, {"state": new, **_REVISED}) for new in STATES
    }
    assert found == {new: ALLOWED if new in JOB_STEPS[old] else JOB_STEP for new in STATES}


@pytest.mark.parametrize("old", STATES)
async def test_a_job_changes_with_its_revision(database: Database, old: str):
    """Without a new revision a job's state stays; only a tick finishes an active one."""
    row = {**JOB, "state": old, "next_run_us": None}
    found = {new: await verdict(database, "jobs", row, {"state": new}) for new in STATES}
    allowed = {old, "finished"} if old == "active" else {old}
    assert found == {new: ALLOWED if new in allowed else JOB_STEP for new in STATES}


async def test_an_id_is_used_again_in_a_later_epoch_only(database: Database):
    """A deleted job's id may be a new job's, whose instants are its own."""
    tombstone = {**JOB, "state": "deleted", "next_run_us": None}
    for state in STATES:
        change = {"state": state, "clock_epoch": 2, **_REVISED}
        expected = ALLOWED if state in {"active", "deleted"} else JOB_STEP
        assert await verdict(database, "jobs", tombstone, change) == expected


async def test_a_revision_never_goes_back(database: Database):
    """The number of a job's revision grows, or stays."""
    row = {**JOB, "revision": 5}
    expected = {4: "a job's revision never goes back", 5: ALLOWED, 6: ALLOWED}
    found = {number: await verdict(database, "jobs", row, {"revision": number})
             for number in expected}  # fmt: skip
    assert found == expected


async def test_a_term_never_goes_back(database: Database):
    """The number of a leader's term grows, or stays."""
    await insert(database, "leadership", {**TERM, "term": 5})
    for term in (5, 6):
        assert await update(database, "leadership", term=term) == 1
    with pytest.raises(IntegrityError, match="a term never goes back"):
        await update(database, "leadership", term=5)


@pytest.mark.parametrize("row", [QUEUED, RUNNING, RETRYING], ids=lambda row: row["status"])
async def test_an_attempt_stays_while_its_execution_is_open(
    database: Database, row: dict[str, Any]
):
    """What was sent for a run that has not ended is not forgotten."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", row)
    await insert(database, "attempts", ATTEMPT)
    with pytest.raises(IntegrityError, match="an attempt stays while its execution is open"):
        await database.execute("DELETE FROM attempts")


@pytest.mark.parametrize("status", FINAL)
async def test_an_attempt_goes_with_its_execution(database: Database, status: str):
    """Once a run has ended, its attempts may be removed."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", ROWS[status])
    await insert(database, "attempts", ATTEMPT)
    assert await database.execute("DELETE FROM attempts") == 1
