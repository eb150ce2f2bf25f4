"""The statement by which k8s/replicas-keda scales the workers, on a real PostgreSQL."""

import json
import re

from app.domain.clock import SystemClock, to_us
from tests.support.plain_sql import PlainSql, open_sql
from tests.support.queue_depth import read_statement

_HOUR_US = 3_600_000_000
# So many ended, due and waiting for the first time, due again, due in an hour, and running.
_ENDED, _QUEUED, _RETRYING, _LATER, _RUNNING = 5000, 7, 5, 300, 11
_ALL = _ENDED + _QUEUED + _RETRYING + _LATER + _RUNNING
_JOB = """
    INSERT INTO jobs (id, revision, state, name, schedule, policy, delivery, host, anchor_us,
                      clock_epoch, cursor_us, execution_count, created_us, updated_us)
    VALUES ('job', 1, 'active', 'job', '{}', '{}', '{}', 'h:80', 0, 0, 0, 0, 0, 0)
"""
_QUEUE = """
    INSERT INTO executions (id, job_id, job_revision, clock_epoch, cause, scheduled_us,
        instant_count, status, exclusive, attempts, retries, queued_us, next_attempt_us)
    SELECT 'exe-' || n, 'job', 1, 0, 'manual', n, 1, 'queued', 0, 0, 0, n, ?
    FROM generate_series(1, ?) AS n
"""
# The first of those that are queued run; the first of those that run end, or are tried again.
_RUN = """
    UPDATE executions SET status = 'running', attempts = 1, attempt_started_us = 1, owner = 'me',
        fence = 1, lease_until_us = 1, next_attempt_us = NULL
    WHERE id IN (SELECT id FROM executions WHERE status = 'queued' ORDER BY seq LIMIT ?)
"""
_END = """
    UPDATE executions SET status = 'completed', finished_us = 1, http_status = 200, owner = NULL,
        fence = NULL, lease_until_us = NULL
    WHERE id IN (SELECT id FROM executions WHERE status = 'running' ORDER BY seq LIMIT ?)
"""
_RETRY = """
    UPDATE executions SET status = 'retrying', next_attempt_us = ?, owner = NULL, fence = NULL,
        lease_until_us = NULL
    WHERE id IN (SELECT id FROM executions WHERE status = 'running' ORDER BY seq LIMIT ?)
"""
# Those that hold open executions only.
_INDEXES = {"executions_ready", "executions_lease", "executions_open"}


def test_what_is_due_and_what_runs_is_counted(url: str):
    """Of all executions those count that are due and wait, or run; no table is read whole."""
    with open_sql(url) as sql:
        _fill(sql)
        assert sql.rows(read_statement()) == [(_QUEUED + _RETRYING + _RUNNING,)]

        ((plan,),) = sql.rows(f"EXPLAIN (FORMAT JSON) {read_statement()}")
        told = json.dumps(json.loads(plan))
        used = set(re.findall(r'"Index Name": "(\w+)"', told))
        assert "executions_ready" in used
        assert used <= _INDEXES
        assert "Seq Scan" not in told


def test_an_empty_database_has_no_depth(url: str):
    """Without executions the answer is a number, too."""
    with open_sql(url) as sql:
        assert sql.rows(read_statement()) == [(0,)]


def _fill(sql: PlainSql) -> None:
    now = to_us(SystemClock().now())
    due, later = now - _HOUR_US, now + _HOUR_US
    sql.rows(_JOB)
    sql.rows(_QUEUE, due, _ALL)
    sql.rows(_RUN, _ALL - _QUEUED)
    sql.rows(_END, _ENDED)
    sql.rows(_RETRY, due, _RETRYING)
    sql.rows(_RETRY, later, _LATER)
    found = sql.rows("SELECT status, count(*) FROM executions GROUP BY status")
    assert dict(found) == {
        "completed": _ENDED,
        "queued": _QUEUED,
        "retrying": _RETRYING + _LATER,
        "running": _RUNNING,
    }
    sql.rows("ANALYZE executions")
