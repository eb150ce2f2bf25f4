"""What one claim does in its transaction: the intent of a batch of attempts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.execution import ClaimedRun, WaitingRun
from app.repositories import (
    host_repository,
    job_repository,
    run_repository,
    unreadable_repository,
)
from app.repositories.host_repository import Admission, HostLimits
from app.repositories.job_repository import BrokenJob
from app.repositories.run_repository import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a claim came to; a run that was admitted and is not in ``runs`` is not to be had."""

    admission: Admission
    runs: list[ClaimedRun] = field(default_factory=list)
    broken: list[BrokenJob] = field(default_factory=list)


def claim_batch(
    connection: WriteConnection,
    batch: Sequence[WaitingRun],
    claim: Claim,
    *,
    under_way: Mapping[str, int],
    limits: HostLimits,
) -> Claimed:
    """Take those of a batch that the limits let start and that still wait; count their starts.

    ``under_way`` is how many attempts the claimer makes to each host beside these. Runs that cannot
    be read are ended.
    """
    admission = host_repository.admit(
        connection, batch, owner=claim.owner, under_way=under_way, limits=limits
    )
    if not admission.admitted:
        return Claimed(admission=admission)
    runs, unreadable = run_repository.claim_runs(connection, admission.admitted, claim)
    host_repository.note_starts(connection, [run.waiting.host for run in runs], limits)
    broken = unreadable_repository.end_unreadable(connection, unreadable, to_us(claim.now))
    starts = Counter(run.attempt.job_id for run in runs if run.attempt.number == 1)
    job_repository.count_starts(connection, starts)
    return Claimed(admission=admission, runs=runs, broken=broken)
