"""The version before runs on beside this one, on a database that this one has migrated.

The version before is the newest tag ``v*``; while there is none, a revision that is named here.
It runs with the libraries of this environment.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.e2e.world import create
from tests.support.databases import DatabaseKind, Databases
from tests.support.program import Program
from tests.support.raw_server import RawServer, reply
from tests.support.service import ROOT, eventually

# Replicas, and the schema 0002.
BEFORE_THE_FIRST_RELEASE = "3ae27bac8258e494fbd745903d66491a59239fa4"
EVERY_SECOND: dict[str, Any] = {
    "schedule_type": "interval", "interval": {"seconds": 1},
    "catch_up": "all", "overlap_policy": "allow",
}  # fmt: skip
NEVER: dict[str, Any] = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}
_LEADER = (
    "SELECT split_part(holder, ':', 2)::integer AS pid FROM leadership, pg_locks"
    " JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
    " AND application_name = 'myscheduler leader' AND datname = current_database()"
)


def git(*words: str) -> bytes:
    """Ask the clone that these sources lie in; nothing where there is none."""
    done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True, timeout=60)
    return done.stdout if done.returncode == 0 else b""


def version_before() -> str:
    """Name the last release, or the revision that stands for it."""
    tags = git("tag", "--list", "v*", "--sort=-v:refname").decode().split()
    return tags[0] if tags else BEFORE_THE_FIRST_RELEASE


@pytest.fixture(scope="module")
def sources_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the version before."""
    version = version_before()
    archive = git("archive", version, "app")
    if not archive:
        pytest.skip(
            f"this clone has no history that holds {version}, so the version before cannot be run: "
            "git fetch --unshallow --tags brings it"
        )
    folder = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


class Upgrade:
    """Two versions on one database."""

    def __init__(self, *, url: str, old: Program, new: Program, server: RawServer) -> None:
        self.url = url
        self.old = old
        self.new = new
        self.server = server

    async def leads(self, program: Program) -> None:
        """Wait until a program leads."""

        async def found() -> bool:
            return [row["pid"] for row in await self.rows(_LEADER)] == [program.pid]

        await eventually(found)

    async def sends(self, program: Program) -> None:
        """Have a program make a run, which the other is not told of first."""
        before = program.told("execution.finished")

        async def has_sent() -> bool:
            answer = await program.client.post("/api/v1/jobs/by-hand/trigger")
            assert answer.status_code == 200, answer.text
            return program.told("execution.finished") > before

        await eventually(has_sent, every=0.2)

    async def ticks(self) -> None:
        """Wait until a due instant that is still to come was sent."""
        sent = len(self.server.requests)
        await eventually(lambda: len(self.server.requests) >= sent + 3)

    async def rows(self, statement: str) -> list[asyncpg.Record]:
        """Read with a statement of SQL."""
        address = make_url(self.url)
        connection = await asyncpg.connect(
            host=address.query["host"], user=address.username, database=address.database
        )
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()


@pytest.fixture
async def upgrade(
    databases: Databases, tmp_path: Path, sources_before: Path
) -> AsyncIterator[Upgrade]:
    """Prepare an empty database, both versions and a target; nothing is started."""
    async with (
        databases.empty(DatabaseKind.POSTGRES) as url,
        RawServer((reply("ok"),)) as server,
        Program(tmp_path / "old", url, sources=sources_before) as old,
        Program(tmp_path / "new", url) as new,
    ):
        yield Upgrade(url=url, old=old, new=new, server=server)


@pytest.mark.slow
async def test_the_version_before_goes_on_beside_this_one(upgrade: Upgrade):
    """A rolling upgrade: both make runs on the new schema, either leads, the ledger is proven."""
    old, new, server = upgrade.old, upgrade.new, upgrade.server
    await old.start()
    await create(old.client, "steady", server.url("/steady"), **EVERY_SECOND)
    await create(old.client, "by-hand", server.url("/by-hand"), **NEVER)
    await upgrade.leads(old)

    await new.start()
    for program in (old, new):
        await upgrade.sends(program)
    # What the old one writes now, the new one reads, and the other way round.
    answer = await old.client.post("/api/v1/jobs/by-hand/pause")
    assert answer.status_code == 200
    assert (await new.client.post("/api/v1/jobs/by-hand/resume")).status_code == 200
    await upgrade.ticks()

    assert await old.stop() == 0
    await upgrade.leads(new)
    await upgrade.ticks()
    await _go_back(upgrade)
    proof = (await new.client.get("/api/v1/ledger/verify")).json()
    assert proof["proven"], proof
    unended = "SELECT 1 FROM executions WHERE status = 'running' AND job_id = 'by-hand'"
    await eventually(lambda: _none(upgrade, unended))


async def _go_back(upgrade: Upgrade) -> None:
    """Roll back: the version before starts again on the new schema, and leads."""
    old, new = upgrade.old, upgrade.new
    if not _may_start_again(upgrade):
        return
    await old.start()
    assert await new.stop() == 0
    await upgrade.leads(old)
    await upgrade.sends(old)
    await upgrade.ticks()
    await new.start()


def _may_start_again(upgrade: Upgrade) -> bool:
    """Tell whether the version before knows that a newer schema may be usable.

    The first release does; what stands for one until then refuses any schema but its own.
    """
    old = upgrade.old.sources / "app" / "db"
    same = {path.name for path in (old / "migrations" / "versions").glob("0*.py")} == {
        path.name for path in (ROOT / "app" / "db" / "migrations" / "versions").glob("0*.py")
    }
    return same or (old / "compatibility.py").exists()


async def _none(upgrade: Upgrade, statement: str) -> bool:
    return not await upgrade.rows(statement)


# What a release to come may do to the schema.
ADDING = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"

def upgrade():
    op.add_column("jobs", sa.Column("more", sa.Text(), nullable=True))
"""


@pytest.mark.slow
async def test_a_program_that_lacks_the_newest_addition_starts(
    databases: Databases, tmp_path: Path
):
    """A rollback, and a restart amid a rollout: a newer schema that only added is served."""
    newer = tmp_path / "newer"
    await asyncio.to_thread(shutil.copytree, ROOT / "app", newer / "app")
    versions = newer / "app" / "db" / "migrations" / "versions"
    newest = max(path.name.partition("_")[0] for path in versions.glob("0*.py"))
    (versions / "9999_more.py").write_text(ADDING.format(newest=newest), encoding="utf-8")
    async with databases.empty(DatabaseKind.POSTGRES) as url, RawServer((reply("ok"),)) as server:
        async with Program(tmp_path / "first", url, command=("migrate",), sources=newer) as first:
            first.begin()
            assert await first.ended() == 0, first.log_text()
        async with Program(tmp_path / "home", url) as program:
            await program.start()
            await create(program.client, "steady", server.url("/steady"), **EVERY_SECOND)
            await eventually(lambda: server.requests)
            assert program.told("database.newer") == 1
