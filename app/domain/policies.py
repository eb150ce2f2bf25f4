"""The choices a job makes about lateness, overlap, crashes and retries."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class CatchUp(StrEnum):
    """Which of the instants found later than the grace still run."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class OverlapPolicy(StrEnum):
    """What a due instant does while ``max_instances`` executions of its job still run."""

    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    QUEUE_ALL = "queue_all"
    CANCEL_RUNNING = "cancel_running"
    ALLOW = "allow"


class OnCrash(StrEnum):
    """What happens to an execution whose attempt was lost with its process."""

    RETRY = "retry"  # the next attempt, under the same id: at least once
    FAIL = "fail"  # it ends as unknown: at most once


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy:
    """How due instants of one job become executions.

    ``misfire_grace`` None means any lateness is fine. ``catch_up_window`` None means unbounded.
    """

    misfire_grace: timedelta | None
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_window: timedelta | None = None
    catch_up_max_runs: int = 100
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    max_instances: int = 1
    on_crash: OnCrash = OnCrash.RETRY


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how far apart an execution is tried again.

    The wait before retry ``n`` is ``first_wait * 2**(n-1)``, at most ``wait_max``, plus up to a
    fifth of jitter; never shorter than asked.
    ``retry_statuses`` adds 4xx statuses that are retried even without ``Retry-After``.
    """

    max_retries: int = 0
    first_wait: timedelta = timedelta(seconds=1)
    wait_max: timedelta = timedelta(hours=1)
    retry_statuses: frozenset[int] = frozenset()


def job_slots(policy: RunPolicy) -> int | None:
    """Tell how many executions of a job may run at once (None: any number)."""
    return None if policy.overlap is OverlapPolicy.ALLOW else policy.max_instances
