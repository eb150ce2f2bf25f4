"""SQL on idempotency keys: what was answered to a request, so that its repetition gets the same."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import to_us
from app.models.tables import idempotency_keys

# How long a key is remembered.
REMEMBERED = timedelta(hours=24)

# "MyIK", in ASCII: the first half of the locks under which requests with one key take turns.
_TURNS = 0x4D79494B


@dataclass(frozen=True, slots=True)
class Answered:
    """The request a key came with (a digest), and what it was answered."""

    request_hash: str
    answer: str


def take_turn(connection: WriteConnection, key: str) -> None:
    """Wait until no other transaction works on a request with this key; ends with this one.

    Without it two that come at once both find no answer. SQLite's writers take turns anyway.
    """
    if connection.dialect.name == "postgresql":
        turn = sa.func.pg_advisory_xact_lock(_TURNS, sa.func.hashtext(key))
        connection.execute(sa.select(turn))


def find_answered(connection: ReadConnection, key: str, *, now: datetime) -> Answered | None:
    """Read what a key was answered, unless that is too long ago."""
    row = connection.execute(
        sa.select(idempotency_keys.c.request_hash, idempotency_keys.c.answer).where(
            idempotency_keys.c.key == key,
            idempotency_keys.c.created_us > to_us(now - REMEMBERED),
        )
    ).first()
    return None if row is None else Answered(row.request_hash, row.answer)


def forget_old(connection: WriteConnection, *, now: datetime, rows: int) -> int:
    """Remove keys that are remembered no longer, at most so many; return how many."""
    old = sa.select(idempotency_keys.c.key).where(
        idempotency_keys.c.created_us <= to_us(now - REMEMBERED)
    )
    gone = connection.execute(
        sa.delete(idempotency_keys).where(
            idempotency_keys.c.key.in_(old.order_by(idempotency_keys.c.created_us).limit(rows))
        )
    )
    return gone.rowcount


def remember(connection: WriteConnection, key: str, answered: Answered, *, now: datetime) -> None:
    """Store an answer in the transaction that made it true, in the place of one that is too old.

    Other old ones are left to ``forget_old``: after a busy day they are many.
    """
    connection.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.key == key))
    connection.execute(
        sa.insert(idempotency_keys),
        {
            "key": key,
            "request_hash": answered.request_hash,
            "answer": answered.answer,
            "created_us": to_us(now),
        },
    )
