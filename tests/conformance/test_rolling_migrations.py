"""Migrations only add, so that the version before goes on beside the one that has migrated."""

import re
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from app.db.compatibility import usable_from
from app.db.migrate import alembic_config, migrate
from app.db.session import DatabaseOptions
from app.domain.errors import StorageUnavailableError
from tests.support.databases import DatabaseKind, Databases, run_on
from tests.support.schema_shape import Shape, narrowings, read_shape

SIDE_BY_SIDE = pytest.mark.only_on(
    DatabaseKind.POSTGRES, because="two versions share a server only"
)
ROOT = Path(__file__).parents[2]
VERSIONS = "app/db/migrations/versions"
NEWER = "9999"
ADDITIONS = (
    "CREATE TABLE more (id INTEGER NOT NULL PRIMARY KEY)",
    "ALTER TABLE jobs ADD COLUMN more TEXT",
    "ALTER TABLE jobs ADD COLUMN more INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX more ON jobs (name)",
    "DROP INDEX executions_scheduled",
)
NARROWINGS = {
    "DROP TABLE idempotency_keys": "table idempotency_keys is gone",
    "ALTER TABLE idempotency_keys DROP COLUMN answer": "column idempotency_keys.answer is gone",
    "ALTER TABLE jobs RENAME TO tasks": "table jobs is gone",
    "ALTER TABLE jobs RENAME COLUMN name TO title": "column jobs.name is gone",
    "ALTER TABLE jobs ADD COLUMN more TEXT NOT NULL": "column jobs.more must be given, and is new",
    "ALTER TABLE jobs ALTER state_reason SET NOT NULL": "jobs.state_reason must be given now",
    "ALTER TABLE jobs ALTER name TYPE VARCHAR(9)": "column jobs.name has another type",
    "ALTER TABLE jobs ADD CONSTRAINT more CHECK (revision < 9)": "rule more of jobs is new",
    "ALTER TABLE jobs DROP CONSTRAINT jobs_state,"
    " ADD CONSTRAINT jobs_state CHECK (state <> 'broken')": "rule jobs_state of jobs is new or",
    "CREATE UNIQUE INDEX more ON jobs (name)": "rule more of jobs is new",
}


def steps() -> list[tuple[str, str | None]]:
    """List the migrations, oldest first, each with the revision after which it may remove."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    engine.dispose()
    return [
        (step.revision, getattr(step.module, "contract", None))
        for step in reversed(list(script.walk_revisions()))
    ]


def shapes(connection: Connection) -> list[Shape]:
    """Migrate step by step; return the schema after each."""
    found = []
    for revision, _ in steps():
        command.upgrade(alembic_config(connection), revision)
        found.append(read_shape(connection))
    return found


async def test_migrations_only_add(empty_url: str):
    """Each takes nothing from the programs before it, unless it says `contract`."""
    made = await run_on(empty_url, shapes)
    for (revision, contract), before, after in zip(steps()[1:], made, made[1:], strict=False):
        assert contract is not None or narrowings(before, after) == [], revision


@pytest.mark.parametrize("statement", ADDITIONS)
@SIDE_BY_SIDE
async def test_additions_are_allowed(databases: Databases, statement: str):
    """Tables, columns that need not be given, and indexes take nothing from anybody."""
    assert await changes(databases, statement) == []


@pytest.mark.parametrize("statement", NARROWINGS)
@SIDE_BY_SIDE
async def test_narrowings_are_found(databases: Databases, statement: str):
    """Whatever an older program would miss, or be refused by, is named."""
    found = await changes(databases, statement)
    assert NARROWINGS[statement] in " ".join(found)


async def changes(databases: Databases, statement: str) -> list[str]:
    """Change a database; list what that takes from its programs."""

    def change(connection: Connection) -> list[str]:
        before = read_shape(connection)
        connection.exec_driver_sql(statement)
        return narrowings(before, read_shape(connection))

    async with databases.empty(DatabaseKind.POSTGRES) as url:
        await migrate(DatabaseOptions(url=url))
        found: list[str] = await run_on(url, change)
        return found


def test_what_is_removed_was_unused_in_a_release():
    """A `contract` names an older migration, or itself before the first release; none goes back."""
    revisions = [revision for revision, _ in steps()]
    released = released_migrations()
    floor = revisions[0]
    for revision, contract in steps():
        if contract is None:
            continue
        assert floor <= contract <= revision
        assert not released or contract in released, f"{contract} is in no release"
        floor = contract


def released_migrations() -> set[str]:
    """List the migrations of the last release; none where no release, or no history, is there."""
    tags = _git("tag", "--list", "v*", "--sort=-v:refname").split()
    names = _git("ls-tree", "--name-only", f"{tags[0]}:{VERSIONS}").split() if tags else []
    return {name.partition("_")[0] for name in names if re.match(r"\d{4}_", name)}


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
    )
    return done.stdout if done.returncode == 0 else ""


def pretend_newer(connection: Connection, usable: str) -> None:
    """Leave a schema as a newer program does."""
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    note = f'{{"schema": "{NEWER}", "usable_from": "{usable}"}}'
    connection.exec_driver_sql(f"COMMENT ON COLUMN alembic_version.version_num IS '{note}'")


@SIDE_BY_SIDE
async def test_a_newer_schema_that_only_added_is_used(databases: Databases):
    """A replica that starts again, or a rollback, finds a schema that it may use, and does."""
    async with databases.empty(DatabaseKind.POSTGRES) as url:
        options = DatabaseOptions(url=url)
        await migrate(options)
        await run_on(url, pretend_newer, steps()[-1][0])
        assert await migrate(options) == []


@SIDE_BY_SIDE
async def test_a_newer_schema_that_removed_is_refused(databases: Databases):
    """A program is refused whose columns are gone."""
    async with databases.empty(DatabaseKind.POSTGRES) as url:
        options = DatabaseOptions(url=url)
        await migrate(options)
        await run_on(url, pretend_newer, NEWER)
        with pytest.raises(StorageUnavailableError, match="newer version"):
            await migrate(options)


@SIDE_BY_SIDE
async def test_whoever_migrates_leaves_word(databases: Databases):
    """The note names the newest schema and the oldest program that may use it."""

    def expected(connection: Connection) -> str:
        script = ScriptDirectory.from_config(alembic_config(connection))
        head, oldest = script.get_current_head(), usable_from(script)
        return f'{{"schema": "{head}", "usable_from": "{oldest}"}}'

    def note(connection: Connection) -> str:
        read = "SELECT col_description('alembic_version'::regclass, 1)"
        text: str = connection.exec_driver_sql(read).scalar_one()
        return text

    async with databases.empty(DatabaseKind.POSTGRES) as url:
        await migrate(DatabaseOptions(url=url))
        assert await run_on(url, note) == await run_on(url, expected)
