"""What lies where the data should be: damaged, foreign, read-only, left behind, owned."""

import json
import os
import random
import re
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from tests.chaos.judge import check_account, counts_up
from tests.e2e.world import CLOCK, run_python
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, free_port
from tests.support.storage import read_only

pytestmark = pytest.mark.only_on(DatabaseKind.SQLITE, because="a server keeps its own files")

JOBS = ("tick-a", "tick-b")


async def serve(folder: Path) -> tuple[int, str, str]:
    """Run ``myscheduler serve`` on a folder's data until it ends by itself."""
    return await run_python(
        folder,
        *("-m", "app", "serve"),
        DATABASE_URL=f"sqlite:///{folder / 'data' / 'jobs.db'}",
        PORT=str(free_port()),
    )


async def make_database(folder: Path) -> None:
    url = f"sqlite:///{folder / 'data' / 'jobs.db'}"
    assert await migrate(DatabaseOptions(url=url)) != []


def write_noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(200_000))


def write_text(path: Path) -> None:
    path.write_text("job,time\nbackup,03:00\n" * 500, encoding="utf-8")


def cut_in_the_middle(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def overwrite_the_schema(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(random.Random(2).randbytes(3000))


@pytest.mark.parametrize(
    "damage", [write_noise, write_text, cut_in_the_middle, overwrite_the_schema]
)
async def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, damage: Callable[[Path], None]):
    """What is no sound database is named in one sentence, and not one of its bytes changes."""
    database = tmp_path / "data" / "jobs.db"
    await make_database(tmp_path)
    damage(database)
    before = database.read_bytes()

    code, out, err = await serve(tmp_path)

    assert (code, out) == (1, "")
    assert re.fullmatch(rf"The database file {database} cannot be used: .+\n", err), err
    assert "it was not changed" in err
    assert database.read_bytes() == before
    assert {path.name for path in database.parent.iterdir()} == {"jobs.db", "jobs.db.lock"}


async def test_another_programs_database_is_refused_and_kept(tmp_path: Path):
    """A sound SQLite file that is not ours gets no table, and not one of its bytes changes."""
    database = tmp_path / "data" / "jobs.db"
    database.parent.mkdir()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE apscheduler_jobs (id TEXT PRIMARY KEY, job_state BLOB)")
    connection.close()
    before = database.read_bytes()

    code, out, err = await serve(tmp_path)

    assert (code, out) == (1, "")
    told = rf"The database file {database} belongs to another program .*apscheduler_jobs.*\n"
    assert re.fullmatch(told, err), err
    assert database.read_bytes() == before
    assert {path.name for path in database.parent.iterdir()} == {"jobs.db", "jobs.db.lock"}


@pytest.mark.parametrize("what", ["data/jobs.db", "data"])
async def test_read_only_data_is_refused(tmp_path: Path, what: str):
    """A file or folder that cannot be written is named, with what to do."""
    await make_database(tmp_path)
    with read_only(tmp_path / what):
        code, out, err = await serve(tmp_path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1, err
    assert str(tmp_path / "data") in err
    assert re.search("read-?only|Permission denied", err, re.IGNORECASE)


@pytest.mark.slow
async def test_a_log_left_behind_is_read(home: Home, tmp_path: Path):
    """What a killed process had only in the write-ahead log is all there after the next start."""
    log = tmp_path / "data" / "jobs.db-wal"
    async with RawServer((reply(),)) as target, Service(home) as service:
        first = await counts_up(service, target, JOBS)
        await service.kill()
        assert log.stat().st_size > 0
        await service.start()
        await check_account(service, target, first, until=CLOCK.now())


@pytest.mark.slow
async def test_a_stale_lock_stops_nobody_and_a_living_owner_does(home: Home, tmp_path: Path):
    """A killed owner's lock is none, even if another process has its number; the next one's is."""
    database = tmp_path / "data" / "jobs.db"
    lock = tmp_path / "data" / "jobs.db.lock"
    async with Service(home) as service:
        await service.kill()
        left = json.loads(lock.read_text(encoding="utf-8"))
        assert left["pid"] == service.pid
        lock.write_text(json.dumps({**left, "pid": os.getpid()}), encoding="utf-8")
        await service.start()
        code, out, err = await serve(tmp_path)
        assert (code, out) == (1, "")
        assert f"process {service.pid} on {socket.gethostname()}, since 20" in err
        with sqlite3.connect(database) as connection:
            holders = connection.execute("SELECT holder, term FROM leadership").fetchall()
        connection.close()
        assert holders == [(f"{socket.gethostname()}:{service.pid}", 2)]
