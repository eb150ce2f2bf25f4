"""The SQLite file that a move reads: one snapshot, batch by batch, and its checksums.

Nothing is written to it. The caller holds the lock of the data directory, so nobody else does.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import sqlalchemy as sa

from app.domain.errors import StorageUnavailableError
from app.models.tables import metadata

Row: TypeAlias = tuple[int | str | None, ...]

# One transaction on the target takes so many rows, or fewer if they hold this many characters.
BATCH_ROWS = 5_000
_BATCH_CHARACTERS = 16 * 2**20
_DIGEST_BYTES = 16
# Parents before the rows that refer to them.
TABLES = tuple(metadata.sorted_tables)


@dataclass(frozen=True, slots=True)
class Checksum:
    """How many rows there are and a digest of them all, whatever their order."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Survey:
    """The checksum of each table, and a fingerprint that tells this state from every other.

    A VACUUM changes the fingerprint too: it may change the row numbers by which a move goes on.
    """

    sums: dict[str, Checksum]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order of their columns; ``last`` is SQLite's own number of the last one."""

    rows: list[Row]
    last: int


class Summing:
    """Digests rows of integers, texts and nulls: the sum of a hash of each."""

    def __init__(self) -> None:
        self._rows = 0
        self._total = 0

    def add(self, row: Row) -> None:
        """Take one more row."""
        hashed = hashlib.blake2b(repr(row).encode(), digest_size=_DIGEST_BYTES)
        self._total += int.from_bytes(hashed.digest())
        self._rows += 1

    def checksum(self) -> Checksum:
        """Tell the sum so far."""
        total = self._total % 2 ** (8 * _DIGEST_BYTES)
        return Checksum(self._rows, f"{total:0{2 * _DIGEST_BYTES}x}")


def sum_up(rows: Iterable[Row]) -> Checksum:
    """Digest all rows."""
    summing = Summing()
    for row in rows:
        summing.add(row)
    return summing.checksum()


@contextlib.contextmanager
def open_source(path: Path) -> Iterator["MoveSource"]:
    """Open the snapshot for the length of the block.

    Raises ``StorageUnavailableError`` if it is no database of this program.
    """
    # Not mode=ro: it could not read what a killed process left in the log.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield MoveSource(connection)
    except sqlite3.Error as error:
        raise StorageUnavailableError(
            f"{path} cannot be read: {error}. Run myscheduler check on it"
        ) from error


class MoveSource:
    """What is moved."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def revision(self) -> str:
        """Tell the schema's revision."""
        found = self._connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found[0])

    def survey(self) -> "Survey":
        """Read everything once."""
        numbers = [
            self._connection.execute(
                f"SELECT count(*), total(rowid), max(rowid) FROM {table.name}"  # noqa: S608 - a constant
            ).fetchone()
            for table in TABLES
        ]
        sums = {
            table.name: sum_up(row[1:] for row in self._rows(table, after=0)) for table in TABLES
        }
        return Survey(sums, sum_up([(repr(numbers), repr(sums))]).digest)

    def batches(self, table: sa.Table, *, after: int) -> Iterator[Batch]:
        """Read a table's rows behind the one numbered ``after``, in order."""
        rows: list[Row] = []
        last, characters = after, 0
        for number, *values in self._rows(table, after=after):
            rows.append(tuple(values))
            last = number
            characters += sum(len(value) for value in values if isinstance(value, str))
            if len(rows) >= BATCH_ROWS or characters >= _BATCH_CHARACTERS:
                yield Batch(rows, last)
                rows, characters = [], 0
        if rows:
            yield Batch(rows, last)

    def _rows(self, table: sa.Table, *, after: int) -> sqlite3.Cursor:
        columns = ", ".join(column.name for column in table.columns)
        statement = f"SELECT rowid, {columns} FROM {table.name} WHERE rowid > ? ORDER BY rowid"  # noqa: S608 - constants
        return self._connection.execute(statement, (after,))
