"""What is asked of the ledger's history, and what a page of it is."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.domain.execution import FINAL_STATUSES, Cause, Execution, ExecutionStatus, Reason
from app.domain.ids import JobId

OPEN_STATUSES = frozenset(ExecutionStatus) - FINAL_STATUSES
# An execution in any other status has no reason.
STATUSES_WITH_REASON = (FINAL_STATUSES - {ExecutionStatus.COMPLETED}) | {ExecutionStatus.RETRYING}

# Where a page ended: the numbers that its order goes by.
Position: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """Which executions are asked for; an empty set is no condition.

    ``since`` and ``until`` bound the due instant, the second one exclusively. Without a job, a
    range in time makes the history go by due instant instead of by birth.
    """

    job_id: JobId | None = None
    statuses: frozenset[ExecutionStatus] = frozenset()
    reasons: frozenset[Reason] = frozenset()
    causes: frozenset[Cause] = frozenset()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def has_range(self) -> bool:
        """Tell whether the due instant is bounded."""
        return self.since is not None or self.until is not None

    @property
    def goes_by_due(self) -> bool:
        """Tell whether pages are ordered by due instant and birth, and not by birth alone."""
        return self.job_id is None and self.has_range

    @property
    def possible(self) -> frozenset[ExecutionStatus]:
        """Tell which statuses can match; empty only if nothing can."""
        asked = self.statuses or frozenset(ExecutionStatus)
        return asked & STATUSES_WITH_REASON if self.reasons else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySlice:
    """Executions, newest first, and where to go on; ``next_position`` None: there are no more.

    A slice may hold fewer than asked, even none, and still go on: so many were examined.
    """

    executions: list[Execution]
    next_position: Position | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCount:
    """How many executions match: ``exact``, or ``at_least`` so many; one of them is None."""

    exact: int | None = None
    at_least: int | None = None
