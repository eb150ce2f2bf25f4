from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.databases import DatabaseKind, Databases, open_databases


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Make databases for this test process; the server ends with the session."""
    with open_databases() as made:
        yield made


@pytest.fixture
async def url(databases: Databases) -> AsyncIterator[str]:
    """Give the address of a PostgreSQL database at this program's schema."""
    async with databases.migrated(DatabaseKind.POSTGRES) as made:
        yield made
