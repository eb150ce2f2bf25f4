"""SQL that holds a job's limit of executions at once over all processes.

Where one process works (SQLite) it counts in memory, and nothing is asked here. Among replicas
each claim locks its jobs first, in the order of their ids: of two claims of one job the second sees
what the first took, and no two transactions wait for each other.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.execution import WaitingRun
from app.domain.ids import JobId
from app.models.tables import executions, jobs
from app.repositories.job_repository import CHUNK
from app.repositories.ledger_conditions import OPEN, RUNNING


def free_slots(connection: WriteConnection, runs: Sequence[WaitingRun]) -> dict[JobId, int]:
    """Tell how many more executions may run of those jobs that may run a certain number at once.

    Jobs without a limit are left out, and so are those limited to one, whose limit an index holds.
    """
    if connection.dialect.name == "sqlite":
        return {}
    _lock(connection, sorted({run.job_id for run in runs}))
    limits = {
        run.job_id: run.job_slots for run in runs if run.job_slots is not None and run.job_slots > 1
    }
    free = dict(limits)
    for start in range(0, len(limits), CHUNK):
        ids = list(limits)[start : start + CHUNK]
        counts = connection.execute(
            sa.select(executions.c.job_id, sa.func.count())
            .where(executions.c.job_id.in_(ids), RUNNING, OPEN)
            .group_by(executions.c.job_id)
        )
        for job_id, count in counts:
            free[JobId(job_id)] -= count
    return free


def _lock(connection: WriteConnection, job_ids: Sequence[JobId]) -> None:
    for start in range(0, len(job_ids), CHUNK):
        connection.execute(
            sa.select(jobs.c.id)
            .where(jobs.c.id.in_(job_ids[start : start + CHUNK]))
            .order_by(jobs.c.id)
            .with_for_update(key_share=True)
        )
