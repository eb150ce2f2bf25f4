"""Where a service under test keeps what it has: a folder of its own and a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.databases import DatabaseKind, Databases
from tests.support.plain_sql import PlainSql, open_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A folder and the address of a database (DATABASE_URL), which outlive every process.

    On SQLite the database is a file in the folder, not made yet; on PostgreSQL one of its own on
    the tests' server, at this program's schema.
    """

    kind: DatabaseKind
    folder: Path
    url: str

    @property
    def file(self) -> Path:
        """The database's file, on SQLite."""
        assert self.kind is DatabaseKind.SQLITE
        return sqlite_file(self.folder)

    def open_sql(self) -> PlainSql:
        """Connect for plain SQL, past the service; to be closed."""
        return open_sql(self.url)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement of plain SQL and give what it returns."""
        with self.open_sql() as sql:
            return sql.rows(statement, *parameters)


def sqlite_home(folder: Path) -> Home:
    """Give a home whose database is a file in ``folder``."""
    url = f"sqlite:///{sqlite_file(folder)}"
    return Home(kind=DatabaseKind.SQLITE, folder=folder, url=url)


def sqlite_file(folder: Path) -> Path:
    """Tell where the database of such a home is."""
    return folder / "data" / "jobs.db"


@contextmanager
def open_home(databases: Databases, kind: DatabaseKind, folder: Path) -> Iterator[Home]:
    """Give a home on either database; nothing is left on the server at the end."""
    if kind is DatabaseKind.SQLITE:
        yield sqlite_home(folder)
        return
    with databases.own_postgres() as url:
        yield Home(kind=kind, folder=folder, url=url)
