"""The hot statements use their indexes: none reads a whole table that grows.

Each repository function is called as in production, its statements are recorded with their
parameters, and the database explains them. PostgreSQL is asked twice: for the plan with these
parameters, and for the generic one, which it may keep for any.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.db.unit_of_work import WriteConnection
from app.domain.execution import Reason, WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.models.tables import attempts, executions, job_revisions, jobs
from app.repositories import execution_repository, job_repository, run_repository
from tests.conformance.builders import (
    NOW,
    NOW_US,
    SECOND,
    make_claim,
    make_job,
)
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


SOME_JOBS = [JobId(f"job-{number}") for number in range(50)]
SOME_IDS = [ExecutionId(f"exe-{number}") for number in range(50)]

HOT = [
    hot("due_jobs", partial(job_repository.due_jobs, until=NOW + 5 * SECOND, limit=500),
        "jobs_due"),
    hot("due_jobs_by_id", partial(job_repository.due_jobs_by_id, job_ids=SOME_JOBS), "jobs_pkey"),
    hot("current_ticks", partial(job_repository.current_ticks, job_ids=SOME_JOBS), "jobs_pkey"),
    hot("find_job", partial(job_repository.find_job, job_id=SOME_JOBS[0]), "jobs_pkey"),
    hot("waiting_runs",
        partial(run_repository.waiting_runs, until=NOW + 5 * SECOND, limit=100, per_job=10),
        "executions_ready", "job_revisions_pkey"),
    hot("claim_runs",
        partial(run_repository.claim_runs, waiting=[waiting(8901), waiting(8902)],
                claim=make_claim()),
        "executions_id_key", "executions_ready", "executions_solo", "job_revisions_pkey"),
    hot("orphan_runs of a term", partial(run_repository.orphan_runs, lease_before=None, limit=100),
        "executions_lease", "job_revisions_pkey"),
    hot("orphan_runs by lease", partial(run_repository.orphan_runs, lease_before=NOW, limit=100),
        "executions_lease", "job_revisions_pkey"),
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
    hot("job_history",
        partial(execution_repository.job_history, job_id=SOME_JOBS[0], limit=50),
        "executions_job"),
    hot("job_history, a further page",
        partial(execution_repository.job_history, job_id=SOME_JOBS[0], limit=50, before=5000),
        "executions_job"),
    hot("recent_history", partial(execution_repository.recent_history, limit=50),
        "executions_pkey"),
    hot("recent_history, a further page",
        partial(execution_repository.recent_history, limit=50, before=5000),
        "executions_pkey"),
    hot("has_history", partial(execution_repository.has_history, job_id=SOME_JOBS[0]),
        "executions_job"),
]  # fmt: skip

# SQLite's own names of the indexes behind keys.
SQLITE_INDEXES = {
    "jobs_pkey": "sqlite_autoindex_jobs_1",
    "job_revisions_pkey": "sqlite_autoindex_job_revisions_1",
    "attempts_pkey": "sqlite_autoindex_attempts_1",
    "executions_id_key": "sqlite_autoindex_executions_1",
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
        connection.execute(sa.insert(executions), rows)
    connection.execute(sa.insert(attempts), [_attempt(number) for number in range(QUEUED_FROM)])
    if connection.dialect.name == "postgresql":
        # SQLite plans without statistics, as in production.
        connection.exec_driver_sql("ANALYZE")


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
            owned = {"owner": "host:1", "fence": 1, "lease_until_us": due}
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


@dataclass(frozen=True)
class Plan:
    """What one reading of one statement uses."""

    indexes: frozenset[str]
    scans: list[str]
    text: str


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
    made = ("SCAN (subquery", "SCAN ranked")
    scans = [
        step
        for step in steps
        if step.startswith("SCAN") and "INDEX" not in step and not step.startswith(made)
    ]
    if "ORDER BY executions.seq DESC" in statement and scans == ["SCAN executions"] == steps:
        # From the newest row down, without sorting: the limit ends it.
        scans, indexes = [], {"executions_pkey"}
    by_key = {"executions_pkey" for step in steps if "INTEGER PRIMARY KEY" in step}
    return [Plan(frozenset(indexes | by_key), scans, "\n".join(steps))]


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
