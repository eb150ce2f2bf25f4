"""One process on one SQLite file: the lock on its directory, and the leader that nobody contests.

The lock is the operating system's (``flock``), so it is gone when its process is, however that
ended. The file beside the database names the owner for whoever is refused.
"""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO

from app.db.unit_of_work import WriteConnection
from app.domain.clock import Clock
from app.domain.errors import StorageInUseError, StorageUnavailableError
from app.repositories import leadership_repository


class DataLock:
    """Exclusive ownership of a database file, from ``acquire`` to ``release``."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self, *, clock: Clock) -> None:
        """Take the lock, or raise ``StorageInUseError`` naming who holds it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StorageUnavailableError(
                f"The data directory {self._path.parent} cannot be written: {error.strerror}; "
                "choose another one by DATABASE_URL, or give this user the right to write there"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe(file)
            file.close()
            raise StorageInUseError(
                f"Another MyScheduler process uses {self._path.parent}: {holder}. "
                "Stop it first, or give this one a database of its own by DATABASE_URL"
            ) from error
        file.seek(0)
        file.truncate()
        since = clock.now().isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


class EmbeddedLeader:
    """The leader of a database that only this process uses.

    Its term is counted up at every start, so that what an earlier process claimed is told apart.
    """

    def __init__(self, *, owner: str, term: int) -> None:
        self._owner = owner
        self._term = term

    @property
    def owner(self) -> str:
        """Name this process in the rows it claims."""
        return self._owner

    @property
    def term(self) -> int:
        """Tell the term of this start."""
        return self._term

    def guard(self, connection: WriteConnection) -> None:
        """Refuse the transaction if another process has started on this database since."""
        leadership_repository.guard_term(connection, term=self._term)


def process_name() -> str:
    """Name this process among all that may use a database: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _describe(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "its process did not leave its name"
