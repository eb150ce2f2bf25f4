"""What the command line does with the database besides serving."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from app.core.config import Settings
from app.core.logging import configure_logging
from app.db.migrate import migrate as migrate_database
from app.db.session import DatabaseOptions, open_postgres_reader, open_sqlite_reader
from app.db.unit_of_work import UnitOfWork, WriteConnection
from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError
from app.services.schedule_service import JobTransitions, ScheduleService


def migrate(settings: Settings) -> list[str]:
    """Bring the database to this version's schema; return the revisions applied."""
    options = DatabaseOptions(url=settings.database_url)
    return asyncio.run(migrate_database(options))


def report_transitions(settings: Settings, *, year: int | None) -> list[JobTransitions]:
    """Tell what each stored job does where its zone's clock jumps in a year (None: this one).

    Reads the database only; a service may run on it. Raises ``StorageUnavailableError``.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    return asyncio.run(_report_transitions(settings, year))


class _NoWriter:
    """The writing door of a program that only reads."""

    async def write(self, unit: Callable[[WriteConnection], Any]) -> NoReturn:
        """Refuse: nothing here writes."""
        raise AssertionError(f"{unit} must not be written")

    async def close(self) -> None:
        """Do nothing: nothing is open."""


async def _report_transitions(settings: Settings, year: int | None) -> list[JobTransitions]:
    options = DatabaseOptions(url=settings.database_url, readers=1)
    if not options.is_sqlite:
        reader = open_postgres_reader(options.url, connections=1)
    elif options.sqlite_path.exists():
        reader = open_sqlite_reader(options.sqlite_path, readers=1)
    else:
        raise StorageUnavailableError(
            "There is no database where DATABASE_URL points; correct it, or start the service once"
        )
    unit_of_work = UnitOfWork(reader=reader, writer=_NoWriter())
    try:
        service = ScheduleService(unit_of_work=unit_of_work, clock=SystemClock())
        return await service.report(year)
    finally:
        await unit_of_work.close()
