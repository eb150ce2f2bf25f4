"""Is an SQLite file damaged? Asked before a start changes anything, and told while it is used.

A look changes no byte of the file or of its log. SQLite says at the first page that it cannot make
sense of that it cannot; a service that went on would write around the hole, so it ends there.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import StorageDamagedError

T = TypeVar("T")

# A start takes a second. In this time up to 50 MB are looked at, of a larger file the beginning of
# each table; what lies behind is found when it is read.
_LOOK_SECONDS = 0.25
# The tables that grow, looked at last: each leaves the next ones what time it does not need.
_LARGE = ("jobs", "job_revisions", "attempts", "executions")
_AGAIN_SECONDS = 0.01
_PATIENCE_SECONDS = 5.0
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
REMEDY = (
    "run myscheduler check to see what is wrong, keep the file with those beside it, and put a "
    "backup in its place"
)

log = structlog.get_logger(__name__)


class Damage:
    """What is known of the file that a service has open: no damage, until some is met.

    Shared by those who read and the one who writes, each in threads of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_known = False

    def refuse(self) -> None:
        """Raise ``StorageDamagedError`` once damage is known; it does not heal by itself."""
        if self._is_known:
            raise StorageDamagedError

    def note(self, error: BaseException) -> None:
        """Remember that a statement failed on damage; other faults are none."""
        if not is_damage(error):
            return
        with self._lock:
            if not self._is_known:
                self._is_known = True
                why = str(getattr(error, "orig", error))
                log.error("storage.damaged", path=str(self._path), why=why)

    @contextlib.contextmanager
    def left_alone(self) -> Iterator[None]:
        """Let those who leave a damaged file within the block leave its log beside it, too.

        The last writer to leave would move the log into the file. One that only reads cannot, and
        here it is the last.
        """
        if not self._is_known:
            yield
            return
        with contextlib.closing(_open(self._path, "mode=ro")) as last:
            with contextlib.suppress(sqlite3.Error):
                last.execute("SELECT count(*) FROM sqlite_master")
            yield


def is_damage(error: BaseException) -> bool:
    """Tell whether an error of SQLite, wrapped or not, says that the file is damaged or none."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in _DAMAGE


def log_of(path: Path) -> Path:
    """Name the write-ahead log of a file."""
    return path.with_name(path.name + "-wal")


def holds_log(path: Path) -> bool:
    """Tell whether changes lie beside a file; whoever leaves it last as a writer moves them in."""
    log_file = log_of(path)
    return log_file.exists() and log_file.stat().st_size > 0


def refuse_lost_file(path: Path) -> None:
    """Raise ``StorageDamagedError`` if a log is all there is: SQLite would remove it as a stray."""
    if holds_log(path) and not (path.exists() and path.stat().st_size):
        what = "is empty" if path.exists() else "is missing"
        raise StorageDamagedError(
            f"The database file {path} {what}, but changes that belong to it lie in "
            f"{log_of(path)}; nothing was changed. Put the file back beside its log; or, if it "
            "is lost, move the log away and put a backup in the file's place"
        )


def refuse_damaged_file(path: Path, *, seconds: float = _LOOK_SECONDS) -> None:
    """Raise ``StorageDamagedError`` if a short look finds a table or an index damaged.

    Raises what SQLite raises where it cannot look.
    """
    look = partial(find_damaged_table, seconds=seconds)
    found = read_unchanged(path, look) if path.exists() else None
    if found is not None:
        raise StorageDamagedError(
            f"The database file {path} is damaged ({found}) and was not changed; {REMEDY}"
        )


def find_damaged_table(connection: sqlite3.Connection, *, seconds: float) -> str | None:
    """Look at one table after the other with its indexes; tell the first problem, or none.

    Takes hardly longer than ``seconds``. Each table gets its share of what time is left, so that no
    large one hides the rest.
    """
    ends_at = time.monotonic() + seconds
    tables = [name for (name,) in connection.execute(_TABLES)]
    tables.sort(key=lambda name: _LARGE.index(name) if name in _LARGE else -1)
    for done, table in enumerate(tables):
        left = ends_at - time.monotonic()
        if left <= 0:
            return None
        with _interrupting(connection, after=left / (len(tables) - done)):
            problem = _check_table(connection, table)
        if problem is not None:
            return f"table {table}: {problem}"
    return None


@contextlib.contextmanager
def _interrupting(connection: sqlite3.Connection, *, after: float) -> Iterator[None]:
    """Break off what a connection does in the block when a time in seconds is over.

    SQLite's own callback would not do: within one step it walks all pages of a table.
    """
    over = threading.Event()

    def interrupt() -> None:
        wait = after
        while not over.wait(wait):
            connection.interrupt()
            wait = _AGAIN_SECONDS  # the statement had maybe not begun

    alarm = threading.Thread(target=interrupt, name="sqlite-alarm", daemon=True)
    alarm.start()
    try:
        yield
    finally:
        over.set()
        alarm.join()


def _check_table(connection: sqlite3.Connection, table: str) -> str | None:
    """Check a table's pages and rows, and the pages of its indexes."""
    name = table.replace("'", "''")
    try:
        (verdict,) = connection.execute(f"PRAGMA quick_check('{name}')").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        if is_damage(error):
            return str(error)
        raise
    return None if verdict == "ok" else " ".join(str(verdict).split())


def read_unchanged(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read a file with what lies in its log, changing neither.

    Where no log lies beside the file it leaves none there. Raises what ``read`` raises.
    """
    log_file = log_of(path)
    if not log_file.exists():
        try:
            found = _read(path, "mode=ro&immutable=1", read)
        except (sqlite3.Error, SQLAlchemyError):
            if not log_file.exists():
                raise
        else:
            if not log_file.exists():
                return found
    # What lies in a log belongs to the file, and while there is one the file may change.
    return _read(path, "mode=ro", read)


def _read(path: Path, mode: str, read: Callable[[sqlite3.Connection], T]) -> T:
    with contextlib.closing(_open(path, mode)) as connection:
        return read(connection)


def _open(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.as_uri()}?{mode}"
    return sqlite3.connect(address, uri=True, timeout=_PATIENCE_SECONDS, check_same_thread=False)
