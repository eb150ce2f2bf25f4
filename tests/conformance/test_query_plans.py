"""The hot statements use their indexes: none reads a whole table that grows.

Each repository function is called as in production, its statements are recorded with their
parameters, and the database explains them. PostgreSQL is asked twice: for the plan with these
parameters, and for the generic one, which it may keep for any.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.db.unit_of_work import WriteConnection
from app.domain.execution import AttemptOutcome, Cause, Outcome, Reason, WaitingRun
from app.domain.execution import ExecutionStatus as S
from app.domain.history import HistoryFilter, Position
from app.domain.ids import ExecutionId, JobId
from app.domain.job import Change, JobPosition, JobState
from app.domain.revision import LedgerEntry
from app.models.tables import attempts, executions, host_starts, job_revisions, jobs
from app.repositories import (
    audit_repository,
    doubt_repository,
    execution_repository,
    history_repository,
    host_repository,
    job_list_repository,
    job_repository,
    lease_repository,
    new_job_repository,
    orphan_repository,
    retention_repository,
    revision_repository,
    run_repository,
    totals_repository,
    waiting_repository,
)
from app.repositories.host_repository import HostLimits
from app.repositories.job_repository import Advance
from app.repositories.lease_repository import Renewal
from app.repositories.new_job_repository import FirstJob
from app.repositories.retention_repository import OTHER_STATUSES, Surplus
from app.repositories.run_repository import Ending
from tests.conformance.builders import (
    NOW,
    NOW_US,
    SECOND,
    make_claim,
    make_job,
    make_limits,
)
from tests.support.births import any_birth
from tests.support.databases import Database, DatabaseKind, Databases, open_database

JOBS = 3000
EXECUTIONS = 9000
# The executions before these have ended; those from the second number on run.
QUEUED_FROM = 8900
RUNNING_FROM = 8950

Call = Callable[[WriteConnection], object]


@dataclass(frozen=True)
class HotStatement:
    """A repository function, how it is called, and the indexes its statements may use."""

    name: str
    call: Call
    indexes: frozenset[str]


def hot(name: str, call: Call, *indexes: str) -> HotStatement:
    return HotStatement(name, call, frozenset(indexes))


def waiting(number: int) -> WaitingRun:
    return WaitingRun(
        id=ExecutionId(f"exe-{number}"),
        job_id=JobId(f"job-{number % JOBS}"),
        host="h:80",
        next_attempt_at=NOW,
        job_slots=1,
    )


def history(before: Position | None = None, **wanted: Any) -> Call:
    return partial(history_repository.read_history, wanted=HistoryFilter(**wanted), limit=50,
                   before=before)  # fmt: skip


def count(**wanted: Any) -> Call:
    return partial(history_repository.count_history, wanted=HistoryFilter(**wanted))


SOME_JOBS = [JobId(f"job-{number}") for number in range(50)]
SOME_IDS = [ExecutionId(f"exe-{number}") for number in range(50)]
RUNNING_IDS = [ExecutionId(f"exe-{number}") for number in range(RUNNING_FROM, EXECUTIONS)]
ENDINGS = [
    Ending(
        execution_id=execution_id, number=1, owner="host:1", fence=1, started_at=NOW, ended_at=NOW,
        status=S.COMPLETED, reason=None, retries=0, next_attempt_at=None,
        outcome=Outcome(kind=AttemptOutcome.RESPONSE, http_status=200),
    )
    for execution_id in RUNNING_IDS
]  # fmt: skip
ADVANCES = [
    Advance(job_id=job_id, revision=1, was=NOW, accounted_until=NOW + SECOND, next_run_time=None)
    for job_id in SOME_JOBS
]


def further_revisions(connection: WriteConnection) -> object:
    head = audit_repository.find_head(connection, SOME_JOBS[0])
    assert head is not None
    return audit_repository.list_revisions(connection, head, after=0, limit=200)


def remove_oldest(connection: WriteConnection) -> None:
    surplus = Surplus(statuses=OTHER_STATUSES, ended_before=NOW + JOBS * SECOND)
    looked = retention_repository.look_for(connection, surplus, after=0, rows=300)
    assert len(looked.entries) == 300
    retention_repository.remove(connection, looked.entries)


def look(**changes: Any) -> Call:
    values = {"statuses": OTHER_STATUSES, "ended_before": NOW + SECOND, **changes}
    return partial(retention_repository.look_for, surplus=Surplus(**values), after=100, rows=50)


def store_jobs(connection: WriteConnection) -> object:
    new = [FirstJob(make_job(name), actor=None) for name in ("new-1", "job-1", "new-2")]
    return new_job_repository.insert_new_jobs(connection, new)


def beside(function: Callable[[WriteConnection, LedgerEntry], object]) -> Call:
    """Call a function about the row of a job's second instant."""

    def call(connection: WriteConnection) -> object:
        found = revision_repository.due_entries(
            connection, SOME_JOBS[0], {0}, begin=NOW + JOBS * SECOND, end=NOW + JOBS * 2 * SECOND
        )
        return function(connection, found[0])

    return call


HOT = [
    hot("due_jobs", partial(job_repository.due_jobs, until=NOW + 5 * SECOND, limit=500),
        "jobs_due"),
    hot("due_jobs_by_id", partial(job_repository.due_jobs_by_id, job_ids=SOME_JOBS), "jobs_pkey"),
    hot("current_ticks", partial(job_repository.current_ticks, job_ids=SOME_JOBS), "jobs_pkey"),
    hot("find_job", partial(job_repository.find_job, job_id=SOME_JOBS[0]), "jobs_pkey"),
    hot("soonest_runs",
        partial(waiting_repository.soonest_runs, limits=make_limits(until=NOW + 5 * SECOND)),
        "executions_ready", "job_revisions_pkey"),
    hot("runs_of_each_job",
        partial(waiting_repository.runs_of_each_job, limits=make_limits(until=NOW + 5 * SECOND)),
        "executions_ready", "job_revisions_pkey"),
    hot("claim_runs",
        partial(run_repository.claim_runs, waiting=[waiting(8901), waiting(8902)],
                claim=make_claim()),
        "executions_id_key", "executions_solo", "job_revisions_pkey", "jobs_pkey"),
    hot("record_endings", partial(run_repository.record_endings, endings=ENDINGS),
        "executions_id_key"),
    hot("orphan_runs of a term", partial(orphan_repository.orphan_runs, now=None, limit=100),
        "executions_lease", "job_revisions_pkey"),
    hot("orphan_runs by lease", partial(orphan_repository.orphan_runs, now=NOW, limit=100),
        "executions_lease", "job_revisions_pkey"),
    hot("renew_leases",
        partial(lease_repository.renew_leases, ids=RUNNING_IDS,
                renewal=Renewal(owner="host:1", fence=1, now=NOW, lease=SECOND)),
        "executions_id_key"),
    hot("hold_those_over",
        partial(lease_repository.hold_those_over, ids=RUNNING_IDS, now=NOW),
        "executions_id_key"),
    hot("withdraw_claims",
        partial(doubt_repository.withdraw_claims, ids=RUNNING_IDS, owner="host:1", fence=1),
        "executions_id_key", "jobs_pkey"),
    hot("advance_jobs", partial(job_repository.advance_jobs, advances=ADVANCES),
        "jobs_due", "jobs_pkey"),
    hot("count_starts",
        partial(job_repository.count_starts, starts=dict.fromkeys(SOME_JOBS, 1)), "jobs_pkey"),
    hot("count_open", partial(execution_repository.count_open, job_ids=SOME_JOBS),
        "executions_open"),
    hot("cancel_waiting",
        partial(execution_repository.cancel_waiting, job_id=SOME_JOBS[0], reason=Reason.USER,
                now_us=NOW_US),
        "executions_open"),
    hot("stop_running",
        partial(execution_repository.stop_running, job_id=SOME_JOBS[0], reason=Reason.USER),
        "executions_open"),
    hot("known_ids", partial(execution_repository.known_ids, ids=SOME_IDS), "executions_id_key"),
    hot("find_execution",
        partial(execution_repository.find_execution, execution_id=SOME_IDS[0]),
        "executions_id_key"),
    hot("list_attempts",
        partial(execution_repository.list_attempts, execution_id=SOME_IDS[0]),
        "executions_id_key", "attempts_pkey"),
    hot("history of a job", history(job_id=SOME_JOBS[0]), "executions_job"),
    hot("history of a job, a further page", history((5000,), job_id=SOME_JOBS[0]),
        "executions_job"),
    hot("history of a job by status, reason, cause and time",
        history((5000,), job_id=SOME_JOBS[0], statuses={S.FAILED, S.COMPLETED, S.RETRYING},
                causes={Cause.MANUAL}, since=NOW, until=NOW + SECOND),
        "executions_job"),
    hot("what is open of a job", history(job_id=SOME_JOBS[0], statuses={S.RUNNING, S.QUEUED}),
        "executions_open", "executions_pkey"),
    hot("recent history", history(), "executions_pkey"),
    hot("recent history, a further page", history((5000,)), "executions_pkey"),
    hot("recent history by cause", history((5000,), causes={Cause.MANUAL}), "executions_pkey"),
    hot("completed executions", history(statuses={S.COMPLETED}), "executions_pkey"),
    hot("failed executions", history(statuses={S.FAILED}), "executions_not_completed"),
    hot("failed executions, a further page", history((5000,), statuses={S.FAILED}),
        "executions_not_completed"),
    hot("executions that went wrong for a reason", history((5000,), reasons={Reason.TIMEOUT}),
        "executions_not_completed", "executions_open", "executions_pkey"),
    hot("what is open", history(statuses={S.RUNNING, S.QUEUED}),
        "executions_open", "executions_ready", "executions_lease", "executions_pkey"),
    hot("history of a time", history(since=NOW, until=NOW + 5 * SECOND), "executions_scheduled"),
    hot("history of a time, a further page", history((NOW_US, 5000), since=NOW - SECOND),
        "executions_scheduled"),
    hot("failed executions of a time",
        history((NOW_US, 5000), since=NOW - SECOND, until=NOW + SECOND, statuses={S.FAILED}),
        "executions_scheduled"),
    hot("count of failed executions", count(statuses={S.FAILED}), "executions_not_completed"),
    hot("count of the executions of a time", count(since=NOW, until=NOW + SECOND),
        "executions_scheduled"),
    hot("totals of a job",
        partial(totals_repository.count_kept, wanted=HistoryFilter(job_id=SOME_JOBS[0])),
        "job_totals_pkey", "executions_open"),
    hot("lifetime of a job", partial(totals_repository.lifetime_instants, job_id=SOME_JOBS[0]),
        "job_totals_pkey"),
    hot("jobs above their limit",
        partial(totals_repository.jobs_above, after="job-2", rows=100, limit=10),
        "job_totals_pkey"),
    hot("what may be removed", look(), "executions_pkey"),
    hot("failed executions that may be removed", look(statuses=frozenset({S.FAILED})),
        "executions_not_completed"),
    hot("executions of a job that may be removed", look(job_id=SOME_JOBS[0]), "executions_job"),
    hot("zones_of", partial(job_repository.zones_of, job_ids=SOME_JOBS), "jobs_pkey"),
    hot("list of jobs", partial(job_list_repository.read_jobs, limit=50), "jobs_due"),
    hot("list of jobs, a further page",
        partial(job_list_repository.read_jobs, limit=50,
                after=JobPosition(next_run_us=NOW_US, id="job-1")),
        "jobs_due"),
    hot("list of jobs, the idle ones",
        partial(job_list_repository.read_jobs, limit=50,
                after=JobPosition(next_run_us=None, id="job-1")),
        "jobs_idle"),
    hot("paused jobs",
        partial(job_list_repository.read_jobs, limit=50, states={JobState.PAUSED}), "jobs_idle"),
    hot("count of paused jobs",
        partial(job_list_repository.count_listed, states={JobState.PAUSED}), "jobs_idle"),
    hot("jobs to prove", partial(audit_repository.list_heads, after=SOME_JOBS[0], limit=100),
        "jobs_pkey"),
    hot("a job to prove", partial(audit_repository.find_head, job_id=SOME_JOBS[0]), "jobs_pkey"),
    hot("first revisions",
        partial(audit_repository.first_revisions, job_ids=SOME_JOBS, limit=200),
        "job_revisions_pkey"),
    hot("further revisions", further_revisions, "jobs_pkey", "job_revisions_pkey"),
    hot("has_history", partial(execution_repository.has_history, job_id=SOME_JOBS[0]),
        "executions_job"),
    hot("find_standing",
        partial(revision_repository.find_standing, job_id=SOME_JOBS[0]), "jobs_pkey"),
    hot("find_revision",
        partial(revision_repository.find_revision, job_id=SOME_JOBS[0], number=1),
        "job_revisions_pkey"),
    hot("revisions_before",
        partial(revision_repository.revisions_before, job_id=SOME_JOBS[0], instant=NOW + SECOND,
                limit=8),
        "job_revisions_pkey"),
    hot("last_change",
        partial(revision_repository.last_change, job_id=SOME_JOBS[0], upto=1,
                changes=[Change.PAUSED]),
        "job_revisions_pkey"),
    hot("first_of_state",
        partial(revision_repository.first_of_state, job_id=SOME_JOBS[0], after=1,
                state=JobState.PAUSED),
        "job_revisions_pkey"),
    hot("first_of_other_state",
        partial(revision_repository.first_of_other_state, job_id=SOME_JOBS[0], after=1,
                state=JobState.PAUSED),
        "job_revisions_pkey"),
    hot("first_of_other_schedule",
        partial(revision_repository.first_of_other_schedule, job_id=SOME_JOBS[0], after=1),
        "job_revisions_pkey"),
    hot("due_entries",
        partial(revision_repository.due_entries, job_id=SOME_JOBS[0], epochs={0, 1}, begin=NOW,
                end=NOW + SECOND),
        # PostgreSQL takes the index on time where the span holds few rows of all jobs.
        "executions_due", "executions_scheduled", "executions_id_key"),
    hot("stretches_over",
        partial(revision_repository.stretches_over, job_id=SOME_JOBS[0], epochs={0, 1}, begin=NOW,
                end=NOW + SECOND),
        "executions_stretches", "executions_id_key"),
    hot("find_in_the_way", beside(revision_repository.find_in_the_way),
        "executions_due", "executions_id_key", "executions_job"),
    hot("find_successor", beside(revision_repository.find_successor),
        "executions_due", "executions_id_key", "executions_job"),
    hot("find_merged_into", beside(revision_repository.find_merged_into),
        "executions_due", "executions_id_key"),
    hot("running_of_job",
        partial(revision_repository.running_of_job, job_id=SOME_JOBS[0]),
        "executions_open", "executions_solo"),
    hot("running_by_host", revision_repository.running_by_host,
        "executions_lease", "job_revisions_pkey"),
    hot("host_of_revision",
        partial(revision_repository.host_of_revision, job_id=SOME_JOBS[0], number=1),
        "job_revisions_pkey"),
    hot("others_about",
        partial(revision_repository.others_about, job_id=SOME_JOBS[0], begin=NOW,
                end=NOW + SECOND, limit=10),
        "executions_scheduled"),
]  # fmt: skip

# SQLite's own names of the indexes behind keys.
SQLITE_INDEXES = {
    "jobs_pkey": "sqlite_autoindex_jobs_1",
    "job_revisions_pkey": "sqlite_autoindex_job_revisions_1",
    "attempts_pkey": "sqlite_autoindex_attempts_1",
    "executions_id_key": "sqlite_autoindex_executions_1",
    "job_totals_pkey": "sqlite_autoindex_job_totals_1",
}


@pytest.fixture
async def filled(databases: Databases, kind: DatabaseKind) -> AsyncIterator[Database]:
    """Open a database with thousands of rows; all statements are explained on the same one."""
    url = await databases.shared(kind, "query plans", fill)
    async with open_database(url) as database:
        yield database


def fill(connection: WriteConnection) -> None:
    """Store thousands of jobs and executions, of which few are due, wait or run."""
    job_repository.insert_job(connection, make_job("job-0"), actor=None)
    for table in (jobs, job_revisions):
        (template,) = connection.execute(sa.select(table)).mappings()
        key = "id" if table is jobs else "job_id"
        rows = [{**template, key: f"job-{number}"} for number in range(1, JOBS)]
        if table is jobs:
            rows = [
                {**row, "next_run_us": NOW_US + number * 60_000_000}
                for number, row in enumerate(rows, start=1)
            ]
        connection.execute(sa.insert(table), rows)
    for first, status in ((0, "completed"), (QUEUED_FROM, "queued"), (RUNNING_FROM, "running")):
        last = {"completed": QUEUED_FROM, "queued": RUNNING_FROM}.get(status, EXECUTIONS)
        rows = [_execution(number, status) for number in range(first, last)]
        with any_birth(connection):
            connection.execute(sa.insert(executions), rows)
    connection.execute(sa.insert(attempts), [_attempt(number) for number in range(QUEUED_FROM)])
    hosts = [{"host": f"h-{number}:80", "next_us": 1} for number in range(JOBS)]
    connection.execute(sa.insert(host_starts), hosts)
    if connection.dialect.name == "postgresql":
        # SQLite plans without statistics, as in production.
        connection.exec_driver_sql("ANALYZE")


def burst(connection: WriteConnection) -> None:
    """Store as many, most of them since the statistics were gathered; none are gathered again."""
    for grown in ("executions", "jobs"):
        connection.exec_driver_sql(f"ALTER TABLE {grown} SET (autovacuum_enabled = false)")
    job_repository.insert_job(connection, make_job("job-0"), actor=None)
    with any_birth(connection):
        connection.execute(sa.insert(executions), [_execution(0, "completed")])
    connection.exec_driver_sql("ANALYZE")
    for table, key in ((jobs, "id"), (job_revisions, "job_id")):
        (template,) = connection.execute(sa.select(table)).mappings()
        rows = [{**template, key: f"job-{number}"} for number in range(1, JOBS)]
        connection.execute(sa.insert(table), rows)
    rows = [_execution(number, "queued") for number in range(1, RUNNING_FROM)]
    with any_birth(connection):
        connection.execute(sa.insert(executions), rows)
        rows = [_execution(number, "running") for number in range(RUNNING_FROM, EXECUTIONS)]
        connection.execute(sa.insert(executions), rows)


def _execution(number: int, status: str) -> dict[str, Any]:
    due = NOW_US + number * 1_000_000
    row: dict[str, Any] = {
        "id": f"exe-{number}", "job_id": f"job-{number % JOBS}", "job_revision": 1,
        "clock_epoch": 0, "cause": "schedule", "scheduled_us": due, "instant_count": 1,
        "status": status, "exclusive": 0, "attempts": 1, "retries": 0, "queued_us": due,
    }  # fmt: skip
    match status:
        case "queued":
            return {**row, "next_attempt_us": due}
        case "running":
            owned = {"owner": "host:1", "fence": 1, "lease_until_us": due,
                     "slot_host": f"h-{number % 10}:80"}  # fmt: skip
            return {**row, **owned, "attempt_started_us": due}
        case _:
            return {**row, "finished_us": due, "http_status": 200}


def _attempt(number: int) -> dict[str, Any]:
    return {
        "execution_id": f"exe-{number}", "number": 1, "owner": "host:1", "fence": 1,
        "started_us": 1, "ended_us": 2, "outcome": "lost",
    }  # fmt: skip


@pytest.mark.parametrize("statement", HOT, ids=lambda statement: statement.name)
async def test_a_hot_statement_uses_its_index(filled: Database, statement: HotStatement):
    """Every table is read by the index meant for it, whatever the parameters are."""
    with pytest.raises(_ExplainedError) as explained:
        await filled.write(explain, statement.call)
    names = SQLITE_INDEXES if filled.kind is DatabaseKind.SQLITE else {}
    expected = {names.get(name, name) for name in statement.indexes}
    for plan in explained.value.plans:
        assert plan.scans == [], plan.text
        assert plan.indexes, plan.text
        assert plan.indexes <= expected, plan.text


BATCHED = {
    "removal of the oldest": remove_oldest,
    **{one.name: one.call for one in HOT if one.name in {
        "due_jobs_by_id", "current_ticks", "count_open", "known_ids", "zones_of",
    }},
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.only_on(DatabaseKind.SQLITE, because="PostgreSQL's planner knows sizes")
async def test_what_a_batch_names_is_looked_up(databases: Databases, name: str):
    """On SQLite, which knows no sizes, no index is read from end to end for a batch's rows."""
    url = await databases.shared(DatabaseKind.SQLITE, "query plans", fill)
    async with open_database(url) as filled:
        with pytest.raises(_ExplainedError) as explained:
            await filled.write(explain, BATCHED[name])
    for plan in explained.value.plans:
        read_through = [
            step
            for step in plan.text.splitlines()
            if step.startswith("SCAN")
            and not step.startswith(("SCAN json_each", "SCAN batch", "SCAN gathered"))
        ]
        assert "json_each" not in plan.statement or read_through == []


async def test_storing_new_jobs_reads_no_table(filled: Database):
    """What decides whether an id is known is its key, and nothing else is read."""
    with pytest.raises(_ExplainedError) as explained:
        await filled.write(explain, store_jobs)
    assert [plan.scans for plan in explained.value.plans] == [[]] * len(explained.value.plans)


NAMED = [one for one in HOT if one.name in {
    "claim_runs", "record_endings", "renew_leases", "hold_those_over", "withdraw_claims",
    "advance_jobs", "count_starts", "current_ticks",
}]  # fmt: skip


@pytest.mark.parametrize("statement", NAMED, ids=lambda statement: statement.name)
@pytest.mark.only_on(DatabaseKind.POSTGRES, because="SQLite keeps no statistics")
async def test_named_rows_are_looked_up_whatever_the_statistics(
    databases: Databases, statement: HotStatement
):
    """What a burst brings is not read through because the statistics are from before it."""
    url = await databases.shared(DatabaseKind.POSTGRES, "a burst", burst)
    async with open_database(url) as filled:
        with pytest.raises(_ExplainedError) as explained:
            await filled.write(explain, statement.call)
    for plan in explained.value.plans:
        assert plan.scans == [], plan.text
        assert plan.indexes <= statement.indexes, plan.text


async def test_what_may_start_soonest_is_read_in_order(databases: Databases, kind: DatabaseKind):
    """However much waits behind it, it is not sorted: the limit ends the reading."""
    look = partial(waiting_repository.soonest_runs, limits=make_limits())
    # SQLite keeps no statistics.
    for filling in (fill,) if kind is DatabaseKind.SQLITE else (fill, burst):
        url = await databases.shared(kind, f"soonest {filling.__name__}", filling)
        async with open_database(url) as filled:
            with pytest.raises(_ExplainedError) as explained:
                await filled.write(explain, look)
        for plan in explained.value.plans:
            reading, _, numbering = plan.text.partition("SCAN gathered")
            assert "executions_ready" in reading
            assert re.search('"Sort"|TEMP B-TREE', reading) is None, reading
            assert (kind is DatabaseKind.SQLITE) == bool(numbering)


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="with SQLite there is no other process")
async def test_limits_per_host_are_asked_by_index(databases: Databases):
    """The slots that other processes hold are counted by their index, whatever has ended."""
    url = await databases.shared(DatabaseKind.POSTGRES, "query plans", fill)
    limits = HostLimits(slots=10, gap=SECOND)
    runs = [replace(waiting(number), host=f"h-{number % 10}:80") for number in (8901, 8902)]
    admit = partial(
        host_repository.admit, waiting=runs, owner="host:2", under_way={}, limits=limits
    )
    async with open_database(url) as filled:
        with pytest.raises(_ExplainedError) as explained:
            await filled.write(explain, admit)
    used = [sorted(plan.indexes) for plan in explained.value.plans]
    # Of each statement both plans; taking the locks reads no table.
    assert used == [[], [], *[["executions_slots"]] * 2, *[["host_starts_pkey"]] * 2]
    assert [plan.scans for plan in explained.value.plans] == [[]] * 6
    assert not any("Bitmap" in plan.text for plan in explained.value.plans)


@dataclass(frozen=True)
class Plan:
    """What one reading of one statement uses."""

    indexes: frozenset[str]
    scans: list[str]
    text: str
    statement: str = ""


class _ExplainedError(Exception):
    """Carries plans out of a transaction that is undone, for some of the statements write."""

    def __init__(self, plans: list[Plan]) -> None:
        super().__init__(f"{len(plans)} plans")
        self.plans = plans


def explain(connection: WriteConnection, call: Call) -> None:
    """Run a function, explain each of its statements, and undo it."""
    recorded: list[tuple[str, Any]] = []

    def record(
        _connection: object, _cursor: object, statement: str, parameters: Any,
        _context: object, executemany: bool,  # noqa: FBT001 - SQLAlchemy's order
    ) -> None:  # fmt: skip
        recorded.append((statement, parameters[0] if executemany else parameters))

    event.listen(connection, "before_cursor_execute", record)
    call(connection)
    event.remove(connection, "before_cursor_execute", record)
    assert recorded
    sqlite = connection.dialect.name == "sqlite"
    explained = _explain_sqlite if sqlite else _explain_postgres
    raise _ExplainedError(
        [plan for text, values in recorded for plan in explained(connection, text, values)]
    )


def _explain_sqlite(connection: WriteConnection, statement: str, values: Any) -> list[Plan]:
    found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
    steps = [row.detail for row in found]
    indexes = {
        name for step in steps for name in re.findall(r"USING (?:COVERING )?INDEX (\S+)", step)
    }
    # What a subquery gave is read through by nature; where it came from is told by its own steps.
    made = ("SCAN (subquery", "SCAN ranked", "SCAN open_rows", "SCAN counted", "SCAN anon_",
            "SCAN merged", "SCAN near_rows", "SCAN gathered", "SCAN numbered",
            "SCAN batch")  # fmt: skip
    scans = [
        step
        for step in steps
        if step.startswith("SCAN") and "INDEX" not in step and not step.startswith(made)
    ]
    if "ORDER BY executions.seq DESC" in statement and scans == ["SCAN executions"] == steps:
        # From the newest row down, without sorting: the limit ends it.
        scans, indexes = [], {"executions_pkey"}
    if "max(executions.seq)" in statement and steps == ["SEARCH executions"]:
        indexes = {"executions_pkey"}  # its last entry
    by_key = {"executions_pkey" for step in steps if "INTEGER PRIMARY KEY" in step}
    return [Plan(frozenset(indexes | by_key), scans, "\n".join(steps), statement)]


def _explain_postgres(connection: WriteConnection, statement: str, values: Any) -> list[Plan]:
    bound = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
    plans = [_postgres_plan(bound.scalar_one())]
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE hot AS {statement}")
    nothing = ", ".join(["NULL"] * len(values))
    execute = f"EXECUTE hot ({nothing})" if values else "EXECUTE hot"
    generic = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {execute}")
    plans.append(_postgres_plan(generic.scalar_one()))
    connection.exec_driver_sql("DEALLOCATE hot")
    return plans


def _postgres_plan(found: Any) -> Plan:
    root = json.loads(found) if isinstance(found, str) else found
    nodes = list(_nodes(root[0]["Plan"]))
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    scans = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
    return Plan(frozenset(indexes), scans, json.dumps(root, indent=1))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)
