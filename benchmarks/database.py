"""The database under measurement: a fresh one, and reading its ledger from outside the service."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool


@contextlib.asynccontextmanager
async def fresh_database(folder: Path, server_url: str | None = None) -> AsyncIterator[str]:
    """Give the address of a database that holds nothing.

    Without ``server_url`` that is a SQLite file in ``folder``; with the address of a PostgreSQL
    server, a database made there, which is removed afterwards.
    """
    if server_url is None:
        yield f"sqlite:///{folder / 'jobs.db'}"
        return
    name = f"benchmark_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


class Database:
    """Reads with statements of SQL, apart from the service's own doors; writes nothing."""

    def __init__(self, url: str) -> None:
        address = sa.make_url(url)
        self._sqlite: sa.Engine | None = None
        self._postgres: AsyncEngine | None = None
        if address.get_backend_name() == "sqlite":
            file = f"sqlite:///file:{address.database}?mode=ro&uri=true"
            connect_args = {"check_same_thread": False}
            self._sqlite = sa.create_engine(file, poolclass=StaticPool, connect_args=connect_args)
        else:
            self._postgres = create_async_engine(address.set(drivername="postgresql+asyncpg"))

    async def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Read all rows of a statement whose parameters are ``:named``."""
        if self._sqlite is not None:
            return await asyncio.to_thread(_read, self._sqlite, statement, parameters)
        assert self._postgres is not None
        async with self._postgres.connect() as connection:
            found = await connection.execute(sa.text(statement), parameters)
            return [tuple(row) for row in found]

    async def close(self) -> None:
        """Close the connections."""
        if self._sqlite is not None:
            self._sqlite.dispose()
        if self._postgres is not None:
            await self._postgres.dispose()


def _read(engine: sa.Engine, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), parameters)]
