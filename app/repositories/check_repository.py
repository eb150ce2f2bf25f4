"""SQL that looks for rows which no state of the program explains; for ``myscheduler check``."""

from datetime import datetime

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.clock import to_us
from app.models.tables import executions
from app.repositories.ledger_conditions import RUNNING


def count_overdue_leases(connection: ReadConnection, *, before: datetime) -> int:
    """Count running executions whose lease ended before an instant."""
    statement = sa.select(sa.func.count()).where(
        RUNNING, executions.c.lease_until_us < to_us(before)
    )
    return connection.execute(statement).scalar_one()
