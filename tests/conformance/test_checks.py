"""``myscheduler check``: what it finds, on a database that each test damages in its own way."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db.session import DatabaseOptions
from app.db.unit_of_work import WriteConnection
from app.domain.clock import SystemClock, to_us
from app.engine.auditor import Auditor, AuditorOptions, AuditRequest
from app.services.check_service import CheckService, Finding
from tests.conformance.builders import add_job
from tests.support.births import any_birth
from tests.support.databases import Database, DatabaseKind

NAMES = ["integrity", "foreign_keys", "revision", "schema", "leases", "jobs", "ledger"]
CLOCK = SystemClock()


async def check(database: Database, *, holder: str | None = None) -> dict[str, Finding]:
    options = AuditorOptions(every=timedelta(0))
    auditor = Auditor(unit_of_work=database.unit_of_work, clock=CLOCK, options=options)
    service = CheckService(
        unit_of_work=database.unit_of_work,
        clock=CLOCK,
        holder=holder,
        prove=lambda: auditor.verify(AuditRequest()),
    )
    return {finding.name: finding for finding in await service.check()}


async def wrong(database: Database, **options: str | None) -> dict[str, str]:
    """Tell what is not well, and why."""
    found = await check(database, **options)
    return {name: finding.detail for name, finding in found.items() if not finding.well}


async def change(database: Database, *statements: str) -> None:
    """Change a database as the program never would."""

    def run(connection: sa.Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    await database.unit_of_work.write(run)


async def run_until(database: Database, *, ago: timedelta) -> None:
    """Store an execution that is running under a lease which ended some time ago."""
    job = await add_job(database)
    lease = to_us(CLOCK.now() - ago)
    statement = (
        "INSERT INTO executions (id, job_id, job_revision, clock_epoch, cause, scheduled_us,"
        " instant_count, status, exclusive, attempts, retries, owner, fence, lease_until_us,"
        " queued_us, attempt_started_us)"
        " VALUES ('exe', :job, 1, 0, 'manual', 1, 1, 'running', 1, 1, 0, 'me', 1, :lease, 1, 1)"
    )

    def store(connection: WriteConnection) -> None:
        with any_birth(connection):
            connection.execute(sa.text(statement), {"job": job.id, "lease": lease})

    await database.write(store)


async def test_all_is_well(database: Database):
    """On a database in use every check is made and finds nothing."""
    await run_until(database, ago=timedelta(seconds=-60))
    assert list(await check(database)) == NAMES
    assert await wrong(database) == {}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DROP INDEX executions_ready", "executions_ready"),
        ("ALTER TABLE jobs ADD COLUMN extra TEXT", "extra"),
        ("DROP TABLE idempotency_keys", "idempotency_keys"),
    ],
)
async def test_a_changed_schema_is_found(own: Database, statement: str, told: str):
    """A table, column or index that something else changed is named."""
    await change(own, statement)
    found = await wrong(own)
    assert list(found) == ["schema"]
    assert told in found["schema"]


async def test_a_missing_guard_is_found(own: Database):
    """A trigger that is gone is named."""
    on_table = "" if own.kind is DatabaseKind.SQLITE else " ON executions"
    await change(own, f"DROP TRIGGER executions_final_is_final{on_table}")
    found = await wrong(own)
    assert list(found) == ["schema"]
    assert "trigger executions_final_is_final" in found["schema"]


@pytest.mark.only_on(
    DatabaseKind.SQLITE, because="PostgreSQL writes conditions its own way: they are not compared"
)
async def test_a_changed_condition_is_found(sqlite: Database):
    """An index that lost its condition is named."""
    await change(
        sqlite,
        "DROP INDEX executions_ready",
        "CREATE INDEX executions_ready ON executions (next_attempt_us)",
    )
    found = await wrong(sqlite)
    assert list(found) == ["schema"]
    assert "index executions_ready differs" in found["schema"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "a newer version migrated"),
        ("DELETE FROM alembic_version", "without this program's mark"),
    ],
)
async def test_another_revision_is_found(own: Database, statement: str, told: str):
    """A schema that is not this program's is told from which side it differs."""
    await change(own, statement)
    found = await wrong(own)
    assert list(found) == ["revision"]
    assert told in found["revision"]


async def test_an_older_revision_is_found(own: Database):
    """A schema that this program would migrate is told so."""
    await change(own, "UPDATE alembic_version SET version_num = '0001'")
    found = await wrong(own)
    assert found["revision"].endswith("run myscheduler migrate")


@pytest.mark.only_on(
    DatabaseKind.SQLITE, because="a server enforces references for every connection"
)
async def test_dangling_references_are_found(sqlite: Database):
    """A row whose job is missing is found."""
    await add_job(sqlite)
    path = DatabaseOptions(url=sqlite.url).sqlite_path
    engine = sa.create_engine(f"sqlite:///{path}")  # without our pragmas
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    engine.dispose()
    found = await wrong(sqlite)
    assert list(found) == ["foreign_keys"]
    assert "job_revisions to jobs" in found["foreign_keys"]


async def test_runs_beyond_their_lease_are_found(database: Database):
    """A run that nobody settles is found, with advice by whether a service runs."""
    await run_until(database, ago=timedelta(minutes=1))
    (alone,) = (await wrong(database)).items()
    (held,) = (await wrong(database, holder="process 1 on host, since then")).items()
    assert alone[0] == held[0] == "leases"
    assert "no service runs; start it" in alone[1]
    assert "process 1 on host" in held[1]


async def test_a_lease_that_just_ended_is_no_fault(database: Database):
    """Within the recovery period nothing is wrong."""
    await run_until(database, ago=timedelta(seconds=1))
    assert await wrong(database) == {}


async def test_a_missing_entry_is_found(database: Database):
    """A due run that the schedule had and the history has not is counted."""
    job = await add_job(database)
    later = to_us(job.cursor + 3 * timedelta(days=1))
    change = f"UPDATE jobs SET cursor_us = {later}, next_run_us = {later + 1}"  # noqa: S608 - numbers
    await database.execute(change)
    found = await wrong(database)
    assert list(found) == ["ledger"]
    assert "due runs have no entry" in found["ledger"]


async def test_unreadable_jobs_are_found(database: Database):
    """A job whose definition cannot be read is named, with what to do."""
    job = await add_job(database)
    await database.execute("UPDATE jobs SET schedule = '{}'")
    found = await wrong(database)
    assert list(found) == ["jobs"]
    assert f"1 jobs cannot be read: {job.id}." in found["jobs"]


@pytest.mark.only_on(DatabaseKind.SQLITE, because="a server keeps its own files")
async def test_a_damaged_file_is_found(sqlite: Database):
    """Damage is told in SQLite's words; what cannot be read does not end the check."""
    await add_job(sqlite)
    path = DatabaseOptions(url=sqlite.url).sqlite_path
    await sqlite.unit_of_work.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    overwrite(path)
    found = await check(sqlite)
    assert list(found) == NAMES
    assert not found["integrity"].well
    assert "put a backup in its place" in found["integrity"].detail


def overwrite(path: Path) -> None:
    """Write zeros over all but the first page, in the log as well."""
    log = path.with_name(path.name + "-wal")
    for file, keep in ((path, 4096), (log, log.stat().st_size)):
        with file.open("r+b") as opened:
            opened.seek(keep)
            opened.write(bytes(max(os.fstat(opened.fileno()).st_size - keep, 0)))
