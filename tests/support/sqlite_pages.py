"""An SQLite file with some megabytes in it, and damage to the pages of one table or index."""

import contextlib
import random
import sqlite3
from pathlib import Path

_PAGE = 4096
# What the copies of a row differ in. Of numbers that the database gives, each copy gets its own.
_KEYS = {
    "jobs": ("id",),
    "job_revisions": ("job_id",),
    "executions": ("id", "job_id"),
    "attempts": ("execution_id",),
    "idempotency_keys": ("key",),
    "job_totals": ("job_id",),
    "service_events": (),
}
_NUMBERED = "seq"
_COPY = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO {table} ({names}) SELECT {values} FROM {table}, n"""
# The kinds of a page, as its first byte tells them (page 1 has the file's header before it).
_INTERIOR = {2, 5}
_CHILDREN_FROM = 12


def multiply(path: Path, times: int) -> None:
    """Copy each row of a file that nobody uses, past the guards against rows from nowhere.

    The copies of what is called ``x`` are called ``x-1``, ``x-2``, …
    """
    with contextlib.closing(sqlite3.connect(path)) as database:
        guards = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = guards.fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for table in _KEYS:
            database.execute(_copying(database, table), (times,))
        for _, text in triggers:
            database.execute(text)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def leave_a_log(path: Path) -> None:
    """Leave the file as a crash does: with a log beside it that holds a change (to page 1)."""
    log = path.with_name(path.name + "-wal")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
        database.commit()
        left = log.read_bytes()
        before = path.read_bytes()
    path.write_bytes(before)
    log.write_bytes(left)


def damage_middle(path: Path, name: str) -> None:
    """Overwrite a leaf in the middle of a table or an index."""
    leaves = _leaves(path, name)
    _overwrite(path, leaves[len(leaves) // 2 : len(leaves) // 2 + 1])


def damage_leaves(path: Path, name: str) -> None:
    """Overwrite every leaf of a table or an index."""
    _overwrite(path, _leaves(path, name))


def _copying(database: sqlite3.Connection, table: str) -> str:
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = [_value(name, _KEYS[table]) for name in names]
    return _COPY.format(table=table, names=", ".join(names), values=", ".join(values))


def _value(name: str, keys: tuple[str, ...]) -> str:
    if name == _NUMBERED:
        return "NULL"
    return f"{name} || '-' || n.i" if name in keys else name


def _leaves(path: Path, name: str) -> list[int]:
    """List the pages that hold a table's rows or an index's entries, in their order."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
        (root,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)
        ).fetchone()
    return _below(path.read_bytes(), root)


def _below(content: bytes, number: int) -> list[int]:
    page = content[(number - 1) * _PAGE : number * _PAGE]
    if page[0] not in _INTERIOR:
        return [number]
    cells = int.from_bytes(page[3:5])
    found = []
    for cell in range(cells):
        at = int.from_bytes(page[_CHILDREN_FROM + 2 * cell : _CHILDREN_FROM + 2 * cell + 2])
        found += _below(content, int.from_bytes(page[at : at + 4]))
    return found + _below(content, int.from_bytes(page[8:12]))


def _overwrite(path: Path, pages: list[int]) -> None:
    with path.open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * _PAGE)
            file.write(random.Random(number).randbytes(_PAGE))
