"""APScheduler's executor, which runs nothing: it notes due instants in the open tick."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job as SchedulerJob

from app.engine.job_store import WindowJobStore


class Submitter(BaseExecutor):
    """Collects the due instants of a pass. Overlap is decided by the ledger, not here."""

    def __init__(self, store: WindowJobStore) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # APScheduler has no annotations
        self._store = store

    def submit_job(self, job: SchedulerJob, run_times: Sequence[datetime]) -> None:
        """Add a job's due instants to the open tick."""
        self._store.add_fire_times(job.id, run_times)

    def _do_submit_job(self, _job: SchedulerJob, _run_times: Sequence[datetime]) -> Any:
        raise TypeError("jobs are not run by the scheduler")
