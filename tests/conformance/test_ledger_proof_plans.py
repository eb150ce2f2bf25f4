"""The proof reads long ledgers by the index of due instants: a page costs what it holds.

Explained on jobs with a thousand rows each; with a few rows any index would do.
"""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.ids import JobId
from app.models.tables import executions
from app.repositories import audit_repository, job_repository
from tests.conformance.builders import NOW_US, make_job
from tests.conformance.test_query_plans import (
    SQLITE_INDEXES,
    HotStatement,
    _execution,
    _ExplainedError,
    explain,
    hot,
)
from tests.support.births import any_birth
from tests.support.databases import Database, DatabaseKind, Databases, open_database

JOBS = 20
ROWS = 1000
STRETCH_EVERY = 50
IDS = [JobId(f"job-{number}") for number in range(JOBS)]

HOT = [
    hot("rows behind cursors",
        partial(audit_repository.find_beyond, job_ids=IDS, after_us=0, until_us=2 * NOW_US),
        "jobs_pkey", "executions_due"),
    hot("rows to prove",
        partial(audit_repository.read_page, job_id=IDS[0], clock_epoch=0,
                after_us=NOW_US + 500_000_000, until_us=2 * NOW_US, limit=100),
        "executions_due", "executions_stretches"),
]  # fmt: skip


def fill(connection: WriteConnection) -> None:
    """Store jobs with a thousand due rows each, some of which are stretches."""
    for job_id in IDS:
        job_repository.insert_job(connection, make_job(job_id), actor=None)
        rows = []
        for number in range(ROWS):
            row = {**_execution(number, "completed"), "id": f"{job_id}-{number}", "job_id": job_id}
            if number % STRETCH_EVERY == 0:
                row |= {"status": "missed", "reason": "too_late", "attempts": 0}
                row |= {"until_us": row["scheduled_us"] + 5, "instant_count": 2}
            rows.append({"until_us": None, "reason": None, **row})
        with any_birth(connection):
            connection.execute(sa.insert(executions), rows)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE")


@pytest.fixture
async def long_ledger(databases: Databases, kind: DatabaseKind) -> AsyncIterator[Database]:
    """Open a database in which every job has many rows."""
    url = await databases.shared(kind, "long ledger", fill)
    async with open_database(url) as database:
        yield database


@pytest.mark.parametrize("statement", HOT, ids=lambda statement: statement.name)
async def test_a_page_of_a_long_ledger_is_read_by_its_index(
    long_ledger: Database, statement: HotStatement
):
    """The rows of a job are read between two instants, not all of them."""
    with pytest.raises(_ExplainedError) as explained:
        await long_ledger.write(explain, statement.call)
    names = SQLITE_INDEXES if long_ledger.kind is DatabaseKind.SQLITE else {}
    expected = {names.get(name, name) for name in statement.indexes}
    used: set[str] = set()
    for plan in explained.value.plans:
        assert plan.indexes <= expected, plan.text
        used |= plan.indexes
    assert expected - used <= {"jobs_pkey"}  # a small table may be read as a whole
