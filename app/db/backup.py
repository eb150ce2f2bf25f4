"""A consistent copy of a SQLite database while a service writes to it.

SQLite's backup API copies all pages in one step, under one read transaction. In WAL mode that keeps
no writer waiting; the log grows meanwhile by what is written. (In several steps the copy would
begin anew after every write of another process and might never end. ``VACUUM INTO`` reads the same
snapshot, but sorts everything into a new file: several times the work, for a smaller copy.)

The copy grows as ``FILE.part`` and gets its name when it is whole, checked and on the disk.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.db.damage import holds_log, refuse_lost_file
from app.domain.errors import StorageUnavailableError

# Only recovery or a migration locks readers out, both for moments.
_PATIENCE_SECONDS = 30.0
_RETRY_SECONDS = 0.1
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupMade:
    """A copy that was made: its size in bytes and what it holds."""

    path: Path
    size_bytes: int
    revision: str
    jobs: int
    executions: int


def back_up(database: Path, target: Path) -> BackupMade:
    """Copy ``database`` to the new file ``target``, readable by its owner only.

    Raises ``StorageUnavailableError`` with a sentence, and ``StorageDamagedError`` if nothing but a
    log is there; an existing ``target`` is as it was, and
    no partial file is left.
    """
    if not database.is_file():
        raise StorageUnavailableError(f"There is no database at {database}; correct DATABASE_URL")
    refuse_lost_file(database)
    if target.exists() or target.is_symlink():
        raise StorageUnavailableError(
            f"{target} exists already and was not changed; choose another name, or remove it"
        )
    part = target.with_name(target.name + ".part")
    try:
        with _part_file(part) as descriptor:
            _copy(database, part)
            made = _inspect(part, target)
            os.fsync(descriptor)
            part.rename(target)
            _sync_directory(target.parent)
    except sqlite3.Error as error:
        raise StorageUnavailableError(
            f"{database} could not be copied to {target}: {error}; nothing was left there"
        ) from error
    except OSError as error:
        raise StorageUnavailableError(
            f"{target} could not be written: {error.strerror}; choose another place"
        ) from error
    return made


@contextlib.contextmanager
def _part_file(part: Path) -> Iterator[int]:
    """Own the partial file (an earlier attempt's is begun anew); remove it unless it was renamed.

    The descriptor stays open until SQLite is done with the file: closing one would end its locks.
    """
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        _own(descriptor, part)
        try:
            yield descriptor
        finally:
            part.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _own(descriptor: int, part: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageUnavailableError(f"Another backup is writing {part} at this moment") from error
    os.ftruncate(descriptor, 0)
    os.fchmod(descriptor, _MODE)


def _copy(database: Path, part: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS

    def give_up(status: int, _remaining: int, _total: int) -> None:
        # Called after each step; one that met a lock is repeated, for ever if nobody objects.
        if status != sqlite3.SQLITE_DONE and time.monotonic() > deadline:
            raise sqlite3.OperationalError("it was locked all the time")

    # A reader that could not write would leave an empty log behind where no service runs, and one
    # that could moves into the file what a crash left in its log.
    with (
        contextlib.closing(
            _connect(database, mode="ro" if holds_log(database) else "rw")
        ) as source,
        contextlib.closing(_connect(part, mode="rw")) as copy,
    ):
        source.execute("PRAGMA query_only=ON")
        source.backup(copy, pages=-1, progress=give_up, sleep=_RETRY_SECONDS)
        # One file: no log beside it, so that it can be moved and read as it is.
        copy.execute("PRAGMA journal_mode=DELETE")


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """Open a file that exists; it is never made."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)


def _inspect(part: Path, target: Path) -> BackupMade:
    """Check the copy as SQLite can, and tell what it holds."""
    with contextlib.closing(_connect(part, mode="ro")) as copy:
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise StorageUnavailableError(
                f"The copy is damaged ({verdict}), so the database is; nothing was left at "
                f"{target}. Run myscheduler check"
            )
        (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        (jobs,) = copy.execute("SELECT count(*) FROM jobs WHERE state <> 'deleted'").fetchone()
        (executions,) = copy.execute("SELECT count(*) FROM executions").fetchone()
    return BackupMade(
        path=target,
        size_bytes=part.stat().st_size,
        revision=revision,
        jobs=jobs,
        executions=executions,
    )


def _sync_directory(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
