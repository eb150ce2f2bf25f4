"""Says whether a database address can be used, and why not. Pure; called by ``core/config.py``.

Messages never repeat the address: it may hold a password.
"""

import re
from urllib.parse import parse_qsl

_SQLITE_SCHEMES = frozenset({"sqlite", "sqlite+aiosqlite"})
_POSTGRES_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")
# The same cuts as SQLAlchemy's: the first @ ends the password, which may hold / ? and #.
_POSTGRES = re.compile(
    r"[a-z+]+://(?:[^:/@]*(?::[^@]*)?@)?(?P<host>\[[^/?]+\]|[^/:?]*)(?::(?P<port>[^/?]*))?"
    r"(?:/[^?]*)?(?:\?(?P<query>.*))?"
)
_PORT_MAX = 65535
_ALLOWED = "sqlite:///path/to/jobs.db or postgresql://user:password@host:5432/database"


def check_database_url(url: str) -> str:
    """Return ``url`` unchanged if it can be used.

    Raises ``ValueError`` with the rest of a sentence that begins with the setting's name.
    """
    found = _SCHEME.match(url)
    if found is None or not url.isprintable():
        raise ValueError(f"is not a database address; it must look like {_ALLOWED}")
    scheme = found.group(1)
    if scheme in _SQLITE_SCHEMES:
        _check_sqlite(url[found.end() :])
    elif scheme in _POSTGRES_SCHEMES:
        _check_postgres(url)
    else:
        raise ValueError(f"begins with {scheme}://, which is not supported; use {_ALLOWED}")
    return url


def check_direct_url(url: str) -> str:
    """Return ``url`` unchanged if it is empty or a PostgreSQL address; raises as above."""
    if url and not url.startswith(("postgres://", "postgresql://", "postgresql+asyncpg://")):
        raise ValueError("must be a PostgreSQL address, or be left out")
    return check_database_url(url) if url else url


def _check_sqlite(rest: str) -> None:
    path = rest.removeprefix("/")
    if not path or ":memory:" in path or "mode=memory" in path:
        raise ValueError(
            "names a SQLite database in memory, and nothing would survive a restart; "
            "name a file, for example sqlite:///./data/jobs.db"
        )
    if not rest.startswith("/"):
        raise ValueError(
            "has two slashes after sqlite:, where three are needed: "
            "sqlite:///relative/path or sqlite:////absolute/path"
        )
    if path.startswith("file:") or "?" in path:
        raise ValueError(
            "must give the SQLite file as a plain path, without file: and without options after ?"
        )
    if path.endswith("/"):
        raise ValueError("names a directory; add the file's name, for example jobs.db")


def _check_postgres(url: str) -> None:
    parts = _POSTGRES.fullmatch(url)
    port = parts["port"] if parts else None
    if (
        parts is None
        or "@" in parts["host"]
        or (port is not None and not (port.isdecimal() and 0 < int(port) <= _PORT_MAX))
    ):
        raise ValueError(
            "cannot be read after //: it must be user:password@host:port/database, and the "
            "characters @ and : in a password must be percent-encoded (@ is %40, : is %3A)"
        )
    if any(
        name == "sslmode" for name, _ in parse_qsl(parts["query"] or "", keep_blank_values=True)
    ):
        raise ValueError("has the option sslmode, which is called ssl here: ?ssl=require")
