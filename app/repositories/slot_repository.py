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
from app.repositories.batch import IDS, id_parameters
from app.repositories.ledger_conditions import OPEN, RUNNING

_COUNT_RUNNING = (
    sa.select(executions.c.job_id, sa.func.count())
    .where(IDS.holds(executions.c.job_id, "id"), RUNNING, OPEN)
    .group_by(executions.c.job_id)
)
_LOCK = (
    sa.select(jobs.c.id)
    .where(IDS.holds(jobs.c.id, "id"))
    .order_by(jobs.c.id)
    .with_for_update(key_share=True)
)


def free_slots(connection: WriteConnection, runs: Sequence[WaitingRun]) -> dict[JobId, int]:
    """Tell how many more executions may run of those jobs that may run a certain number at once.

    Jobs without a limit are left out, and so are those limited to one, whose limit an index holds.
    """
    if connection.dialect.name == "sqlite":
        return {}
    connection.execute(_LOCK, id_parameters({run.job_id for run in runs}))
    free = {
        run.job_id: run.job_slots for run in runs if run.job_slots is not None and run.job_slots > 1
    }
    if free:
        for job_id, count in connection.execute(_COUNT_RUNNING, id_parameters(free)):
            free[job_id] -= count
    return free
