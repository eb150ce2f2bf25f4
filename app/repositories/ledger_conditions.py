"""Which executions wait, run or are open, said exactly as the partial indexes say it.

The states stand in the statement's text, not in its parameters: SQLite uses a partial index only if
it finds the index's own condition in the statement, and PostgreSQL's plans for any parameters
cannot know that a parameter will be one of these states. Used by the repositories of the ledger.
"""

import sqlalchemy as sa

from app.domain.execution import ExecutionStatus
from app.models.tables import executions


def _status_in(*statuses: ExecutionStatus) -> sa.ColumnElement[bool]:
    return executions.c.status.in_([sa.literal_column(f"'{status}'") for status in statuses])


WAITING = _status_in(ExecutionStatus.QUEUED, ExecutionStatus.RETRYING)
OPEN = _status_in(ExecutionStatus.QUEUED, ExecutionStatus.RUNNING, ExecutionStatus.RETRYING)
RUNNING = executions.c.status == sa.literal_column(f"'{ExecutionStatus.RUNNING}'")
