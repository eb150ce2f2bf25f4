"""How an address of PostgreSQL reaches asyncpg."""

from app.backends.postgres.address import driver_arguments


def test_what_only_the_engines_know_is_left_out():
    """A setting of SQLAlchemy's dialect in the address does not reach asyncpg; others do."""
    url = "postgresql://user:p%40ss@h:5433/jobs?prepared_statement_cache_size=0&ssl=require"
    assert driver_arguments(url) == {
        "host": "h", "port": 5433, "database": "jobs", "user": "user", "password": "p@ss",
        "ssl": "require",
    }  # fmt: skip
