"""SQL on what happened to the service itself: starts, stops, steps of the machine's clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.clock import from_us, to_us
from app.models.tables import service_events


class ServiceEventKind(StrEnum):
    """What happened."""

    STARTED = "started"
    STOPPED = "stopped"
    CLOCK_SET_BACK = "clock_set_back"
    CLOCK_SET_FORWARD = "clock_set_forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEvent:
    """One event, at the wall clock's ``at``.

    ``since`` is, for a start, the last sign of life before it (None: the first start); for a step
    of the clock, what the clock would have shown without it. ``process`` names the process.
    """

    at: datetime
    kind: ServiceEventKind
    since: datetime | None
    process: str


def add_event(connection: WriteConnection, event: ServiceEvent) -> None:
    """Write one event."""
    connection.execute(
        sa.insert(service_events),
        {
            "at_us": to_us(event.at),
            "kind": event.kind,
            "since_us": None if event.since is None else to_us(event.since),
            "process": event.process,
        },
    )


def events_between(
    connection: ReadConnection, begin: datetime, end: datetime, *, limit: int
) -> list[ServiceEvent]:
    """Read the events from one instant to another, both included, oldest first."""
    statement = (
        sa.select(service_events)
        .where(service_events.c.at_us >= to_us(begin), service_events.c.at_us <= to_us(end))
        .order_by(service_events.c.at_us, service_events.c.seq)
        .limit(limit)
    )
    return [_event(row) for row in connection.execute(statement)]


def first_start_after(connection: ReadConnection, instant: datetime) -> ServiceEvent | None:
    """Read the first start at or after an instant."""
    statement = (
        sa.select(service_events)
        .where(service_events.c.at_us >= to_us(instant))
        .where(service_events.c.kind == ServiceEventKind.STARTED)
        .order_by(service_events.c.at_us)
        .limit(1)
    )
    row = connection.execute(statement).first()
    return None if row is None else _event(row)


def _event(row: sa.Row[tuple[int, int, str, int | None, str]]) -> ServiceEvent:
    return ServiceEvent(
        at=from_us(row.at_us),
        kind=ServiceEventKind(row.kind),
        since=None if row.since_us is None else from_us(row.since_us),
        process=row.process,
    )
