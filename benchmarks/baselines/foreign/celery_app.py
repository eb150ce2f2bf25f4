"""Celery as a rival: beat or ETA tasks over Redis, a keep-alive client, a PostgreSQL row per run.

A module for the throw-away interpreter, which has Celery; nothing of ours imports it. Beat and the
worker are started with ``celery -A celery_app``; ``python celery_app.py`` reads
[{"name", "due_ms"}, …] from standard input and stores the jobs as tasks with an ETA. Settings come
from the environment: REDIS_SOCKET, DATABASE_URL, TARGET (a run's URL without its name), and
BEAT_ENTRIES, a file of the same form that makes each job an entry of beat's schedule.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import urllib3
from celery import Celery
from celery.schedules import BaseSchedule, schedstate
from celery.signals import worker_process_init

_INSERT = (
    "INSERT INTO runs (name, scheduled_ms, started_ms, finished_ms, status)"
    " VALUES (%s, %s, %s, %s, %s)"
)
_DAY_SECONDS = 86_400.0

app = Celery("celery_app", broker=f"redis+socket://{os.environ['REDIS_SOCKET']}")
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=8,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3600},
)


class OneInstant(BaseSchedule):
    """Due once, at one instant."""

    def __init__(self, due_ms: int, **options: Any) -> None:
        super().__init__(**options)
        self.due_ms = due_ms

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell whether it is due, and how many seconds are left."""
        left = self.due_ms / 1000 - time.time()
        if last_run_at.timestamp() * 1000 >= self.due_ms:
            return schedstate(is_due=False, next=_DAY_SECONDS)
        return schedstate(is_due=left <= 0, next=_DAY_SECONDS if left <= 0 else left)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneInstant) and other.due_ms == self.due_ms

    def __hash__(self) -> int:
        return hash(self.due_ms)

    def __reduce__(self) -> tuple[Any, ...]:
        return OneInstant, (self.due_ms,)


class _Connections:
    """The worker process's own: opened after the fork."""

    http: urllib3.PoolManager
    rows: psycopg.Connection


@worker_process_init.connect
def _open(**_: object) -> None:
    _Connections.http = urllib3.PoolManager()
    _Connections.rows = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@app.task(name="call")
def call(name: str, due_ms: int) -> None:
    """Make one call and keep its row."""
    started = int(time.time() * 1000)
    answer = _Connections.http.request(
        "POST",
        f"{os.environ['TARGET']}{name}",
        json={"name": name},
        headers={"webhook-id": name},
    )
    row = (name, due_ms, started, int(time.time() * 1000), answer.status)
    _Connections.rows.execute(_INSERT, row, prepare=True)


def _beat_schedule(path: str) -> dict[str, dict[str, Any]]:
    jobs = json.loads(Path(path).read_text(encoding="utf-8"))
    return {
        job["name"]: {
            "task": "call",
            "schedule": OneInstant(job["due_ms"]),
            "args": (job["name"], job["due_ms"]),
        }
        for job in jobs
    }


def main() -> None:
    """Store the jobs as tasks with an ETA; print how long that took."""
    jobs = json.load(sys.stdin)
    began = time.perf_counter()
    with app.producer_pool.acquire(block=True) as producer:
        for job in jobs:
            eta = datetime.fromtimestamp(job["due_ms"] / 1000, UTC)
            call.apply_async((job["name"], job["due_ms"]), eta=eta, producer=producer)
    print(json.dumps({"seconds": time.perf_counter() - began}))


if entries := os.environ.get("BEAT_ENTRIES"):
    app.conf.beat_schedule = _beat_schedule(entries)
if __name__ == "__main__":
    main()
