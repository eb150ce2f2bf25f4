"""Copies of a SQLite database, made while it is used."""

import asyncio
import contextlib
import fcntl
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db.backup import back_up
from app.db.session import DatabaseOptions
from app.domain.errors import StorageUnavailableError
from app.repositories import job_repository
from tests.conformance.builders import JOB, add_job
from tests.support.databases import Database, DatabaseKind, Databases, open_database
from tests.support.storage import filled, read_only, small_disk

pytestmark = pytest.mark.only_on(DatabaseKind.SQLITE, because="the backups of a server are its own")
INSERT = sa.text("INSERT INTO idempotency_keys VALUES (:key, '', :answer, 0)")
# A write takes milliseconds; one that waited for the copy would take as long as the copy.
WRITE_WITHIN = 0.5


def path_of(database: Database) -> Path:
    return DatabaseOptions(url=database.url).sqlite_path


def keys_in(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return sorted(int(key) for (key,) in connection.execute("SELECT key FROM idempotency_keys"))


@contextlib.contextmanager
def written_meanwhile(database: Path, waits: list[float]) -> Iterator[None]:
    """Count up in the database, a transaction for each number and its double, from a thread."""
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            while not ended.is_set():
                number += 1
                begin = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                for key in (number, -number):
                    connection.execute(str(INSERT), {"key": str(key), "answer": "x" * 100})
                connection.execute("COMMIT")
                waits.append(time.perf_counter() - begin)
                begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(10)
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def test_a_copy_is_one_moment_and_keeps_no_writer_waiting(sqlite: Database, tmp_path: Path):
    """A copy made while transactions go on holds whole ones, and none of them waits for it."""
    for number in range(10**6, 10**6 + 40):
        await sqlite.execute(str(INSERT), key=str(number), answer="x" * 10**6)
    waits: list[float] = []
    target = tmp_path / "copy.db"
    with written_meanwhile(path_of(sqlite), waits):
        before = len(waits)
        made = await asyncio.to_thread(back_up, path_of(sqlite), target)
        during = len(waits) - before
    keys = [key for key in keys_in(target) if abs(key) < 10**6]

    assert keys == [*range(-len(keys) // 2, 0), *range(1, len(keys) // 2 + 1)]
    assert before <= len(keys) // 2 <= before + during + 1
    assert during >= 1
    assert max(waits) < WRITE_WITHIN
    assert made.size_bytes == target.stat().st_size > 40 * 10**6


async def test_a_copy_is_a_database_of_its_own(sqlite: Database, tmp_path: Path):
    """The copy is one file for its owner alone, says what it holds, and opens as the original."""
    job = await add_job(sqlite)
    made = back_up(path_of(sqlite), tmp_path / "copy.db")
    assert files_in(tmp_path) == ["copy.db"]
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert (made.jobs, made.executions) == (1, 0)
    async with open_database(f"sqlite:///{made.path}") as copy:
        assert await copy.read(job_repository.find_job, JOB) == job


async def test_a_log_left_behind_is_copied_too(databases: Databases, tmp_path: Path):
    """What a killed process left in its log is in the copy."""
    async with databases.migrated(DatabaseKind.SQLITE) as url:
        path = DatabaseOptions(url=url).sqlite_path
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(str(INSERT), {"key": "1", "answer": ""})
            connection.commit()
            assert path.with_name(path.name + "-wal").stat().st_size > 0
            back_up(path, tmp_path / "copy.db")
    assert keys_in(tmp_path / "copy.db") == [1]


async def test_a_partial_copy_is_begun_anew(sqlite: Database, tmp_path: Path):
    """What an earlier attempt left unfinished is in nobody's way."""
    (tmp_path / "copy.db.part").write_text("unfinished")
    back_up(path_of(sqlite), tmp_path / "copy.db")
    assert files_in(tmp_path) == ["copy.db"]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(database: Path, target: Path) -> str:
    with pytest.raises(StorageUnavailableError) as caught:
        back_up(database, target)
    return str(caught.value)


async def test_an_existing_file_is_not_overwritten(sqlite: Database, tmp_path: Path):
    """A name that is taken is refused, and what has it stays as it is; a dead link has it too."""
    target, link = tmp_path / "copy.db", tmp_path / "link.db"
    target.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for taken in (target, link, path_of(sqlite)):
        assert "exists already and was not changed" in refusal(path_of(sqlite), taken)
    assert target.read_text() == "mine"


async def test_two_backups_to_one_file_do_not_mix(sqlite: Database, tmp_path: Path):
    """While one backup writes a file another to the same name is refused."""
    part = tmp_path / "copy.db.part"
    with part.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "Another backup is writing" in refusal(path_of(sqlite), tmp_path / "copy.db")
    assert files_in(tmp_path) == ["copy.db.part"]


async def test_what_cannot_be_copied_is_said(sqlite: Database, tmp_path: Path):
    """No database, no folder, no room, no right: each is a sentence, and no file is left."""
    path = path_of(sqlite)
    assert "There is no database at" in refusal(tmp_path / "absent.db", tmp_path / "copy.db")
    missing = tmp_path / "absent" / "copy.db"
    assert f"{missing} could not be written: No such file" in refusal(path, missing)
    text = tmp_path / "text.db"
    text.write_text("no database " * 1000)
    assert "file is not a database" in refusal(text, tmp_path / "copy.db")
    foreign = tmp_path / "foreign.db"
    with contextlib.closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert "no such table" in refusal(foreign, tmp_path / "copy.db")
    assert files_in(tmp_path) == ["foreign.db", "text.db"]


async def test_a_full_disk_is_said(sqlite: Database, tmp_path: Path):
    """Where there is no room nothing is left, neither under the name nor beside it."""
    folder = tmp_path / "small"
    with small_disk(folder, size="1m"), filled(folder):
        assert "disk is full" in refusal(path_of(sqlite), folder / "copy.db")
        assert files_in(folder) == ["fill"]


async def test_a_folder_without_the_right_to_write_is_said(sqlite: Database, tmp_path: Path):
    """A read-only place is a sentence."""
    with read_only(tmp_path):
        assert "could not be written" in refusal(path_of(sqlite), tmp_path / "copy.db")


async def test_a_damaged_database_makes_no_backup(sqlite: Database, tmp_path: Path):
    """A copy that is damaged because the database is gets no name."""
    damaged = back_up(path_of(sqlite), tmp_path / "damaged.db").path
    with contextlib.closing(sqlite3.connect(damaged)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'executions_job'"
        (page,) = connection.execute(query).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with damaged.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x0d" * size)
    told = refusal(damaged, tmp_path / "copy.db")
    assert "damaged" in told
    assert "Run myscheduler check" in told
    assert files_in(tmp_path) == ["damaged.db"]
