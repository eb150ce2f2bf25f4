"""``myscheduler move``: who must not use the two databases meanwhile, and what is told."""

import asyncio
import sys
import time

import structlog

from app.backends.embedded import DataLock
from app.backends.postgres.leader import LOCK_KEY
from app.core.config import Settings
from app.core.logging import configure_logging
from app.db.move import Moved, Progress
from app.db.move import move as move_database
from app.db.session import DatabaseOptions
from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError

log = structlog.get_logger(__name__)

# Of a long move a line is written this often.
_TELL_EVERY_SECONDS = 5.0


def move(settings: Settings, source: str, target: str) -> Moved:
    """Move everything from an SQLite address to a PostgreSQL one, neither of which may be served.

    Raises ``StorageInUseError`` and ``StorageUnavailableError``.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stderr)
    path = DatabaseOptions(url=source).sqlite_path
    if not path.is_file():
        raise StorageUnavailableError(f"There is no database at {path}; correct --from")
    lock = DataLock(path)
    lock.acquire(clock=SystemClock())
    try:
        options = DatabaseOptions(url=target)
        telling = _Telling()
        return asyncio.run(
            move_database(path, options, leader_lock=LOCK_KEY, on_progress=telling.hear)
        )
    finally:
        lock.release()


class _Telling:
    """Writes a line of the log now and then."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def hear(self, progress: Progress) -> None:
        """Take note of one more batch."""
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_SECONDS:
            self._told = now
            log.info(
                "move.progressed",
                table=progress.table,
                copied=progress.copied,
                total=progress.total,
            )
