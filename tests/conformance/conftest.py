from collections.abc import AsyncIterator

import pytest

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from tests.support.databases import (
    Database,
    DatabaseKind,
    Databases,
    open_database,
)


@pytest.fixture(params=list(DatabaseKind), ids=str)
def kind(request: pytest.FixtureRequest) -> DatabaseKind:
    """Run the test on each kind of database."""
    found: DatabaseKind = request.param
    return found


@pytest.fixture
async def empty_url(databases: Databases, kind: DatabaseKind) -> AsyncIterator[str]:
    """Give the address of a database that holds nothing yet."""
    async with databases.empty(kind) as url:
        yield url


@pytest.fixture
async def database(databases: Databases, kind: DatabaseKind) -> AsyncIterator[Database]:
    """Open a fresh database at this program's schema."""
    async with databases.migrated(kind) as url, open_database(url) as opened:
        yield opened


@pytest.fixture
async def own(empty_url: str) -> AsyncIterator[Database]:
    """Open a database whose schema no other test uses."""
    await migrate(DatabaseOptions(url=empty_url))
    async with open_database(empty_url) as opened:
        yield opened


@pytest.fixture
async def sqlite(databases: Databases) -> AsyncIterator[Database]:
    """Open a fresh SQLite database, for what only it promises."""
    async with databases.migrated(DatabaseKind.SQLITE) as url, open_database(url) as opened:
        yield opened


@pytest.fixture
async def postgres(databases: Databases) -> AsyncIterator[Database]:
    """Open a fresh PostgreSQL database, for what only it promises."""
    async with databases.migrated(DatabaseKind.POSTGRES) as url, open_database(url) as opened:
        yield opened
