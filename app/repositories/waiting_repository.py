"""SQL that reads what waits for a worker: what may start soonest, and what backlogs hide of it.

The soonest come by their index, however many wait behind them. Looking behind a backlog means
reading all that waits, which takes time in proportion: that is for now and then.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection
from app.domain.clock import from_us, to_us
from app.domain.execution import WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.domain.policies import job_slots
from app.models.tables import executions, job_revisions
from app.repositories.batch import IDS, LongAnswer, parameters
from app.repositories.definition_codec import UnreadableDefinitionError, load_policy
from app.repositories.ledger_conditions import OF_ITS_REVISION, WAITING
from app.repositories.unreadable_repository import UnreadableRun


def _columns(waiting: Any) -> tuple[Any, ...]:
    """Name what ``_add`` reads, of a table or subquery of executions and their revisions."""
    return (
        waiting.c.id,
        waiting.c.job_id,
        waiting.c.exclusive,
        job_revisions.c.host,
        waiting.c.next_attempt_us,
        job_revisions.c.policy,
    )


_MAY_START = sa.and_(WAITING, executions.c.next_attempt_us <= sa.bindparam("until_us"))
_SOONEST = LongAnswer(
    sa.select(*_columns(executions))
    .join_from(executions, job_revisions, OF_ITS_REVISION)
    .where(_MAY_START)
    .limit(sa.bindparam("row_limit")),
    order="next_attempt_us",
)
_ranked = (
    sa.select(
        executions.c.id,
        executions.c.job_id,
        executions.c.job_revision,
        executions.c.exclusive,
        executions.c.next_attempt_us,
        sa.func.row_number()
        .over(
            partition_by=executions.c.job_id,
            order_by=(executions.c.next_attempt_us, executions.c.seq),
        )
        .label("place"),
    )
    .where(_MAY_START)
    .subquery("ranked")
)
_OF_EACH_JOB = LongAnswer(
    sa.select(*_columns(_ranked))
    .join_from(
        _ranked,
        job_revisions,
        sa.and_(
            job_revisions.c.job_id == _ranked.c.job_id,
            job_revisions.c.revision == _ranked.c.job_revision,
        ),
    )
    .where(_ranked.c.place <= sa.bindparam("per_job"))
    .where(sa.not_(IDS.holds(job_revisions.c.host, "id")))
    .limit(sa.bindparam("row_limit")),
    order="next_attempt_us",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingLimits:
    """How far ahead and how much of what waits is read."""

    until: datetime
    rows: int
    # Of each job so many runs at most.
    per_job: int
    # So many rows to one host are a crowd, which may hide others.
    crowd: int


@dataclass(slots=True)
class Waiting:
    """What one reading found, soonest first."""

    # Without those that its caller holds as they are, and without more of a job than the limit.
    runs: list[WaitingRun] = field(default_factory=list)
    unreadable: list[UnreadableRun] = field(default_factory=list)
    # Held by its caller, and do not wait any more, or not for the same time: then in runs too.
    gone: set[ExecutionId] = field(default_factory=set)
    # All rows that were read: how many in all, of each job and of each host.
    rows: int = 0
    by_job: Counter[JobId] = field(default_factory=Counter)
    by_host: Counter[str] = field(default_factory=Counter)

    def crowds(self, limits: WaitingLimits) -> set[str]:
        """Tell the hosts that take a good part of the answer."""
        return {host for host, count in self.by_host.items() if count >= limits.crowd}

    @property
    def most_of_a_job(self) -> int:
        """Tell of how many rows the job is of which most were read."""
        return max(self.by_job.values(), default=0)


def soonest_runs(
    connection: ReadConnection,
    *,
    limits: WaitingLimits,
    held: Mapping[ExecutionId, WaitingRun] | None = None,
) -> Waiting:
    """Read what waits and may start soonest; compare it with what is ``held``.

    A backlog of one job or to one host may fill the answer and hide others.
    """
    held = {} if held is None else held
    waiting, seen = Waiting(), set[ExecutionId]()
    last_us = 0
    values = parameters([], until_us=to_us(limits.until), row_limit=limits.rows)
    for rows in _SOONEST.fetch(connection, values):
        for row in rows:
            _add(waiting, row, limits, known=held)
        seen.update(row[0] for row in rows)
        last_us = rows[-1][4]
    waiting.gone |= _gone(
        waiting, limits, last_us, [run for run in held.values() if run.id not in seen]
    )
    return waiting


def runs_of_each_job(
    connection: ReadConnection, *, limits: WaitingLimits, beside: Collection[str] = ()
) -> Waiting:
    """Read the soonest of each job that wait, none to the hosts in ``beside``: all is looked at."""
    waiting = Waiting()
    values = parameters(
        [(host,) for host in beside],
        until_us=to_us(limits.until),
        row_limit=limits.rows,
        per_job=limits.per_job,
    )
    for rows in _OF_EACH_JOB.fetch(connection, values):
        for row in rows:
            _add(waiting, row, limits, known={})
    return waiting


def _gone(
    waiting: Waiting, limits: WaitingLimits, last_us: int, unseen: Iterable[WaitingRun]
) -> set[ExecutionId]:
    """Tell which of those that are held and were not read do not wait any more.

    Behind a full answer they may. At its very end nobody knows: there a crowd's runs count as gone,
    because what was read of it takes their place.
    """
    if waiting.rows < limits.rows:
        return {run.id for run in unseen}
    end, crowds = from_us(last_us), waiting.crowds(limits)
    return {
        run.id
        for run in unseen
        if run.next_attempt_at < end or (run.next_attempt_at == end and run.host in crowds)
    }


def _add(
    waiting: Waiting,
    row: Sequence[Any],
    limits: WaitingLimits,
    *,
    known: Mapping[ExecutionId, WaitingRun],
) -> None:
    execution_id, job_id, exclusive, host, next_attempt_us, policy = row
    waiting.rows += 1
    waiting.by_host[host] += 1
    waiting.by_job[job_id] += 1
    held = known.get(execution_id)
    if held is not None:
        if to_us(held.next_attempt_at) == next_attempt_us:
            return
        waiting.gone.add(execution_id)
    if waiting.by_job[job_id] > limits.per_job:
        return
    try:
        slots = job_slots(load_policy(policy))
    except UnreadableDefinitionError as error:
        waiting.unreadable.append(UnreadableRun(execution_id=execution_id, problem=str(error)))
        return
    waiting.runs.append(
        WaitingRun(
            id=execution_id,
            job_id=job_id,
            host=host,
            next_attempt_at=from_us(next_attempt_us),
            # A row written while its job allowed one at a time keeps to that.
            job_slots=1 if exclusive else slots,
        )
    )
