"""One process on one SQLite file: its lock, room for a clean stop, the leader nobody contests.

The lock is the operating system's, on the open file (``F_OFD_SETLK`` of fcntl(2), Linux): it is
gone when its process is, however that ended, and whoever asks for its holder takes nothing. The
file beside the database names the owner for whoever is refused.
"""

import fcntl
import json
import math
import os
import shutil
import socket
import struct
from datetime import datetime
from io import FileIO
from pathlib import Path

import structlog

from app.backends.filesystems import MOUNTS, refuse_network
from app.db.unit_of_work import WriteConnection
from app.domain.clock import Clock
from app.domain.errors import StorageInUseError, StorageUnavailableError
from app.domain.ids import ExecutionId, JobId
from app.domain.tenure import Tenure
from app.repositories import leadership_repository

log = structlog.get_logger(__name__)

# ``struct flock``: kind, whence, start, length (0: to the end, however far), process (0: asked for
# by an open file).
_FLOCK = "hhqqi4x"
_WHOLE_FILE = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
# Enough for the outcomes of 200 attempts with the largest excerpts, and for the log's way into the
# file.
_RESERVE_BYTES = 64 * 1024 * 1024
_RESERVE_BYTES_MIN = 256 * 1024
# Of a small disk the reserve takes no more than this part of what is free.
_RESERVE_SHARE = 4


class DataLock:
    """Exclusive ownership of a database file, from ``acquire`` to ``release``."""

    def __init__(self, database: Path, *, mounts: Path = MOUNTS) -> None:
        self._database = database
        self._mounts = mounts
        self._path = database.with_name(database.name + ".lock")
        self._file: FileIO | None = None

    def acquire(self, *, clock: Clock) -> None:
        """Take the lock, or raise ``StorageInUseError`` naming who holds it.

        Raises ``StorageUnavailableError`` where no lock can be kept: in a directory that cannot be
        written, on a network file system.
        """
        refuse_network(self._database, mounts=self._mounts)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise StorageUnavailableError(
                f"The data directory {self._path.parent} cannot be written: {error.strerror}; "
                "choose another one by DATABASE_URL, or give this user the right to write there"
            ) from error
        try:
            self._lock(file)
        except BaseException:
            file.close()
            raise
        _sign(file, clock)
        self._file = file

    def holder(self) -> str | None:
        """Describe the process that holds the lock; None if none does."""
        try:
            file = self._path.open("rb", buffering=0)
        except OSError:
            return None
        with file:
            return _describe(file) if _is_locked(file) else None

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lock(self, file: FileIO) -> None:
        """Lock an open file, or say who has it; the kernel ends the lock with the process."""
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except BlockingIOError as error:
            raise StorageInUseError(
                f"Another MyScheduler process uses {self._path.parent}: {_describe(file)}. "
                "Stop it first, or give this one a database of its own by DATABASE_URL"
            ) from error
        except OSError as error:
            raise StorageUnavailableError(
                f"The data directory {self._path.parent} takes no locks: {error.strerror}; "
                "choose one on a local disk by DATABASE_URL"
            ) from error


class StopReserve:
    """Disk space held back while the service runs, so that a stop on a full disk is a clean one.

    Without it, what attempts came to could not be written at a stop, and they would be made again.
    Held for the length of a ``with`` block; left behind by a crash. Best effort: what goes wrong
    is logged, not raised.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".reserve")

    def __enter__(self) -> None:
        """Hold back 64 MiB, or a quarter of what is free on a small disk."""
        try:
            free = shutil.disk_usage(self._path.parent).free
            held = self._path.stat().st_size if self._path.exists() else 0
            size = min(_RESERVE_BYTES, (free + held) // _RESERVE_SHARE)
            if size < _RESERVE_BYTES_MIN:
                log.warning("storage.nearly_full", free_bytes=free)
                return
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            log.warning("storage.reserve_failed", error=error.strerror)

    def __exit__(self, *_: object) -> None:
        """Give the space back to the disk."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("storage.reserve_failed", error=error.strerror)


class NoWakeups:
    """Wakes nobody: this process is alone on its database."""

    def job_changed(self, job_id: JobId) -> None:
        """Do nothing."""

    def runs_waiting(self) -> None:
        """Do nothing."""

    def cancel_job(self, job_id: JobId) -> None:
        """Do nothing."""

    def cancel_run(self, execution_id: ExecutionId) -> None:
        """Do nothing."""


class EmbeddedLeader:
    """The leader of a database that only this process uses.

    Its term is counted up at every start, so that what an earlier process claimed is told apart.
    """

    def __init__(self, *, owner: str, term: int, since: datetime) -> None:
        self._owner = owner
        self._term = term
        self._tenure = Tenure(terms_won=1, leading_since=since)

    @property
    def owner(self) -> str:
        """Name this process in the rows it claims."""
        return self._owner

    @property
    def fence(self) -> int:
        """Tell the fence of this start's claims: its term."""
        return self._term

    @property
    def in_touch_since(self) -> float:
        """Tell that its file was always there."""
        return -math.inf

    @property
    def tenure(self) -> Tenure:
        """Tell of the one term, which lasts as long as the process."""
        return self._tenure

    def guard(self, connection: WriteConnection) -> None:
        """Refuse the transaction if another process has started on this database since."""
        leadership_repository.guard_term(connection, term=self._term)


def process_name() -> str:
    """Name this process among all that may use a database: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_locked(file: FileIO) -> bool:
    """Tell whether an open file is locked by another one; nothing is taken, not for a moment."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    kind: int = struct.unpack(_FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK


def _sign(file: FileIO, clock: Clock) -> None:
    """Leave the owner's name for whoever is refused; a full disk may keep it from being written."""
    since = clock.now().isoformat(timespec="seconds")
    name = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    try:
        file.truncate(0)
        file.write(name.encode())
    except OSError as error:
        log.warning("storage.owner_unnamed", error=error.strerror)


def _describe(file: FileIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "its process did not leave its name"
