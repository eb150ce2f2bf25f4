"""SQL on the one row that says who ticks, under which term."""

from datetime import datetime

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.errors import StorageInUseError
from app.models.tables import leadership


def take_leadership(connection: WriteConnection, *, holder: str, now: datetime) -> int:
    """Begin a new term for ``holder`` and return its number."""
    us = to_us(now)
    term = connection.execute(sa.select(leadership.c.term).with_for_update()).scalar()
    values = {"holder": holder, "since_us": us, "beat_us": us}
    if term is None:
        connection.execute(sa.insert(leadership), {"id": 1, "term": 1, **values})
        return 1
    connection.execute(sa.update(leadership).values(term=term + 1, **values))
    return int(term) + 1


def guard_term(connection: WriteConnection, *, term: int) -> None:
    """Refuse the transaction of a leader whose term is over; while it lasts, no term begins."""
    # Locked on PostgreSQL: a term begun between this and the commit would not be seen any more.
    statement = sa.select(leadership.c.term).with_for_update(read=True)
    current = connection.execute(statement).scalar()
    if current != term:
        raise StorageInUseError(
            "Another process has taken over the schedule of this database; this one stops ticking"
        )


def beat(connection: WriteConnection, *, now: datetime) -> None:
    """Prove that the database takes writes."""
    connection.execute(sa.update(leadership).values(beat_us=to_us(now)))
