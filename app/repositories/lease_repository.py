"""SQL about leases: renewed by who runs an execution, and judged once more before it is rescued.

By the database's clock among replicas, whatever theirs show (``database_clock``). A renewal waits
for no other transaction, and none waits long for it: rows that another one holds are about to end
or to be stopped, and are left for the next renewal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.ids import ExecutionId
from app.models.tables import executions
from app.repositories.batch import IDS, id_parameters
from app.repositories.database_clock import PRESENT_US
from app.repositories.ledger_conditions import NAMED_RUNNING

_MICROSECOND = timedelta(microseconds=1)

_MINE = (
    sa.select(executions.c.id)
    .where(
        IDS.holds(executions.c.id, "id"),
        NAMED_RUNNING,
        executions.c.owner == sa.bindparam("my_owner"),
        executions.c.fence == sa.bindparam("my_fence"),
    )
    .with_for_update(skip_locked=True, key_share=True)
)
_RENEW = (
    sa.update(executions)
    .where(IDS.holds(executions.c.id, "id"))
    .values(lease_until_us=PRESENT_US + sa.bindparam("lease_us", type_=sa.BigInteger))
)
_OVER = (
    sa.select(executions.c.id)
    .where(
        IDS.holds(executions.c.id, "id"), NAMED_RUNNING, executions.c.lease_until_us < PRESENT_US
    )
    .order_by(executions.c.id)
    .with_for_update()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Who renews, under which fence, and for how long from now."""

    owner: str
    fence: int
    now: datetime
    lease: timedelta


def renew_leases(
    connection: WriteConnection, ids: Sequence[ExecutionId], renewal: Renewal
) -> list[ExecutionId]:
    """Renew those of ``ids`` that run under this owner and fence; return which those were.

    Also one that is over already: while nobody has rescued the run it is its owner's.
    """
    mine = connection.execute(
        _MINE, id_parameters(ids, my_owner=renewal.owner, my_fence=renewal.fence)
    )
    renewed = [ExecutionId(execution_id) for execution_id in mine.scalars()]
    if renewed:
        lease_us = renewal.lease // _MICROSECOND
        values = id_parameters(renewed, lease_us=lease_us, now_us=to_us(renewal.now))
        connection.execute(_RENEW, values)
    return renewed


def hold_those_over(
    connection: WriteConnection, ids: Sequence[ExecutionId], *, now: datetime
) -> set[ExecutionId]:
    """Tell whose leases are over, and keep their owners from renewing them in this transaction."""
    found = connection.execute(_OVER, id_parameters(ids, now_us=to_us(now)))
    return {ExecutionId(execution_id) for execution_id in found.scalars()}
