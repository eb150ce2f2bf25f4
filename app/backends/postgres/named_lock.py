"""An advisory lock by name, on a session of its own: what ``app.locks`` takes on PostgreSQL.

The key is 63 bits of the name's SHA-256 with the top bit set, so it is negative: never the
leader's key, nor that of migrations, nor one of the small numbers that people choose. Two names
with one key would only exclude each other (among ten thousand names less than one chance in 10^11).

A session that waits inside ``pg_advisory_lock`` keeps a snapshot and with it dead rows from being
cleaned away, so nobody here waits there: the lock is tried for.
"""

import asyncio
import hashlib
from typing import Any

import asyncpg

from app.backends.postgres.address import driver_arguments
from app.domain.errors import StorageUnavailableError

_APPLICATION = "myscheduler lock "
# PostgreSQL cuts names after 63 bytes.
_APPLICATION_BYTES_MAX = 63
_TOP_BIT = 1 << 63
_HALF = 0xFFFF_FFFF

_TAKE = "SELECT pg_try_advisory_lock($1)"
_GIVE_BACK = "SELECT pg_advisory_unlock($1)"
_LOCK = (
    "locktype = 'advisory' AND granted AND objsubid = 1 AND classid = $1::bigint::oid"
    " AND objid = $2::bigint::oid"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_IS_HELD = f"SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = pg_backend_pid() AND {_LOCK})"  # noqa: S608 - a constant
_HOLDER = (
    "SELECT pid, application_name, client_addr, backend_start"  # noqa: S608 - a constant
    f" FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {_LOCK}"
)
# The server ends the session of a holder that has vanished after nine seconds: three of silence
# and three unanswered questions, or nine during which it does not take in an answer.
_SETTINGS = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "9s",
}
_ASK_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
# The internal one is what asyncpg says of a connection that the server has just ended.
_FAILURES = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError,
    TimeoutError,
)  # fmt: skip


class PostgresNamedLock:
    """One name's lock; ``url`` must reach the server itself, not a proxy that pools transactions.

    ``take`` raises ``StorageUnavailableError``, and may then be tried again.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._address = driver_arguments(url)
        self._name = application_name(name)
        self._key = lock_key(name)
        self._connection: Any = None

    async def take(self) -> bool:
        """Take the lock; False if another session has it."""
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(
                    **self._address,
                    timeout=_ASK_SECONDS,
                    server_settings={**_SETTINGS, "application_name": self._name},
                )
            async with asyncio.timeout(_ASK_SECONDS):
                taken = bool(await self._connection.fetchval(_TAKE, self._key))
                if taken and not await self.is_held():
                    raise ConnectionResetError("another session has it")
        except _FAILURES as error:
            self._drop()
            raise StorageUnavailableError(
                "PostgreSQL could not be asked for the lock, or gave it to another session than "
                "this one; check DATABASE_URL and the server, and if a proxy that pools "
                "transactions stands between, name the server by MYSCHEDULER_DATABASE_DIRECT_URL"
            ) from error
        return taken

    async def holder(self) -> str:
        """Describe who has it, as PostgreSQL knows them."""
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                row = await self._connection.fetchrow(_HOLDER, *_halves(self._key))
        except _FAILURES:
            self._drop()
            return "a session that cannot be named now"
        if row is None:
            return "a session that has just ended"
        place = row["client_addr"] or "the server's own machine"
        named = "" if row["application_name"] == self._name else f", {row['application_name']!r}"
        since = row["backend_start"].isoformat(timespec="seconds")
        return f"a session from {place}, connected since {since} (pid {row['pid']}{named})"

    async def is_held(self) -> bool:
        """Ask whether this session has it; False too if its connection is gone. No deadline."""
        try:
            return bool(await self._connection.fetchval(_IS_HELD, *_halves(self._key)))
        except _FAILURES:
            return False

    async def give_back(self) -> bool:
        """Let the next one have it: when this returns the lock is free. Safe to call twice.

        Tells whether this session had it until now.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return False
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                had = bool(await connection.fetchval(_GIVE_BACK, self._key))
                await connection.close()
        except _FAILURES:
            connection.terminate()
            return False
        return had

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def lock_key(name: str) -> int:
    """Make the key of ``pg_advisory_lock`` for a name: a negative 64-bit number."""
    digest = hashlib.sha256(name.encode()).digest()[:8]
    return int.from_bytes(digest, "big") % _TOP_BIT - _TOP_BIT


def application_name(name: str) -> str:
    """Say what ``pg_stat_activity`` shows of the session that has, or wants, a name's lock."""
    shown = name.encode("ascii", "backslashreplace").decode()
    return f"{_APPLICATION}{shown}"[:_APPLICATION_BYTES_MAX]


def _halves(key: int) -> tuple[int, int]:
    """Cut a key as ``pg_locks`` does, into classid and objid."""
    return (key >> 32) & _HALF, key & _HALF
