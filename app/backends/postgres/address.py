"""A database address as asyncpg itself takes it, for connections past SQLAlchemy."""

from typing import Any

from sqlalchemy.engine import make_url

# An address may hold them for the engines; asyncpg knows none of them.
_DIALECTS_OWN = ("prepared_statement_cache_size", "prepared_statement_name_func")


def driver_arguments(url: str) -> dict[str, Any]:
    """Give the arguments of ``asyncpg.connect`` for an address of PostgreSQL.

    They are the dialect's reading of it, so that ``?ssl=require`` means here what it means there.
    """
    address = make_url(url).set(drivername="postgresql+asyncpg")
    arguments = dict(address.get_dialect()().create_connect_args(address)[1])
    for name in _DIALECTS_OWN:
        arguments.pop(name, None)
    return arguments
