"""A large history, written past the service: jobs that never come due, and what they did.

Nine rows in ten belong to a thousand jobs, the rest to one; 94 in 100 completed.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.domain.execution import Cause
from tests.support.births import any_birth_in_file

BUSY_JOB = "busy"
HISTORY_JOBS = 1_000
# A cause that only the oldest rows have.
RARE_CAUSE = Cause.BACKFILL
_RARE_ROWS = 5
_EXCERPT = "x" * 100
_AT_ONCE = 20_000
_JOB = """INSERT INTO jobs SELECT ?, revision, ?, state_reason, name, schedule, policy, delivery,
    host, anchor_us, clock_epoch, cursor_us, ?, 0, created_us, updated_us, NULL
    FROM jobs WHERE id = 'template'"""
_ROW = """INSERT INTO executions (id, job_id, job_revision, clock_epoch, cause, scheduled_us,
    instant_count, status, reason, exclusive, attempts, retries, queued_us, started_us,
    attempt_started_us, finished_us, outcome, http_status, response_bytes, error, response_excerpt,
    sent_by)
    VALUES (?, ?, 1, 0, ?, ?, 1, ?, ?, 1, ?, 0, ?, ?, ?, ?, ?, ?, 100, ?, ?, 'server-1:4711')"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many rows, how many idle jobs beside those of the history, and over which time."""

    rows: int
    jobs: int
    span: timedelta = timedelta(days=60)


def prepare(path: Path) -> None:
    """Make the database's tables."""
    asyncio.run(migrate(DatabaseOptions(url=f"sqlite:///{path}")))


def fill(path: Path, size: Size, *, now_us: int, advanced: Callable[[int], None]) -> None:
    """Add jobs and history to a database that holds the job ``template``."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.executemany(_JOB, _jobs(size, now_us))
        for start in range(0, size.rows, _AT_ONCE):
            part = min(_AT_ONCE, size.rows - start)
            with any_birth_in_file(database):
                database.executemany(_ROW, _rows(size, start, part, now_us))
            database.commit()
            advanced(part)


def _jobs(size: Size, now_us: int) -> Iterator[tuple[Any, ...]]:
    far_us = now_us + 10**15
    yield BUSY_JOB, "active", far_us
    for number in range(HISTORY_JOBS):
        yield f"job-{number}", "active", far_us + number
    for number in range(size.jobs):
        if number % 2:
            yield f"idle-{number}", "finished", None
        else:
            yield f"idle-{number}", "active", far_us + number


def _rows(size: Size, start: int, count: int, now_us: int) -> Iterator[tuple[Any, ...]]:
    step_us = size.span // timedelta(microseconds=1) // size.rows
    for number in range(start, start + count):
        at = now_us - (size.rows - number) * step_us
        job = BUSY_JOB if number % 10 == 0 else f"job-{number % HISTORY_JOBS}"
        cause = RARE_CAUSE if number < _RARE_ROWS else "schedule"
        status, reason, http_status, error = _end(number)
        began = at + 5_000 if http_status else None
        yield (
            f"exe_{number * 2_654_435_761 % 2**32:032x}", job, cause, at, status, reason,
            int(began is not None), at, began, began, at + 50_000,
            "response" if http_status else None, http_status, error, _EXCERPT,
        )  # fmt: skip


def _end(number: int) -> tuple[str, str | None, int | None, str | None]:
    match number * 7_919 % 100:
        case 0 | 1 | 2 | 3:
            return "failed", "status", 503, "The target answered 503"
        case 4:
            return "skipped", "overlap", None, None
        case 5:
            return "missed", "scheduler_down", None, None
        case _:
            return "completed", None, 200, None
