import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from app.db.migrate import alembic_config, differences, migrate, upgrade
from app.db.session import DatabaseOptions
from app.domain.errors import StorageDamagedError, StorageUnavailableError
from app.repositories import job_repository
from tests.conformance.builders import JOB, add_job
from tests.support.databases import DatabaseKind, Databases, open_database, run_on

ABOUT_THE_FILE = pytest.mark.only_on(DatabaseKind.SQLITE, because="a server keeps its own files")
ROOT = Path(__file__).parents[2]
PROCESSES = 4
REVISIONS = ["0001", "0002", "0003", "0004", "0005"]
# Ready when everything is imported, so that several of these meet at the database.
MIGRATE_ON_A_LINE = """
import asyncio, sys
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
print("ready", flush=True)
sys.stdin.readline()
print(asyncio.run(migrate(DatabaseOptions(url=sys.argv[1]))))
"""


async def migrate_in_process(url: str) -> tuple[int, str, str]:
    """Run ``myscheduler migrate`` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "migrate",
        cwd=ROOT, env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def mark_newer(connection: sa.Connection) -> None:
    connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))


def execute_ddl(connection: sa.Connection, statement: str) -> None:
    connection.execute(sa.text(statement))


def downgrade(connection: sa.Connection, revision: str = "base") -> list[str]:
    command.downgrade(alembic_config(connection), revision)
    return sa.inspect(connection).get_table_names()


def objects(connection: sa.Connection) -> list[str]:
    """List what exists beside tables: triggers and functions."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = (
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT proname"
            " FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
    return sorted(connection.execute(sa.text(query)).scalars())


def all_objects(connection: sa.Connection) -> list[str]:
    """List tables and their columns, triggers and functions."""
    found = sa.inspect(connection)
    tables = [
        f"{table}.{column['name']}"
        for table in found.get_table_names()
        for column in found.get_columns(table)
    ]
    return [*objects(connection), *tables]


@pytest.fixture
async def postgres_url(databases: Databases) -> AsyncIterator[str]:
    """Give the address of a PostgreSQL database that holds nothing yet."""
    async with databases.empty(DatabaseKind.POSTGRES) as url:
        yield url


async def test_from_nothing_to_the_models(empty_url: str):
    """A database that held nothing has exactly the tables of the models afterwards."""
    assert await migrate(DatabaseOptions(url=empty_url)) == REVISIONS
    assert await run_on(empty_url, differences) == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX executions_ready",
        "ALTER TABLE jobs ADD COLUMN extra TEXT",
        "DROP TABLE idempotency_keys",
    ],
)
async def test_a_difference_is_found(empty_url: str, change: str):
    """What differs from the models does not go unnoticed."""
    await migrate(DatabaseOptions(url=empty_url))
    await run_on(empty_url, execute_ddl, change)
    assert len(await run_on(empty_url, differences)) >= 1


async def test_a_second_migration_applies_nothing(empty_url: str):
    """Migrating is safe to repeat."""
    options = DatabaseOptions(url=empty_url)
    await migrate(options)
    assert await migrate(options) == []


async def test_a_migration_keeps_what_is_stored(empty_url: str):
    """Jobs are there before and after."""
    options = DatabaseOptions(url=empty_url)
    await migrate(options)
    async with open_database(empty_url) as database:
        job = await add_job(database)
        await migrate(options)
        assert await database.read(job_repository.find_job, JOB) == job


async def test_processes_that_start_together_apply_it_once(empty_url: str):
    """Of four processes on an empty database all succeed, and one of them migrates."""
    answers = await asyncio.gather(*(migrate_in_process(empty_url) for _ in range(PROCESSES)))
    expected = [(0, "".join(f"Applied {revision}\n" for revision in REVISIONS), "")]
    expected += [(0, "The schema is up to date\n", "")] * (PROCESSES - 1)
    assert sorted(answers) == sorted(expected)
    assert await run_on(empty_url, differences) == []


async def test_migrations_of_one_moment_apply_it_once(empty_url: str):
    """Of processes that migrate at the same moment, the later ones wait and find nothing to do."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE_ON_A_LINE, empty_url,
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    applied = sorted(out.decode().strip() for out, _ in answers)
    assert applied == sorted(["[]"] * (PROCESSES - 1) + [str(REVISIONS)])


@ABOUT_THE_FILE
async def test_a_new_file_that_another_process_holds_is_waited_for(tmp_path: Path):
    """The switch to a write-ahead log, which SQLite does not wait for by itself, is repeated."""
    path = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.2, other.rollback)
        options = DatabaseOptions(url=f"sqlite:///{path}")
        assert await asyncio.to_thread(lambda: asyncio.run(migrate(options))) == REVISIONS


async def test_a_newer_schema_is_refused(empty_url: str):
    """A database of a newer version is left alone, and the sentence says what to do."""
    options = DatabaseOptions(url=empty_url)
    await migrate(options)
    await run_on(empty_url, mark_newer)
    with pytest.raises(StorageUnavailableError, match=r"newer version .*9999.* start that version"):
        await migrate(options)
    code, out, err = await migrate_in_process(empty_url)
    assert (code, out) == (1, "")
    assert "newer version" in err
    assert "Traceback" not in err
    assert await run_on(empty_url, differences) == []


async def test_down_and_up_again(empty_url: str):
    """Going back removes everything the migrations made; going forward makes it again."""
    await migrate(DatabaseOptions(url=empty_url))
    made = await run_on(empty_url, objects)
    assert {"executions_final_is_final", "attempts_are_final", "jobs_cursor_goes_forward"} <= set(
        made
    )
    assert await run_on(empty_url, downgrade) == ["alembic_version"]
    assert await run_on(empty_url, objects) == []
    assert await run_on(empty_url, upgrade) == REVISIONS
    assert await run_on(empty_url, differences) == []
    assert await run_on(empty_url, objects) == made


async def test_a_migration_that_fails_changes_nothing(empty_url: str):
    """If a statement in the middle cannot be run, the old schema stays as it was."""
    await migrate(DatabaseOptions(url=empty_url))
    await run_on(empty_url, downgrade, "0001")
    await run_on(empty_url, execute_ddl, "CREATE TABLE job_totals (mine INTEGER)")
    before = await run_on(empty_url, all_objects)
    with pytest.raises(StorageUnavailableError):
        await migrate(DatabaseOptions(url=empty_url))
    assert await run_on(empty_url, all_objects) == before


# Databases of other programs, by what they hold.
FOREIGN = {
    "a table": ["CREATE TABLE notes (text TEXT)"],
    "tables named as ours": ["CREATE TABLE jobs (x TEXT)", "CREATE TABLE executions (x TEXT)"],
    "another program's migrations": [
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('0002')",
        "CREATE TABLE notes (text TEXT)",
    ],
    "nothing but another program's mark": [
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('5f3c')",
    ],
    "migrations with two heads": [
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('0001'), ('0002')",
        "CREATE TABLE jobs (x TEXT)",
        "CREATE TABLE executions (x TEXT)",
    ],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=list(FOREIGN))
async def test_a_database_of_another_program_is_refused_unchanged(
    empty_url: str, statements: list[str]
):
    """It gets no table of ours; the sentence names what is there and says what to do."""
    await _execute_all(empty_url, *statements)
    before = await run_on(empty_url, all_objects)
    with pytest.raises(StorageUnavailableError, match=r"another program.*not changed.*of its own"):
        await migrate(DatabaseOptions(url=empty_url))
    assert await run_on(empty_url, all_objects) == before
    code, out, err = await migrate_in_process(empty_url)
    assert (code, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@ABOUT_THE_FILE
async def test_a_file_of_another_program_keeps_every_byte(tmp_path: Path, journal: str):
    """Neither its journal mode nor its folder changes, whichever journal it uses."""
    path = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode={journal}")
        other.execute("CREATE TABLE notes (text TEXT)")
        other.commit()
    content = path.read_bytes()
    with pytest.raises(StorageUnavailableError, match=r"notes\.db belongs to another program"):
        await migrate(DatabaseOptions(url=f"sqlite:///{path}"))
    assert path.read_bytes() == content
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["notes.db"]


@ABOUT_THE_FILE
async def test_a_table_in_another_programs_log_is_seen(tmp_path: Path):
    """What only the write-ahead log of a program that runs holds counts as the file's."""
    path = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE notes (text TEXT)")
        other.commit()
        with pytest.raises(StorageUnavailableError, match=r"another program \(its tables: notes\)"):
            await migrate(DatabaseOptions(url=f"sqlite:///{path}"))


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="SQLite's extensions make no tables")
async def test_tables_of_an_extension_are_nobodys(postgres_url: str):
    """A new PostgreSQL database in which an extension made its tables is migrated."""
    await _execute_all(
        postgres_url,
        "CREATE TABLE spatial_ref_sys (srid INTEGER)",
        "ALTER EXTENSION plpgsql ADD TABLE spatial_ref_sys",
    )
    assert await migrate(DatabaseOptions(url=postgres_url)) == REVISIONS


async def _execute_all(url: str, *statements: str) -> None:
    for statement in statements:
        await run_on(url, execute_ddl, statement)


@pytest.mark.parametrize(
    "content",
    [
        b"These are my notes, not a database.\n" * 50,
        b"SQLite format 3\x00" + b"\xff" * 4080,
        os.urandom(8192),
    ],
    ids=["text", "a header and rubbish", "noise"],
)
@ABOUT_THE_FILE
async def test_a_file_that_is_no_database_is_refused_unchanged(tmp_path: Path, content: bytes):
    """Somebody else's file is named in the refusal and keeps every byte."""
    path = tmp_path / "notes.db"
    path.write_bytes(content)
    with pytest.raises(StorageDamagedError, match=r"notes\.db cannot be used"):
        await migrate(DatabaseOptions(url=f"sqlite:///{path}"))
    assert path.read_bytes() == content
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["notes.db"]


@pytest.mark.parametrize("begin", [100, 4096], ids=["the schema", "the first table"])
@ABOUT_THE_FILE
async def test_a_damaged_database_is_refused_unchanged(
    databases: Databases, tmp_path: Path, begin: int
):
    """A database of ours whose pages are overwritten is left for whoever repairs it."""
    path = tmp_path / "damaged.db"
    async with databases.migrated(DatabaseKind.SQLITE) as url:
        whole = await asyncio.to_thread(DatabaseOptions(url=url).sqlite_path.read_bytes)
    content = bytearray(whole)
    content[begin : begin + 4000] = b"\xa5" * 4000
    path.write_bytes(content)
    with pytest.raises(StorageDamagedError, match=r"damaged\.db cannot be used"):
        await migrate(DatabaseOptions(url=f"sqlite:///{path}"))
    assert path.read_bytes() == content


@ABOUT_THE_FILE
async def test_a_folder_in_the_way_is_refused(tmp_path: Path):
    """A path that cannot be a file is refused with a sentence, and so is one below a file."""
    (tmp_path / "jobs.db").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("jobs.db", "file/jobs.db"):
        with pytest.raises(StorageUnavailableError, match="cannot be used"):
            await migrate(DatabaseOptions(url=f"sqlite:///{tmp_path / name}"))


@ABOUT_THE_FILE
async def test_missing_folders_are_made(tmp_path: Path):
    """The first start needs no preparation."""
    url = f"sqlite:///{tmp_path / 'データ' / 'a b' / 'jobs.db'}"
    assert await migrate(DatabaseOptions(url=url)) == REVISIONS


async def test_a_server_that_is_not_there_is_refused(databases: Databases):
    """Without a server, or without the database on it, a sentence says what to check."""
    folder = databases.server.folder
    for url in (
        f"postgresql://postgres@/jobs?host={folder}/nowhere",
        databases.server.url_of("never_made"),
    ):
        with pytest.raises(StorageUnavailableError, match="check DATABASE_URL"):
            await migrate(DatabaseOptions(url=url))
