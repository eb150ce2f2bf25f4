"""Which executions wait, run, are open or went wrong: as the partial indexes say it, or not.

The states stand in the statement's text, not in its parameters: SQLite uses a partial index only if
it finds the index's own condition in the statement, and PostgreSQL's plans for any parameters
cannot know that a parameter will be one of these states. Used by the repositories of the ledger.
"""

import sqlalchemy as sa

from app.domain.execution import Cause, ExecutionStatus
from app.models.tables import executions, job_revisions


def literal_status(status: ExecutionStatus) -> sa.ColumnElement[str]:
    """Write a status into the text of a statement."""
    return sa.literal_column(f"'{status}'")


def status_in(*statuses: ExecutionStatus) -> sa.ColumnElement[bool]:
    """Say that an execution's status is one of these, in the text of a statement."""
    return executions.c.status.in_([literal_status(status) for status in statuses])


DUE = executions.c.cause.in_(
    [sa.literal_column(f"'{cause}'") for cause in (Cause.SCHEDULE, Cause.CATCH_UP)]
)
WAITING = status_in(ExecutionStatus.QUEUED, ExecutionStatus.RETRYING)
OPEN = status_in(ExecutionStatus.QUEUED, ExecutionStatus.RUNNING, ExecutionStatus.RETRYING)
RUNNING = executions.c.status == literal_status(ExecutionStatus.RUNNING)
# The same of rows that a statement names by their ids, said so that no partial index can be chosen.
# Of what was queued or ended a moment ago PostgreSQL's statistics know nothing: it takes these
# indexes for nearly empty and reads them from end to end, with what they keep of rows that ended,
# where it should look up a hundred rows.
_status = executions.c.status.op("||", return_type=sa.Text())(sa.literal_column("''"))
NAMED_WAITING = _status.in_(
    [literal_status(ExecutionStatus.QUEUED), literal_status(ExecutionStatus.RETRYING)]
)
NAMED_RUNNING = _status == literal_status(ExecutionStatus.RUNNING)
NOT_COMPLETED = status_in(
    ExecutionStatus.FAILED,
    ExecutionStatus.CANCELLED,
    ExecutionStatus.UNKNOWN,
    ExecutionStatus.SKIPPED,
    ExecutionStatus.MISSED,
)
# An execution goes by the definition that was in force when it was queued.
OF_ITS_REVISION = sa.and_(
    job_revisions.c.job_id == executions.c.job_id,
    job_revisions.c.revision == executions.c.job_revision,
)
