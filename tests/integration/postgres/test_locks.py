"""Locks by name on a real PostgreSQL, held by processes that are killed, stopped and cut off."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.backends.postgres.leader import LOCK_KEY
from app.domain.errors import StorageUnavailableError
from app.locks import LockLostError, LockTakenError, single_instance
from tests.support.database_proxy import DatabaseProxy
from tests.support.databases import Databases
from tests.support.service import ROOT

# Of the server's own settings: nobody listens there.
NOWHERE = "postgresql://postgres@127.0.0.1:1/nowhere"
LOSS_SECONDS = 15
SOON = timedelta(seconds=10)


class Holder:
    """A process of ``tests.support.lock_holder``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def says(self, expected: str, *, seconds: float = LOSS_SECONDS) -> None:
        """Wait for its next line."""
        line = await self._line(seconds)
        assert line.startswith(expected), line

    async def goes_on_until(self, expected: str) -> None:
        """Let it check the lock again and again until that says something."""
        while (line := await self._line(LOSS_SECONDS)) == "checked":
            self.tell("check")
        assert line == expected

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def _line(self, seconds: float) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            return (await self._process.stdout.readline()).decode().strip()

    async def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()


@contextlib.asynccontextmanager
async def holder(url: str, *, mode: str = "thread", **environment: str) -> AsyncIterator[Holder]:
    """Start a process that takes the lock ``name``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.lock_holder", mode, "name",
        cwd=ROOT, env={"PATH": os.environ["PATH"], "DATABASE_URL": url, **environment},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    made = Holder(process)
    try:
        yield made
    finally:
        await made.end()


async def query(url: str, statement: str, *values: object) -> list[asyncpg.Record]:
    address = make_url(url)
    connection = await asyncpg.connect(
        host=address.query["host"], user=address.username, database=address.database
    )
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def cut(url: str) -> None:
    """End the session that holds the lock, as a restart of the server does."""
    ended = await query(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'myscheduler lock name' AND datname = current_database()",
    )
    assert len(ended) == 1


@contextlib.asynccontextmanager
async def proxied(databases: Databases, url: str) -> AsyncIterator[tuple[DatabaseProxy, str]]:
    """Give a way to the database that can be stalled."""
    async with DatabaseProxy(databases.server.folder / ".s.PGSQL.5432") as proxy:
        yield proxy, f"postgresql://postgres@127.0.0.1:{proxy.port}/{make_url(url).database}"


async def test_a_killed_holder_frees_the_lock(url: str):
    """Another process is refused while the holder lives, and let in after its kill -9."""
    async with holder(url) as first:
        await first.says("held")
        async with holder(url) as second:
            await second.says("taken: The lock name is held elsewhere, by a session from")
        os.kill(first.pid, signal.SIGKILL)
        async with single_instance("name", database_url=url, wait=SOON):
            pass


@pytest.mark.slow
async def test_a_stopped_holder_keeps_the_lock(url: str):
    """A process under SIGSTOP keeps it; going on, it still has it and leaves in order."""
    async with holder(url) as first:
        await first.says("held")
        first.tell("check")
        await first.says("checked")
        os.kill(first.pid, signal.SIGSTOP)
        # Longer than a proof may take, than a proof is worth, and than PostgreSQL's keepalives.
        with pytest.raises(LockTakenError):
            async with single_instance("name", database_url=url, wait=STOPPED):
                pass
        os.kill(first.pid, signal.SIGCONT)
        first.tell("check")
        await first.says("checked")
        first.tell("leave")
        await first.says("left")
        async with single_instance("name", database_url=url):
            pass


STOPPED = timedelta(seconds=11)


@pytest.mark.parametrize("mode", ["thread", "async"])
async def test_a_holder_that_is_cut_off_learns_of_it(url: str, mode: str):
    """After its session was ended a task is cancelled, and a thread hears it at its next check."""
    async with holder(url, mode=mode) as first:
        await first.says("held")
        await cut(url)
        async with single_instance("name", database_url=url):
            if mode == "thread":
                first.tell("check")
                await first.goes_on_until("lost")
            else:
                await first.says("lost")


async def test_a_block_that_ends_right_after_a_cut_tells_it(url: str):
    """Even when no proof was due any more, the end of the block finds the lock gone."""
    with pytest.raises(LockLostError):
        async with single_instance("name", database_url=url):
            await cut(url)


async def test_an_error_while_a_lost_block_is_cancelled_comes_through(url: str):
    """What a block raises while it tidies up after the loss is told; the loss is noted on it."""

    @single_instance("name", database_url=url)
    async def fail_at_the_end() -> None:
        await cut(url)
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError

    with pytest.raises(KeyError) as found:
        await fail_at_the_end()
    assert "was lost" in found.value.__notes__[0]


async def test_an_error_is_told_before_a_loss(url: str):
    """What a block raised is not hidden by the loss, which is noted on it."""

    @single_instance("name", database_url=url)
    async def fail() -> None:
        await cut(url)
        raise KeyError

    with pytest.raises(KeyError) as found:
        await fail()
    assert "was lost" in found.value.__notes__[0]


@pytest.mark.slow
async def test_a_silent_database_is_a_loss(databases: Databases, url: str):
    """A holder whose packets go nowhere is told within seconds, before PostgreSQL gives up."""
    async with proxied(databases, url) as (proxy, way):

        @single_instance("name", database_url=way)
        async def wait_for_ever() -> None:
            proxy.stall()
            await asyncio.Event().wait()

        async with asyncio.timeout(9):
            with pytest.raises(LockLostError):
                await wait_for_ever()


async def test_a_timeout_around_the_block_stays_one(url: str):
    """A cancellation from outside is not taken for a loss."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), single_instance("name", database_url=url):
            await asyncio.Event().wait()


async def test_the_direct_address_is_used(url: str):
    """Behind a proxy that pools transactions the lock goes to the server itself."""
    async with holder(NOWHERE, MYSCHEDULER_DATABASE_DIRECT_URL=url) as first:
        await first.says("held")
        with pytest.raises(LockTakenError):
            async with single_instance("name", database_url=url):
                pass


async def test_locks_are_there_to_be_seen(url: str):
    """pg_locks and pg_stat_activity show who holds which lock; the leader's key is another."""
    async with single_instance("name", database_url=url):
        [row] = await query(
            url,
            "SELECT application_name, classid::bigint << 32 | objid::bigint AS key"
            " FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
            " AND datname = current_database()",
        )
        assert row["application_name"] == "myscheduler lock name"
        assert row["key"] != LOCK_KEY


async def test_a_server_that_is_away_is_told():
    """Where there is no server that is told, at once without a wait."""
    with pytest.raises(StorageUnavailableError, match="MYSCHEDULER_DATABASE_DIRECT_URL"):
        async with single_instance("name", database_url=NOWHERE):
            pass
