"""What tests of every folder share: the databases, and the homes of services on either of them.

A test that asks for ``home`` (or for a fixture made of it) runs on SQLite and on PostgreSQL. What
is about one of them alone says so by ``@pytest.mark.only_on(DatabaseKind.…, because="…")``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import DatabaseKind, Databases, open_databases
from tests.support.homes import Home, open_home


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses a database on each kind it is about."""
    if "database_kind" in metafunc.fixturenames:
        kinds = _kinds_of(metafunc.definition)
        metafunc.parametrize("database_kind", kinds, ids=str, indirect=True, scope="module")


def _kinds_of(item: pytest.Item) -> list[DatabaseKind]:
    marks = list(item.iter_markers("only_on"))
    for mark in marks:
        assert mark.kwargs["because"], f"{item.nodeid}: only_on needs a reason"
    return [kind for kind in DatabaseKind if all(kind in mark.args for mark in marks)]


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Make databases for this test process; the server ends with the session."""
    with open_databases() as made:
        yield made


@pytest.fixture(scope="module")
def database_kind(request: pytest.FixtureRequest) -> DatabaseKind:
    """Tell the kind of database that the test runs on."""
    found: DatabaseKind = request.param
    return found


@pytest.fixture
def home(databases: Databases, database_kind: DatabaseKind, tmp_path: Path) -> Iterator[Home]:
    """Give a fresh home to one test."""
    with open_home(databases, database_kind, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def module_home(
    databases: Databases, database_kind: DatabaseKind, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    """Give a fresh home to all tests of a module that run on one kind of database."""
    with open_home(databases, database_kind, tmp_path_factory.mktemp("home")) as made:
        yield made
