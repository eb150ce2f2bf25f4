from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.databases import DatabaseKind, Databases
from tests.support.replicas import Brood, MortalPostgres, mortal_postgres


@pytest.fixture
async def url(databases: Databases) -> AsyncIterator[str]:
    """Give the address of a PostgreSQL database at this program's schema."""
    async with databases.migrated(DatabaseKind.POSTGRES) as made:
        yield made


@pytest.fixture(scope="module")
def postgres() -> Iterator[MortalPostgres]:
    """Run a server of the module's own, which it may restart."""
    with mortal_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def brood(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brood]:
    """Import the service once for all of a module's replicas."""
    with Brood(tmp_path_factory.mktemp("brood")) as made:
        yield made
