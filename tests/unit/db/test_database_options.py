from pathlib import Path

import pytest

from app.db.session import DatabaseOptions


@pytest.mark.parametrize(
    ("url", "is_sqlite"),
    [
        ("sqlite:///jobs.db", True),
        ("sqlite+aiosqlite:////data/jobs.db", True),
        ("postgresql://me@db/jobs", False),
        ("postgresql+asyncpg:///jobs?host=/run/postgresql", False),
    ],
)
def test_the_address_says_which_database_it_is(url: str, *, is_sqlite: bool):
    """The name of the database decides, whatever driver is named with it."""
    assert DatabaseOptions(url=url).is_sqlite is is_sqlite


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/jobs.db", Path("/var/lib/jobs.db")),
        ("sqlite:///data/jobs.db", Path.cwd() / "data/jobs.db"),
        ("sqlite:///./a%20b/データ.db", Path.cwd() / "a b/データ.db"),
    ],
)
def test_the_path_of_a_file_is_absolute(url: str, path: Path):
    """A relative path begins where the process was started; %20 is a space."""
    assert DatabaseOptions(url=url).sqlite_path == path


@pytest.mark.parametrize("counts", [{"readers": 0}, {"writers": 0}, {"readers": -1}])
def test_there_is_at_least_one_connection_of_each(counts: dict[str, int]):
    """Counts below one are refused when the options are made."""
    with pytest.raises(ValueError, match="at least 1"):
        DatabaseOptions(url="sqlite:///jobs.db", **counts)
