"""What the command line does with the database besides serving."""

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from app.backends.embedded import DataLock
from app.core.config import LogLevel, Settings
from app.core.logging import configure_logging
from app.db.backup import BackupMade, back_up
from app.db.migrate import migrate as migrate_database
from app.db.session import DatabaseOptions, open_postgres_reader, open_sqlite_onlooker
from app.db.unit_of_work import Reader, UnitOfWork, WriteConnection
from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError
from app.domain.ids import JobId
from app.engine.audit_walk import Audit
from app.engine.auditor import Auditor, AuditorOptions, AuditRequest
from app.engine.explanation import Explanation
from app.schemas.explain_request import check_asked, read_asked
from app.services.check_service import CheckService, Finding
from app.services.explain_service import ExplainOptions, ExplainService
from app.services.schedule_service import JobTransitions, ScheduleService


def migrate(settings: Settings) -> list[str]:
    """Bring the database to this version's schema; return the revisions applied."""
    return asyncio.run(migrate_database(DatabaseOptions(url=settings.session_url)))


def backup(settings: Settings, target: Path) -> BackupMade:
    """Copy the database to a new file; a service may run on it. Raises as ``db.backup`` does."""
    options = DatabaseOptions(url=settings.database_url)
    if not options.is_sqlite:
        raise StorageUnavailableError(
            "A PostgreSQL database is backed up with its own tool: run pg_dump with the address "
            "that DATABASE_URL holds, for example pg_dump --format=custom --file=FILE"
        )
    return back_up(options.sqlite_path, target.absolute())


def check(settings: Settings) -> list[Finding]:
    """Check the database and what it promises; a service may run on it.

    Raises ``StorageUnavailableError`` if there is no database.
    """
    # What cannot be read is among the findings.
    configure_logging(LogLevel.ERROR, settings.log_format, stream=sys.stderr)
    return asyncio.run(_check(settings))


def report_transitions(settings: Settings, *, year: int | None) -> list[JobTransitions]:
    """Tell what each stored job does where its zone's clock jumps in a year (None: this one).

    Reads the database only; a service may run on it. Raises ``StorageUnavailableError``.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    return asyncio.run(_report_transitions(settings, year))


def explain(settings: Settings, job_id: str, at: str | None) -> Explanation:
    """Tell why a job did, did not, will or will not run at a time (None: now).

    Reads the database only; a service may run on it. Raises ``StorageUnavailableError``,
    ``JobNotFoundError``, and ``InvalidScheduleError`` for what is no time.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    return asyncio.run(_explain(settings, JobId(job_id), None if at is None else check_asked(at)))


def verify(settings: Settings, request: AuditRequest) -> Audit:
    """Prove the ledger; a service may run on it, and is only read beside.

    Raises ``StorageUnavailableError`` and ``JobNotFoundError``.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    return asyncio.run(_verify(settings, request))


class _NoWriter:
    """The writing door of a program that only reads."""

    async def write(self, unit: Callable[[WriteConnection], Any]) -> NoReturn:
        """Refuse: nothing here writes."""
        raise AssertionError(f"{unit} must not be written")

    async def close(self) -> None:
        """Do nothing: nothing is open."""


async def _check(settings: Settings) -> list[Finding]:
    options = DatabaseOptions(url=settings.session_url, readers=1)
    unit_of_work = _open_to_read(options)
    holder = DataLock(options.sqlite_path).holder() if options.is_sqlite else None
    try:
        service = CheckService(
            unit_of_work=unit_of_work,
            clock=SystemClock(),
            holder=holder,
            prove=lambda: _open_auditor(unit_of_work).verify(AuditRequest()),
        )
        return await service.check()
    finally:
        await unit_of_work.close()


async def _verify(settings: Settings, request: AuditRequest) -> Audit:
    unit_of_work = _open_to_read(DatabaseOptions(url=settings.session_url, readers=1))
    try:
        return await _open_auditor(unit_of_work).verify(request)
    finally:
        await unit_of_work.close()


def _open_auditor(unit_of_work: UnitOfWork) -> Auditor:
    options = AuditorOptions(every=timedelta(0))
    return Auditor(unit_of_work=unit_of_work, clock=SystemClock(), options=options)


async def _explain(settings: Settings, job_id: JobId, at: str | None) -> Explanation:
    unit_of_work = _open_to_read(DatabaseOptions(url=settings.session_url, readers=1))
    options = ExplainOptions(
        concurrency=settings.concurrency, host_concurrency=settings.host_concurrency
    )
    try:
        service = ExplainService(unit_of_work=unit_of_work, clock=SystemClock(), options=options)
        asked = read_asked(at, await service.schedule_of(job_id), now=service.now())
        return await service.explain(job_id, asked)
    finally:
        await unit_of_work.close()


async def _report_transitions(settings: Settings, year: int | None) -> list[JobTransitions]:
    unit_of_work = _open_to_read(DatabaseOptions(url=settings.session_url, readers=1))
    try:
        service = ScheduleService(unit_of_work=unit_of_work, clock=SystemClock())
        return await service.report(year)
    finally:
        await unit_of_work.close()


def _open_to_read(options: DatabaseOptions) -> UnitOfWork:
    """Open a database that is there; nothing is made or changed."""
    reader: Reader
    if not options.is_sqlite:
        reader = open_postgres_reader(options.url, connections=1)
    elif options.sqlite_path.exists():
        reader = open_sqlite_onlooker(options.sqlite_path)
    else:
        raise StorageUnavailableError(
            "There is no database where DATABASE_URL points; correct it, or start the service once"
        )
    return UnitOfWork(reader=reader, writer=_NoWriter())
