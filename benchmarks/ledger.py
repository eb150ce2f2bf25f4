"""The service's ledger as benchmarks read it: how far it is, and what each run came to."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.database import Database
from benchmarks.figures import Judgement, RunFigures, Spread, rate
from benchmarks.machine import Usage

_POLL_SECONDS = 0.25
# Without progress for so long, what is missing is taken for lost.
_PATIENCE_SECONDS = 60.0
_PROGRESS = """SELECT (SELECT count(*) FROM executions),
    (SELECT count(*) FROM executions WHERE status IN ('queued', 'running', 'retrying')),
    (SELECT min(next_run_us) FROM jobs WHERE next_run_us IS NOT NULL)"""
_RUNS = """SELECT id, job_id, status, instant_count, attempts, scheduled_us, queued_us,
    started_us, finished_us FROM executions WHERE job_id LIKE :jobs ORDER BY scheduled_us, id"""


class Run(NamedTuple):
    """One row of the ledger; instants are seconds of the wall clock."""

    id: str
    job_id: str
    status: str
    instant_count: int
    attempts: int
    due: float
    queued: float
    started: float | None
    finished: float | None


@dataclass(slots=True)
class Ledger:
    """Reads the ledger of a running service from outside."""

    database: Database

    async def wait_until_done(
        self, until: float, *, shown: Callable[[int], None] = lambda _done: None
    ) -> bool:
        """Wait until all that is due by an instant has its row and no row is open.

        Gives up and returns False when nothing has moved for a minute: what is missing then is
        lost. ``shown`` is told how many rows are over.
        """
        seen, moved_at = (-1, 0), time.perf_counter()
        while time.perf_counter() - moved_at < _PATIENCE_SECONDS:
            ((rows, open_rows, next_us),) = await self.database.rows(_PROGRESS)
            if (rows, open_rows) != seen:
                seen, moved_at = (rows, open_rows), time.perf_counter()
                shown(rows - open_rows)
            if not open_rows and (next_us is None or next_us > until * 1e6):
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def runs(self, jobs: str = "%") -> list[Run]:
        """Read the rows of the jobs whose id is LIKE ``jobs``, in the order they were due."""
        rows = await self.database.rows(_RUNS, jobs=jobs)
        return [Run(*row[:5], *(_seconds(us) for us in row[5:])) for row in rows]


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / 1e6


def lateness_ms(runs: Iterable[Run]) -> Spread:
    """Tell how late the runs that started did so, as the ledger has it."""
    return Spread.of((run.started - run.due) * 1000 for run in runs if run.started is not None)


def count_left_out(runs: Iterable[Run]) -> int:
    """Count the instants that have a row which says why they did not run."""
    return sum(run.instant_count for run in runs if run.status in {"skipped", "missed"})


def queued_ms(runs: Iterable[Run]) -> Spread:
    """Tell how long after their instants the runs that started had their rows."""
    return Spread.of((run.queued - run.due) * 1000 for run in runs if run.started is not None)


def run_figures(
    runs: list[Run], judged: Judgement, *, before: Usage, after: Usage, left_out: int = 0
) -> RunFigures:
    """Put together what a scenario's runs came to, with what the service used for them.

    ``left_out`` instants are accounted for as not run, so that they are not lost.
    """
    ended = [run.finished for run in runs if run.status == "completed" and run.finished]
    first = min((run.due for run in runs), default=0.0)
    cpu_seconds = after.cpu_seconds - before.cpu_seconds
    return RunFigures(
        runs=len(ended),
        per_second=rate(len(ended), max(ended, default=0.0) - first),
        at_target_ms=judged.lateness_ms,
        in_ledger_ms=lateness_ms(runs),
        lost=judged.lost - left_out,
        doubled=judged.doubled,
        cpu_ms_per_run=round(cpu_seconds / max(len(ended), 1) * 1000, 3),
        memory_mib=round(after.peak_memory_mib, 1),
    )
