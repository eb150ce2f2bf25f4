"""SQL for what this process wrote in a commit that the database did not confirm.

Each function goes ahead of a repetition, or stands in for one, and waits for the transaction in
doubt to end, if it is still under way. Called only after ``StorageUnansweredError``.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.models.tables import attempts, executions
from app.repositories import job_repository
from app.repositories.batch import IDS, parameters
from app.repositories.ledger_conditions import NAMED_RUNNING
from app.repositories.run_repository import Ending, record_endings

# Whatever their status: a row that the transaction in doubt holds is waited for.
_SETTLED = (
    sa.select(executions.c.id)
    .where(IDS.holds(executions.c.id, "id"))
    .order_by(executions.c.id)
    .with_for_update()
)
_CLAIMED = sa.select(executions.c.id, executions.c.job_id, executions.c.attempts).where(
    IDS.holds(executions.c.id, "id"),
    NAMED_RUNNING,
    executions.c.owner == sa.bindparam("my_owner"),
    executions.c.fence == sa.bindparam("my_fence"),
    # One that was cancelled meanwhile is left to the rescue, which ends it.
    executions.c.stop_reason.is_(None),
)
_first = executions.c.attempts == 1
_WITHDRAW = (
    sa.update(executions)
    .where(IDS.holds(executions.c.id, "id"), NAMED_RUNNING)
    .values(
        status=sa.case((_first, ExecutionStatus.QUEUED), else_=ExecutionStatus.RETRYING),
        next_attempt_us=executions.c.attempt_started_us,
        attempts=executions.c.attempts - 1,
        started_us=sa.case((_first, None), else_=executions.c.started_us),
        attempt_started_us=None,
        owner=None,
        fence=None,
        lease_until_us=None,
        slot_host=None,
    )
)
_ENDED = sa.select(
    executions.c.id,
    executions.c.status,
    executions.c.reason,
    executions.c.attempts,
    executions.c.finished_us,
).where(IDS.holds(executions.c.id, "id"))
_KEPT = sa.select(attempts.c.execution_id, attempts.c.number, attempts.c.owner).where(
    IDS.holds(attempts.c.execution_id, "id")
)


def withdraw_claims(
    connection: WriteConnection, ids: Collection[ExecutionId], *, owner: str, fence: int
) -> list[ExecutionId]:
    """Let runs wait again that this process claimed and never began; return which those were.

    Of none of ``ids`` may this process make an attempt, nor may it have begun one.
    """
    rows = [(execution_id,) for execution_id in sorted(ids)]
    connection.execute(_SETTLED, parameters(rows))
    claimed = connection.execute(_CLAIMED, parameters(rows, my_owner=owner, my_fence=fence)).all()
    if not claimed:
        return []
    connection.execute(_WITHDRAW, parameters([(row.id,) for row in claimed]))
    begun = Counter(JobId(row.job_id) for row in claimed if row.attempts == 1)
    job_repository.count_starts(connection, {job_id: -count for job_id, count in begun.items()})
    return [ExecutionId(row.id) for row in claimed]


def record_again(connection: WriteConnection, endings: Sequence[Ending]) -> list[Ending]:
    """Write endings that were maybe written; return those that are, by then or by now.

    Otherwise as ``record_endings``.
    """
    written = record_endings(connection, endings)
    known = {ending.execution_id for ending in written}
    return written + _recorded(
        connection, [ending for ending in endings if ending.execution_id not in known]
    )


def _recorded(connection: WriteConnection, endings: Sequence[Ending]) -> list[Ending]:
    """Tell which of the endings are this process's own, as the rows have them."""
    if not endings:
        return []
    rows = parameters([(ending.execution_id,) for ending in endings])
    ended = {row.id: row for row in connection.execute(_ENDED, rows)}
    kept = {tuple(row) for row in connection.execute(_KEPT, rows)}
    found: list[Ending] = []
    for ending in endings:
        row = ended.get(ending.execution_id)
        if (ending.execution_id, ending.number, ending.owner) in kept:
            found.append(ending)
        elif row is not None and _is_end_of(row, ending):
            reason = None if row.reason is None else Reason(row.reason)
            found.append(
                replace(
                    ending,
                    status=ExecutionStatus(row.status),
                    reason=reason,
                    next_attempt_at=None,
                )
            )
    return found


def _is_end_of(row: Any, ending: Ending) -> bool:
    return (row.attempts, row.finished_us) == (ending.number, to_us(ending.ended_at))
