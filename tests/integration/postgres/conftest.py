from collections.abc import AsyncIterator

import pytest

from tests.support.databases import DatabaseKind, Databases


@pytest.fixture
async def url(databases: Databases) -> AsyncIterator[str]:
    """Give the address of a PostgreSQL database at this program's schema."""
    async with databases.migrated(DatabaseKind.POSTGRES) as made:
        yield made
