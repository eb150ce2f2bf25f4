"""Replicas of the service as real processes on a PostgreSQL that can be restarted and killed.

Each replica reaches the database through a TCP proxy of its own, which can cut or stall what it
carries. What is true is asked of the database directly, past the proxies. One process imports the
service; each replica's nursery is a fork of it (``python -m tests.support.replicas``).
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.support import nursery
from tests.support.database_proxy import DatabaseProxy
from tests.support.databases import DatabaseKind, PostgresServer
from tests.support.homes import Home
from tests.support.nursery import KILLED, CrashingService, Nursery
from tests.support.pooling_proxy import PoolingProxy
from tests.support.raw_server import Exchange, hang, reply
from tests.support.service import ROOT, WAIT_SECONDS, eventually

_LEADER = """
    SELECT leadership.holder FROM leadership, pg_locks
    JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
    WHERE locktype = 'advisory' AND granted
      AND application_name = 'myscheduler leader' AND datname = current_database()
      -- Who leads once more after its session was cut is written down from before until it is anew.
      AND since_us >= extract(epoch FROM backend_start) * 1000000
"""
_TICKING = """
    SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation = 'leadership'::regclass AND mode = 'RowShareLock'
      AND state = 'idle in transaction' AND datname = current_database()
"""
_SERVER_ENDS_WITHIN = 20.0


class MortalPostgres(PostgresServer):
    """A server that is ended and started again while others use it."""

    def end(self, number: int) -> None:
        """Send a signal: SIGINT ends it in order, SIGKILL takes its children along, as a crash."""
        server = self._running
        children = _children(server.pid) if number == signal.SIGKILL else []
        for pid in (server.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        server.wait(_SERVER_ENDS_WITHIN)

    async def revive(self) -> None:
        """Start it again and wait until it takes connections."""
        self.launch()
        await asyncio.to_thread(self.wait_ready)

    def log_text(self) -> str:
        """Read what the server logged."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def socket_path(self) -> Path:
        """Tell where it listens."""
        return self.folder / ".s.PGSQL.5432"

    async def rows(self, database: str, statement: str, *values: object) -> list[asyncpg.Record]:
        """Read with a statement of SQL."""
        connection = await asyncpg.connect(
            host=str(self.folder), user="postgres", database=database
        )
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


@contextlib.contextmanager
def mortal_postgres() -> Iterator[MortalPostgres]:
    """Run a server until the block ends."""
    server = MortalPostgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Replica(CrashingService):
    """One process of many on a database, behind its proxy."""

    hurries = False

    def __init__(
        self, start: Nursery, folder: Path, proxy: DatabaseProxy, **environment: str
    ) -> None:
        url = environment["DATABASE_URL"]
        home = Home(kind=DatabaseKind.POSTGRES, folder=folder, url=url)
        super().__init__(start, home, **environment)
        self.proxy = proxy

    @property
    def is_alive(self) -> bool:
        """Tell whether it was started and has not been ended here."""
        return self._alive

    async def launch(self) -> None:
        """Start it, without waiting until it is ready."""
        await asyncio.to_thread(self.begin)

    def freeze(self) -> None:
        """Stop the process where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def terminate(self) -> int:
        """Ask it to stop, wait until it has, and return the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        assert await self.ended() == KILLED

    def told(self, event: str) -> int:
        """Count an event in the log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(encoding="utf-8").count(f'"{event}"')
        return 0

    async def checks(self) -> dict[str, dict[str, Any]]:
        """Ask for readiness; give its checks by name."""
        answer = (await self.client.get("/health/ready")).json()
        return {check["name"]: check for check in answer["checks"]}


class Replicas:
    """The replicas of one database; ``all`` are there, started or not."""

    def __init__(
        self,
        postgres: MortalPostgres,
        database: str,
        members: list[Replica],
        pooling: PoolingProxy | None,
    ) -> None:
        self.postgres = postgres
        self.database = database
        self.all = members
        self.pooling = pooling

    async def start(self) -> None:
        """Start all that are not alive at once, and wait until they are ready."""
        idle = [replica for replica in self.all if not replica.is_alive]
        await asyncio.gather(*(replica.launch() for replica in idle))
        for replica in idle:
            await eventually(replica.is_ready)

    async def rows(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Read with a statement of SQL, past the proxies."""
        return await self.postgres.rows(self.database, statement, *values)

    async def leader(self) -> Replica | None:
        """Find the replica that holds the lock and is written down as leader."""
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            for row in await self.rows(_LEADER):
                pid = int(row["holder"].split(":")[1])
                return next((one for one in self.all if one.is_alive and one.pid == pid), None)
        return None

    async def new_leader(self, *, other_than: Replica | None = None) -> Replica:
        """Wait until one leads."""

        async def found() -> Replica | None:
            leader = await self.leader()
            return None if leader is other_than else leader

        leader: Replica = await eventually(found)
        return leader

    async def freeze_in_tick(self, leader: Replica) -> bool:
        """Stop the leader between two statements of a tick; False if that did not come about.

        It is stopped and let go on until its transaction is found open.
        """
        for _ in range(100):
            leader.freeze()
            await asyncio.sleep(0.1)  # a statement under way has ended by then
            if await self.rows(_TICKING):
                return True
            leader.thaw()
            await asyncio.sleep(0.037)
        return False

    async def follower(self) -> Replica:
        """Give one that is alive and does not lead."""
        leader = await self.new_leader()
        return next(one for one in self.all if one.is_alive and one is not leader)


@contextlib.asynccontextmanager
async def open_replicas(
    folder: Path,
    postgres: MortalPostgres,
    brood: "Brood",
    *settings: dict[str, str],
    pooled: bool = False,
) -> AsyncIterator[Replicas]:
    """Prepare an empty database and a replica for each of ``settings``; none is started.

    ``pooled``: DATABASE_URL is that of one proxy that pools transactions for all; the way to the
    server itself is by each one's own.
    """
    database = folder.name.replace("-", "_")
    await postgres.create(database)
    async with contextlib.AsyncExitStack() as stack:
        pooling = None
        if pooled:
            pooling = PoolingProxy(postgres.socket_path(), database)
            await stack.enter_async_context(pooling)
        members = []
        for number, environment in enumerate(settings):
            home = folder / f"replica-{number}"
            home.mkdir()
            place = await asyncio.to_thread(brood.nursery)
            stack.callback(place.leave)
            proxy = await stack.enter_async_context(DatabaseProxy(postgres.socket_path()))
            addresses = {"DATABASE_URL": _address(proxy.port, database)}
            if pooling is not None:
                addresses = {
                    "DATABASE_URL": _address(pooling.port, database),
                    "MYSCHEDULER_DATABASE_DIRECT_URL": addresses["DATABASE_URL"],
                }
            given = {**_CALM_SETTINGS, **addresses, **environment}
            replica = Replica(place, home, proxy, **given)
            members.append(await stack.enter_async_context(replica))
        yield Replicas(postgres, database, members, pooling)


def _address(port: int, database: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{database}"


# Nothing is spread in time, and no row that is to be judged is removed.
_CALM_SETTINGS = {
    "MYSCHEDULER_LATE_STARTS_PER_SECOND": "0",
    "MYSCHEDULER_HOST_CONCURRENCY": "100",
    "MYSCHEDULER_HISTORY_PER_JOB": "1000000",
}


class Target:
    """Answers by path: ``/hold`` no first attempt, ``/slow`` after a while, all others at once.

    ``open`` counts the requests that are being answered, ``peak`` the most there were at once.
    """

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.line.split()[1].decode()
        self.open[path] += 1
        self.peak[path] = max(self.peak[path], self.open[path])
        try:
            first = exchange.request.headers["x-scheduler-attempt"] == "1"
            if path.startswith("/hold") and first:
                await hang(exchange)
            elif not path.startswith("/slow") or not await exchange.pause(0.3):
                await _OK(exchange)
        finally:
            self.open[path] -= 1


_OK = reply("ok")


class Brood:
    """Gives nurseries that are forks of one process, while used as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "brood"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.replicas", self._path],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=WAIT_SECONDS)

    def nursery(self) -> "BroodNursery":
        """Give a nursery; waits for the imports, the first time."""
        if not self._path.exists():
            assert self._process.stdout is not None
            assert self._process.stdout.readline(), "the brood ended"
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self._path))
        return BroodNursery(line)


class BroodNursery(Nursery):
    """A nursery at the other end of a socket."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__()
        self._line = line
        self._answers = line.makefile("rb", buffering=0)

    def leave(self) -> None:
        """Let it end, and what it started."""
        self._answers.close()
        self._line.close()

    def start(self, order: dict[str, Any]) -> int:
        """Start a service; return its process id."""
        self._line.sendall(json.dumps(order).encode() + b"\n")
        return self._read()

    def has_news(self) -> bool:
        """Tell whether the service is gone."""
        return bool(select.select([self._line], [], [], 0)[0])

    def _read(self) -> int:
        line = self._answers.readline()
        assert line, "the nursery ended"
        return int(json.loads(line))


def main() -> None:
    """Fork a nursery for each connection until the input ends."""
    from tests.support import failpoint  # noqa: F401 - with all that every start would import

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the nurseries
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            line, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os.dup2(line.fileno(), 0)
                os.dup2(line.fileno(), 1)
                line.close()
                nursery.main()
                os._exit(0)
            line.close()


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text(encoding="utf-8").split()]


if __name__ == "__main__":
    main()
