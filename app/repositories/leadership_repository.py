"""SQL on the one row that says who ticks, under which term."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.errors import StorageInUseError
from app.models.tables import leadership


def take_leadership(connection: WriteConnection, *, holder: str, now: datetime) -> int:
    """Begin a new term for ``holder`` and return its number."""
    us = to_us(now)
    term = connection.execute(sa.select(leadership.c.term).with_for_update()).scalar()
    if term is None:
        first = {"id": 1, "term": 1, "holder": holder, "since_us": us, "beat_us": us}
        connection.execute(sa.insert(leadership), first)
        return 1
    # The last sign of life stays until the new leader has looked at it: begin_beats.
    connection.execute(sa.update(leadership).values(term=term + 1, holder=holder, since_us=us))
    return int(term) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """Who ticks: the holder of the present term, since when, and its last sign of life."""

    term: int
    holder: str
    since: datetime
    beat: datetime


def read_leadership(connection: ReadConnection) -> Leadership | None:
    """Read who is written down as leader; None in a new database."""
    row = connection.execute(sa.select(leadership)).one_or_none()
    if row is None:
        return None
    return Leadership(
        term=row.term, holder=row.holder, since=from_us(row.since_us), beat=from_us(row.beat_us)
    )


def last_beat(connection: ReadConnection) -> datetime | None:
    """Tell the last sign of life of whoever led; None in a new database."""
    us = connection.execute(sa.select(leadership.c.beat_us)).scalar()
    return None if us is None else from_us(us)


def guard_term(connection: WriteConnection, *, term: int) -> None:
    """Refuse the transaction of a leader whose term is over; while it lasts, no term begins."""
    # Locked on PostgreSQL: a term begun between this and the commit would not be seen any more.
    statement = sa.select(leadership.c.term).with_for_update(read=True)
    current = connection.execute(statement).scalar()
    if current != term:
        raise StorageInUseError(
            "Another process has taken over the schedule of this database; this one stops ticking"
        )


def prove_writable(connection: WriteConnection, *, now: datetime) -> None:
    """Fail unless the database takes writes; in SQLite by a sign of life of the one process."""
    if connection.dialect.name == "sqlite":
        beat(connection, now=now)
    else:
        # Only a server that takes writes gives a transaction a number.
        connection.execute(sa.text("SELECT pg_current_xact_id()"))


def beat(connection: WriteConnection, *, now: datetime) -> None:
    """Write a sign of life; a clock that was set back unnoticed leaves the last one to tell."""
    us = to_us(now)
    connection.execute(sa.update(leadership).where(leadership.c.beat_us < us).values(beat_us=us))


def begin_beats(connection: WriteConnection, *, now: datetime) -> None:
    """Write the first sign of life on a clock that is known: at a start, after a mended step."""
    connection.execute(sa.update(leadership).values(beat_us=to_us(now)))
