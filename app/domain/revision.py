"""A job's past: its revisions, and what its ledger rows say beside what history shows."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.execution import Execution
from app.domain.ids import JobId
from app.domain.job import Change, JobState
from app.domain.policies import RunPolicy
from app.domain.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A job as it was from one change to the next.

    It answers for the due instants after ``since``, up to and including ``until`` (None: it is the
    present one). ``schedule`` and ``policy`` are None where the stored text cannot be read.
    ``actor`` names who asked for the change; None: nobody did.
    """

    number: int
    change: Change
    changed_at: datetime
    actor: str | None
    state: JobState
    schedule: Schedule | None
    policy: RunPolicy | None
    anchor: datetime
    clock_epoch: int
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a job stands now, deleted ones included.

    ``cursor``: every due instant up to there has its row, beyond it none has. ``pruned_until``: up
    to there rows may have been removed (None: none were).
    """

    id: JobId
    revision: int
    state: JobState
    state_reason: str | None
    cursor: datetime
    pruned_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """A row of the ledger with what only an explanation asks for.

    ``born_at`` is when the row was written: when the instant was found. ``retries`` counts those
    spent.
    """

    execution: Execution
    clock_epoch: int
    born_at: datetime
    retries: int
