"""The clock by which leases are told: one that all processes on a database share.

On PostgreSQL it is the server's, whatever the clocks of the replicas show. On SQLite one process
writes leases and judges them, by its own. May import SQLAlchemy only.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Present(FunctionElement[int]):
    """The present in microseconds; its one clause is what this process takes it for."""

    type = sa.BigInteger()
    inherit_cache = True


PRESENT_US = _Present(sa.bindparam("now_us", type_=sa.BigInteger))
"""The present, where a statement has the parameter ``now_us``."""


@compiles(_Present, "sqlite")
def _own_clock(element: _Present, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_Present, "postgresql")
def _servers_clock(_element: _Present, _compiler: Any, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
