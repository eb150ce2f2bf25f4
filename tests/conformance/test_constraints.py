"""What the database itself refuses, whoever writes."""

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from app.db.unit_of_work import WriteConnection
from tests.conformance.builders import NOW_US
from tests.support.births import any_birth
from tests.support.databases import Database, DatabaseKind

FINAL: dict[str, dict[str, Any]] = {
    "completed": {"attempts": 1, "http_status": 200},
    "failed": {"reason": "status"},
    "cancelled": {"reason": "user"},
    "unknown": {"reason": "crash"},
    "skipped": {"reason": "overlap"},
    "missed": {"reason": "scheduler_down"},
}

JOB: dict[str, Any] = {
    "id": "job",
    "revision": 1,
    "state": "active",
    "name": "",
    "schedule": "",
    "policy": "",
    "delivery": "",
    "host": "",
    "anchor_us": NOW_US,
    "clock_epoch": 1,
    "cursor_us": NOW_US,
    "next_run_us": NOW_US + 1,
    "execution_count": 0,
    "created_us": NOW_US,
    "updated_us": NOW_US,
}
REVISION: dict[str, Any] = {
    "job_id": "job",
    "revision": 1,
    "changed_us": NOW_US,
    "change": "created",
    "state": "active",
    "name": "",
    "schedule": "",
    "policy": "",
    "host": "h:80",
    "delivery": "",
    "anchor_us": NOW_US,
    "clock_epoch": 0,
    "since_us": NOW_US,
    "before_us": NOW_US,
}
QUEUED: dict[str, Any] = {
    "id": "exe",
    "job_id": "job",
    "job_revision": 1,
    "clock_epoch": 0,
    "cause": "schedule",
    "scheduled_us": NOW_US,
    "instant_count": 1,
    "status": "queued",
    "exclusive": 1,
    "attempts": 0,
    "retries": 0,
    "next_attempt_us": NOW_US,
    "queued_us": NOW_US,
}
RUNNING: dict[str, Any] = {
    **QUEUED,
    "status": "running",
    "next_attempt_us": None,
    "attempts": 1,
    "attempt_started_us": NOW_US,
    "owner": "host:1",
    "fence": 1,
    "lease_until_us": NOW_US,
}
RETRYING: dict[str, Any] = {**QUEUED, "status": "retrying", "attempts": 1}
ENDED: dict[str, Any] = {**QUEUED, "next_attempt_us": None, "finished_us": NOW_US}
COMPLETED: dict[str, Any] = {**ENDED, "status": "completed", **FINAL["completed"]}
MISSED: dict[str, Any] = {**ENDED, "status": "missed", **FINAL["missed"]}
STRETCH: dict[str, Any] = {**MISSED, "instant_count": 5, "until_us": NOW_US + 4}
ATTEMPT: dict[str, Any] = {
    "execution_id": "exe",
    "number": 1,
    "owner": "host:1",
    "fence": 1,
    "started_us": NOW_US,
    "ended_us": NOW_US,
    "outcome": "lost",
}
TERM: dict[str, Any] = {
    "id": 1,
    "term": 1,
    "holder": "host:1",
    "since_us": NOW_US,
    "beat_us": NOW_US,
}
KEY: dict[str, Any] = {"key": "k", "request_hash": "", "answer": "", "created_us": NOW_US}

# What a refusal must name, by constraint: SQLite names the columns of keys instead.
SQLITE_NAMES = {
    "executions_id_key": "executions.id",
    "executions_due": "executions.job_id, executions.clock_epoch, executions.scheduled_us",
    "executions_solo": "executions.job_id",
    "executions_job_id_fkey": "FOREIGN KEY",
    "job_revisions_job_id_fkey": "FOREIGN KEY",
    "attempts_execution_id_fkey": "FOREIGN KEY",
    "jobs_pkey": "jobs.id",
    "job_revisions_pkey": "job_revisions.job_id, job_revisions.revision",
    "attempts_pkey": "attempts.execution_id, attempts.number",
    "leadership_pkey": "leadership.id",
    "idempotency_keys_pkey": "idempotency_keys.key",
}


@dataclass(frozen=True)
class Refused:
    """A row that must not be inserted, and the constraint that says so."""

    what: str
    by: str
    table: str
    row: dict[str, Any]
    after: tuple[tuple[str, dict[str, Any]], ...] = ()


def job(what: str, by: str, **changes: Any) -> Refused:
    return Refused(what, by, "jobs", {**JOB, "id": "job-2", **changes})


def execution(what: str, by: str, row: dict[str, Any], **changes: Any) -> Refused:
    return Refused(what, by, "executions", {**row, **changes})


def second(what: str, by: str, table: str, row: dict[str, Any], **changes: Any) -> Refused:
    return Refused(what, by, table, {**row, **changes}, after=((table, row),))


def attempt(what: str, by: str, **changes: Any) -> Refused:
    return Refused(what, by, "attempts", {**ATTEMPT, **changes}, after=(("executions", RETRYING),))


REFUSED = [
    # Jobs.
    job("an unknown state", "jobs_state", state="enabled", next_run_us=None),
    job("a state in capitals", "jobs_state", state="ACTIVE", next_run_us=None),
    *(
        job(f"a next run while {state}", "jobs_idle_has_no_next", state=state)
        for state in ("paused", "finished", "broken", "deleted")
    ),
    job("a next run at the cursor", "jobs_next_after_cursor", next_run_us=NOW_US),
    job("a next run before the cursor", "jobs_next_after_cursor", next_run_us=NOW_US - 1),
    job("revision 0", "jobs_revision", revision=0),
    job("a second job of one id", "jobs_pkey", id="job"),
    # Revisions.
    Refused("an unknown change", "job_revisions_change", "job_revisions",
            {**REVISION, "change": "touched"}),
    Refused("a revision of no job", "job_revisions_job_id_fkey", "job_revisions",
            {**REVISION, "job_id": "none"}),
    second("a revision twice", "job_revisions_pkey", "job_revisions", REVISION),
    # Executions: words.
    execution("an unknown status", "executions_status", QUEUED, status="done",
              next_attempt_us=None),
    execution("a status in capitals", "executions_status", QUEUED, status="QUEUED",
              next_attempt_us=None),
    execution("an empty status", "executions_status", QUEUED, status="", next_attempt_us=None),
    execution("an unknown cause", "executions_cause", QUEUED, cause="cron"),
    execution("an execution of no job", "executions_job_id_fkey", QUEUED, job_id="none"),
    # Executions: who runs them.
    execution("running without an owner", "executions_owner_runs", RUNNING, owner=None),
    execution("running without a fence", "executions_fence_runs", RUNNING, fence=None),
    execution("running without a lease", "executions_lease_runs", RUNNING, lease_until_us=None),
    *(
        execution(f"{row['status']} with {column}", f"executions_{name}_runs", row, **{column: 1})
        for row in (QUEUED, RETRYING, COMPLETED, MISSED)
        for column, name in (("fence", "fence"), ("lease_until_us", "lease"))
    ),
    *(
        execution(f"{row['status']} with owner", "executions_owner_runs", row, owner="host:1")
        for row in (QUEUED, RETRYING, COMPLETED, MISSED)
    ),
    execution("running without an attempt", "executions_running_has_attempt", RUNNING, attempts=0),
    execution("running without its start", "executions_running_has_attempt", RUNNING,
              attempt_started_us=None),
    # Executions: times.
    execution("queued for no time", "executions_waiting_has_time", QUEUED, next_attempt_us=None),
    execution("retrying at no time", "executions_waiting_has_time", RETRYING,
              next_attempt_us=None),
    execution("running and waiting", "executions_waiting_has_time", RUNNING,
              next_attempt_us=NOW_US),
    execution("ended and waiting", "executions_waiting_has_time", COMPLETED,
              next_attempt_us=NOW_US),
    execution("queued with an end", "executions_final_has_end", QUEUED, finished_us=NOW_US),
    execution("running with an end", "executions_final_has_end", RUNNING, finished_us=NOW_US),
    execution("retrying with an end", "executions_final_has_end", RETRYING, finished_us=NOW_US),
    *(
        execution(f"{status} without an end", "executions_final_has_end",
                  {**ENDED, "status": status, **shape}, finished_us=None)
        for status, shape in FINAL.items()
    ),
    # Executions: how they ended.
    *(
        execution(f"completed with {answer}", "executions_completed_has_2xx", COMPLETED,
                  http_status=answer)
        for answer in (None, 0, 100, 199, 300, 304, 404, 500, -200)
    ),
    execution("completed without an attempt", "executions_completed_has_2xx", COMPLETED,
              attempts=0),
    *(
        execution(f"{status} after an attempt", "executions_not_run_has_reason",
                  {**ENDED, "status": status, **FINAL[status]}, attempts=1)
        for status in ("missed", "skipped")
    ),
    *(
        execution(f"{status} without a reason", "executions_not_run_has_reason",
                  {**ENDED, "status": status}, reason=None)
        for status in ("missed", "skipped")
    ),
    *(
        execution(f"{status} without a reason", "executions_bad_end_has_reason",
                  {**ENDED, "status": status}, reason=None)
        for status in ("failed", "cancelled", "unknown")
    ),
    # Executions: stretches.
    execution("a stretch of nothing", "executions_stretch", STRETCH, instant_count=0),
    execution("a stretch of less than nothing", "executions_stretch", STRETCH, instant_count=-5),
    execution("a stretch of one", "executions_stretch", STRETCH, instant_count=1),
    execution("a stretch without an end", "executions_stretch", STRETCH, until_us=None),
    execution("a stretch that ends where it begins", "executions_stretch", STRETCH,
              until_us=NOW_US),
    execution("a stretch that runs", "executions_stretch", RUNNING, instant_count=5,
              until_us=NOW_US + 4),
    execution("a stretch that waits", "executions_stretch", QUEUED, instant_count=5,
              until_us=NOW_US + 4),
    execution("a stretch that completed", "executions_stretch", COMPLETED, instant_count=5,
              until_us=NOW_US + 4),
    # Executions: twice.
    second("an id twice", "executions_id_key", "executions", QUEUED, cause="manual"),
    second("a due instant twice", "executions_due", "executions", QUEUED, id="exe-2"),
    second("a due instant that runs again", "executions_due", "executions", MISSED, **{
        **QUEUED, "id": "exe-2", "cause": "catch_up", "reason": None, "finished_us": None}),
    second("a second exclusive run", "executions_solo", "executions", RUNNING, id="exe-2",
           scheduled_us=NOW_US + 1),
    # Attempts.
    attempt("attempt 0", "attempts_number", number=0),
    attempt("an unknown outcome", "attempts_outcome", outcome="fine"),
    attempt("a response without a status", "attempts_response_status", outcome="response"),
    attempt("an attempt of no execution", "attempts_execution_id_fkey", execution_id="none"),
    Refused("an attempt twice", "attempts_pkey", "attempts", ATTEMPT,
            after=(("executions", RETRYING), ("attempts", ATTEMPT))),
    # The rest.
    Refused("a second leader", "leadership_one_row", "leadership", {**TERM, "id": 2}),
    second("the leader twice", "leadership_pkey", "leadership", TERM),
    second("an idempotency key twice", "idempotency_keys_pkey", "idempotency_keys", KEY),
]  # fmt: skip


async def insert(database: Database, table: str, row: dict[str, Any]) -> None:
    """Write a row; an execution in any status, so that what is refused is so for its one fault."""
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})")  # noqa: S608 - constants

    def store(connection: WriteConnection) -> None:
        with any_birth(connection) if table == "executions" else contextlib.nullcontext():
            connection.execute(statement, row)

    await database.write(store)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
async def test_a_forbidden_row_is_refused(database: Database, case: Refused):
    """The database refuses the row, names the constraint and stores nothing."""
    await insert(database, "jobs", JOB)
    for table, row in case.after:
        await insert(database, table, row)
    before = await database.rows(f"SELECT count(*) AS n FROM {case.table}")  # noqa: S608 - constant
    with pytest.raises(IntegrityError) as refusal:
        await insert(database, case.table, case.row)
    expected = (
        SQLITE_NAMES.get(case.by, case.by) if database.kind is DatabaseKind.SQLITE else case.by
    )
    assert expected in str(refusal.value.orig)
    assert await database.rows(f"SELECT count(*) AS n FROM {case.table}") == before  # noqa: S608 - constant


@pytest.mark.parametrize(
    "row",
    [
        QUEUED, RUNNING, RETRYING, STRETCH,
        *({**ENDED, "status": status, **shape} for status, shape in FINAL.items()),
    ],
    ids=lambda row: f"{row['status']} of {row['instant_count']}",
)  # fmt: skip
async def test_the_rows_the_refused_ones_are_made_from_are_allowed(
    database: Database, row: dict[str, Any]
):
    """Each state of an execution can be stored: what is refused is refused for its one fault."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", row)
    assert await database.rows("SELECT status FROM executions") == [{"status": row["status"]}]


@pytest.mark.parametrize("change", [{"status": "queued", "finished_us": None, "next_attempt_us": 1},
                                    {"reason": "crash"}, {"http_status": 204},
                                    {"scheduled_us": 0}, {"id": "exe"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("status", FINAL)
async def test_an_execution_that_ended_never_changes(
    database: Database, status: str, change: dict[str, Any]
):
    """Every update of a final row is refused, one that changes nothing too."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", {**ENDED, "status": status, **FINAL[status]})
    before = await database.rows("SELECT * FROM executions")
    with pytest.raises(IntegrityError, match="an execution that ended never changes"):
        await update(database, "executions", **change)
    assert await database.rows("SELECT * FROM executions") == before


@pytest.mark.parametrize(
    "change", [{"outcome": "timeout"}, {"number": 2}, {"error": "x"}, {"number": 1}], ids=str
)
async def test_an_attempt_that_ended_never_changes(database: Database, change: dict[str, Any]):
    """Every update of an attempt is refused, one that changes nothing too."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", RETRYING)
    await insert(database, "attempts", ATTEMPT)
    with pytest.raises(IntegrityError, match="an attempt that ended never changes"):
        await update(database, "attempts", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"cursor_us": NOW_US - 1},
        {"clock_epoch": 0},
        {"clock_epoch": 0, "cursor_us": NOW_US + 10, "next_run_us": None},
    ],
    ids=["back", "epoch back", "epoch back and on"],
)
async def test_a_cursor_never_goes_back_within_its_epoch(
    database: Database, change: dict[str, Any]
):
    """A cursor that went back would run instants again; an epoch that did would too."""
    await insert(database, "jobs", JOB)
    with pytest.raises(IntegrityError, match="a cursor never moves back within its clock epoch"):
        await update(database, "jobs", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"cursor_us": NOW_US},
        {"cursor_us": NOW_US + 5, "next_run_us": NOW_US + 6},
        {"clock_epoch": 2, "cursor_us": NOW_US - 1000},
    ],
    ids=["where it is", "forward", "back in the next epoch"],
)
async def test_a_cursor_may_stay_go_on_or_begin_a_new_epoch(
    database: Database, change: dict[str, Any]
):
    """What is not a step back within an epoch is allowed."""
    await insert(database, "jobs", JOB)
    assert await update(database, "jobs", **change) == 1


async def test_a_second_run_is_refused_when_it_starts(database: Database):
    """An exclusive job's second execution may wait, but not begin while the first runs."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", RUNNING)
    await insert(database, "executions", {**QUEUED, "id": "exe-2", "scheduled_us": NOW_US + 1})
    begin = (
        "UPDATE executions SET status = 'running', owner = 'o', fence = 1, lease_until_us = 1,"
        " attempts = 1, attempt_started_us = 1, next_attempt_us = NULL WHERE id = 'exe-2'"
    )
    with pytest.raises(IntegrityError):
        await database.execute(begin)
    beside = {**QUEUED, "id": "exe-3", "scheduled_us": NOW_US + 2, "exclusive": 0}
    await insert(database, "executions", beside)
    assert await database.execute(begin.replace("exe-2", "exe-3")) == 1


async def test_what_history_refers_to_cannot_be_deleted(database: Database):
    """A job with executions, and an execution with attempts, stay."""
    await insert(database, "jobs", JOB)
    await insert(database, "executions", RETRYING)
    await insert(database, "attempts", ATTEMPT)
    for table in ("jobs", "executions"):
        with pytest.raises(IntegrityError):
            await database.execute(f"DELETE FROM {table}")  # noqa: S608 - constants


async def update(database: Database, table: str, **change: Any) -> int:
    changes = ", ".join(f"{name} = :{name}" for name in change)
    return await database.execute(f"UPDATE {table} SET {changes}", **change)  # noqa: S608 - constants
