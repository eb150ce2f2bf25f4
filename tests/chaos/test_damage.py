"""Pages of the database's file go bad: before a start, and under a running service."""

import asyncio
import contextlib
import re
import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from app.core.config import Settings
from app.db.damage import refuse_damaged_file
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.domain.errors import StorageDamagedError
from tests.chaos.judge import check_account, check_refused, counts_up, is_ready
from tests.e2e.world import CLOCK, create, run_python, until, wait_for_end
from tests.support.databases import DatabaseKind
from tests.support.homes import Home, sqlite_file
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, eventually, free_port, open_api
from tests.support.sqlite_pages import damage_leaves, damage_middle, leave_a_log, multiply
from tests.support.storage import write_protected

pytestmark = pytest.mark.only_on(DatabaseKind.SQLITE, because="a server keeps its own files")

COPIES = 2000
LOOK_SECONDS = 20
TABLES = (
    "alembic_version",
    "attempts",
    "executions",
    "host_starts",
    "idempotency_keys",
    "job_revisions",
    "job_totals",
    "jobs",
    "leadership",
    "service_events",
)
INDEXES = (
    "executions_due",
    "executions_job",
    "executions_not_completed",
    "executions_open",
    "executions_ready",
    "executions_scheduled",
    "jobs_due",
    "jobs_idle",
    "sqlite_autoindex_attempts_1",
    "sqlite_autoindex_executions_1",
    "sqlite_autoindex_job_revisions_1",
    "sqlite_autoindex_jobs_1",
)
# A stop waits so long for what cannot be written, at each of two stations.
STOP_SECONDS = 10


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a database with some thousand rows in each table that grows."""
    database = sqlite_file(tmp_path_factory.mktemp("filled"))
    asyncio.run(sow(Settings(database_url=f"sqlite:///{database}")))
    multiply(database, COPIES)
    return database


async def sow(settings: Settings) -> None:
    """Let a service make one row of each kind."""
    answers = reply(status="503 Service Unavailable"), reply()
    async with RawServer(answers) as target, open_api(settings) as client:
        await create(
            client, "seed", target.url("/seed"), schedule_type="interval", interval={"weeks": 500},
            max_retries=1, retry_backoff_sec=0.1,
        )  # fmt: skip
        key = {"Idempotency-Key": "seed"}
        assert (await client.post("/api/v1/jobs/seed/trigger", headers=key)).status_code == 200
        await wait_for_end(client, "seed")


def put(filled: Path, folder: Path) -> Path:
    """Give a test its own copy."""
    database = sqlite_file(folder)
    database.parent.mkdir()
    shutil.copy(filled, database)
    return database


def contents(database: Path) -> dict[str, bytes]:
    """Read the file and what lies beside it, but the index that SQLite keeps of the log."""
    return {
        path.name: path.read_bytes()
        for path in database.parent.iterdir()
        if path.suffix == ".db" or path.name.endswith("-wal")
    }


async def test_a_sound_file_starts(tmp_path: Path, filled: Path):
    """Some thousand copied rows, and a log beside them, are no damage."""
    database = put(filled, tmp_path)
    leave_a_log(database)
    assert await migrate(DatabaseOptions(url=f"sqlite:///{database}")) == []
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize("log", ["with a log", "alone"])
@pytest.mark.parametrize("name", [*TABLES, *INDEXES])
def test_one_bad_page_is_found(tmp_path: Path, filled: Path, name: str, log: str):
    """A bad leaf of any table or index is told, and no byte of the file or its log changes."""
    database = put(filled, tmp_path)
    if log != "alone":
        leave_a_log(database)
    damage_middle(database, name)
    before = contents(database)
    assert len(before) == (1 if log == "alone" else 2)

    # A start looks for as long as a file of this size needs, if the machine is not busy.
    with pytest.raises(StorageDamagedError) as refused:
        refuse_damaged_file(database, seconds=LOOK_SECONDS)

    told = str(refused.value)
    assert told.startswith(f"The database file {database} is damaged (table ")
    assert " was not changed" in told
    assert "myscheduler check" in told
    assert "backup" in told
    assert contents(database) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("serve", "executions"),
        ("serve", "executions_scheduled"),
        ("serve", "alembic_version"),
        ("check", "executions"),
        ("backup", "executions"),
    ],
)
async def test_a_damaged_file_is_told_and_kept(
    tmp_path: Path, filled: Path, command: str, name: str
):
    """No command changes a damaged file or its log, and each ends with 1 and says what is wrong."""
    database = put(filled, tmp_path)
    leave_a_log(database)
    damage_middle(database, name)
    before = contents(database)

    more = [str(tmp_path / "copy.db")] if command == "backup" else []
    code, out, err = await run_python(
        tmp_path,
        *("-m", "app", command, *more),
        DATABASE_URL=f"sqlite:///{database}",
        PORT=str(free_port()),
    )

    assert code == 1
    assert re.search("damaged|malformed", out + err)
    assert contents(database) == before


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
@pytest.mark.parametrize("command", ["serve", "check", "backup"])
async def test_a_log_without_its_file_is_kept(
    tmp_path: Path, filled: Path, left: str, command: str
):
    """SQLite would take an empty file for a new one and remove the log; nothing is, and it says so.

    The log may hold all that was acknowledged.
    """
    database = put(filled, tmp_path)
    leave_a_log(database)
    if left == "nothing":
        database.unlink()
    else:
        database.write_bytes(b"")
    before = contents(database)

    more = [str(tmp_path / "copy.db")] if command == "backup" else []
    code, _, err = await run_python(
        tmp_path,
        *("-m", "app", command, *more),
        DATABASE_URL=f"sqlite:///{database}",
        PORT=str(free_port()),
    )

    assert (code, err.count("\n")) == (1, 1), err
    assert contents(database) == before
    if command == "serve" or left == "an empty file":
        assert f"changes that belong to it lie in {database}-wal" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("jobs", "GET", "/api/v1/jobs?limit=500"),
        ("executions", "GET", "/api/v1/jobs/executions/recent?limit=500"),
        ("sqlite_autoindex_jobs_1", "POST", "/api/v1/jobs/seed-1500/pause"),
        ("job_revisions", "POST", "/api/v1/jobs/seed-1500/trigger"),
    ],
)
async def test_damage_ends_all_work(
    home: Home, tmp_path: Path, filled: Path, name: str, method: str, path: str
):
    """Once a read or a write meets a bad page nothing is written, sent or acknowledged any more.

    Readiness and every answer say why, the log says so once, and a stop is a clean one that leaves
    file and log as they are.
    """
    database = put(filled, tmp_path)
    async with RawServer((reply(),)) as target, Service(home) as service:
        await counts_up(service, target, ["tick"])
        damage_leaves(database, name)
        await service.client.request(method, path)

        async def is_unready() -> bool:
            return not await is_ready(service.client)

        await eventually(is_unready)
        before, sent = contents(database), len(target.requests)
        await check_damaged(service)
        await until(CLOCK.now() + timedelta(seconds=2))
        assert contents(database) == before
        assert len(target.requests) <= sent + 1  # one may have been on its way

        began = CLOCK.now()
        assert await service.stop() == 0
        assert CLOCK.now() - began < timedelta(seconds=STOP_SECONDS)
        assert contents(database) == before
        told = [line for line in service.log_lines() if line["event"] == "storage.damaged"]
        assert [line["level"] for line in told] == ["error"]


async def check_damaged(service: Service) -> None:
    """Reads and changes are refused with the same sentence, which readiness tells, too."""
    for method, path in (
        ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs/tick/trigger"),
        ("DELETE", "/api/v1/jobs/tick"),
    ):
        answer = await service.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_damaged")
        assert "damaged" in answer.json()["detail"]
        assert "backup" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
    ready = (await service.client.get("/health/ready")).json()
    details = {check["name"]: check["detail"] for check in ready["checks"]}
    assert details["database"] == answer.json()["detail"]
    assert (await service.client.get("/health/live")).status_code == 200


@pytest.mark.slow
async def test_data_that_turns_read_only_heals(home: Home):
    """While file and log cannot be written nothing is sent and the API says so; it heals after."""
    async with RawServer((reply(),)) as target, Service(home) as service:
        first = await counts_up(service, target, ["tick-a", "tick-b"])
        with write_protected(home.file, home.file.with_name("jobs.db-wal"), home.file.parent):

            async def is_unready() -> bool:
                return not await is_ready(service.client)

            await eventually(is_unready)
            await until(CLOCK.now() + timedelta(seconds=1))
            sent = len(target.requests)
            await until(CLOCK.now() + timedelta(seconds=2))
            await check_refused(service, target)
            assert len(target.requests) == sent
        await eventually(lambda: is_ready(service.client))
        await check_account(service, target, first, until=CLOCK.now())
