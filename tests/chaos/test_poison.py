"""Rows that someone or something damaged: the job is kept as broken, and nobody else notices."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.arrivals import read_rows
from tests.chaos.judge import settled
from tests.e2e.world import CLOCK, Row, create, read_history
from tests.support.nursery import CrashingService, Nursery
from tests.support.raw_server import RawServer, reply
from tests.support.service import eventually

LISTS = ("/api/v1/jobs", "/api/v1/executions", "/api/v1/jobs/executions/recent", "/health/ready")
Damage = Callable[[str], str]


def change(**values: Any) -> Damage:
    """Change some values of a document."""
    return lambda text: json.dumps({**json.loads(text), **values})


# By job: the document that is damaged, how, and whether the job's state says so in the database.
# A delivery is read with each run only; its runs are recorded as failed.
DAMAGES: dict[str, tuple[str, Damage, bool]] = {
    "schedule-empty": ("schedule", lambda _: "", True),
    "schedule-cut": ("schedule", lambda text: text[:40], True),
    "schedule-null": ("schedule", lambda _: "null", True),
    "schedule-list": ("schedule", lambda _: "[]", True),
    "kind-unknown": ("schedule", change(kind="sometimes"), True),
    "interval-0": ("schedule", change(period=0), True),
    "interval-tiny": ("schedule", change(period=1), True),
    "interval-negative": ("schedule", change(period=-5_000_000), True),
    "interval-huge": ("schedule", change(period=10**18), True),
    "interval-text": ("schedule", change(period="1000000"), True),
    "cron-nonsense": ("schedule", change(kind="cron", fields=[["minute", "61"]]), True),
    "crontab-nonsense": ("schedule", change(kind="crontab", expression="* * *"), True),
    "zone-unknown": ("schedule", change(timezone="Mars/Olympus"), True),
    "zone-number": ("schedule", change(timezone=5), True),
    "policy-cut": ("policy", lambda text: text[:40], True),
    "policy-empty": ("policy", lambda _: "{}", True),
    "policy-unknown": ("policy", change(catch_up="some"), True),
    "policy-negative": ("policy", change(misfire_grace=-1), True),
    "delivery-cut": ("delivery", lambda text: text[:40], False),
    "delivery-null": ("delivery", lambda _: "null", False),
    "delivery-kind": ("delivery", change(kind="pigeon"), False),
    "delivery-timeout": ("delivery", change(timeout=-1), False),
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as starts:
        yield starts


async def every_second(service: CrashingService, target: RawServer, job_id: str) -> None:
    fields = {"schedule_type": "interval", "interval": {"seconds": 1}, "replace_existing": True}
    await create(service.client, job_id, target.url(f"/{job_id}"), **fields)


def damage(database: Path) -> None:
    """Damage each job's document, in its row and in that of its revision."""
    connection = sqlite3.connect(database)
    with connection:
        for job_id, (column, spoil, _) in DAMAGES.items():
            for table, key in (("jobs", "id"), ("job_revisions", "job_id")):
                read = f"SELECT {column} FROM {table} WHERE {key} = ?"  # noqa: S608 - names of ours
                write = f"UPDATE {table} SET {column} = ? WHERE {key} = ?"  # noqa: S608 - as above
                (text,) = connection.execute(read, [job_id]).fetchone()
                assert spoil(text) != text
                connection.execute(write, [spoil(text), job_id])
    connection.close()


def stored_states(database: Path) -> dict[str, str]:
    connection = sqlite3.connect(database)
    states = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
    connection.close()
    return states


@pytest.mark.slow
async def test_unreadable_jobs_are_kept_as_broken(tmp_path: Path, nursery: Nursery):
    """Each says what is wrong with it, the others run, lists answer, and an edit heals it."""
    async with (
        RawServer((reply(),)) as target,
        CrashingService(nursery, tmp_path) as service,
    ):
        await service.start()
        for job_id in (*DAMAGES, "healthy"):
            await every_second(service, target, job_id)
        await service.kill()
        damage(service.database)
        await service.start()

        await settled(service, "healthy", until=CLOCK.now())
        wanted = {job_id for job_id, (_, _, is_stored) in DAMAGES.items() if is_stored}

        def kept() -> bool:
            states = stored_states(service.database)
            return {job_id for job_id in states if states[job_id] == "broken"} == wanted

        await eventually(kept)
        for job_id in DAMAGES:
            await _check_broken(service, job_id)
        for path in LISTS:
            assert (await service.client.get(path)).status_code == 200, path
        await _check_log(service)

        healed = CLOCK.now()
        for job_id in DAMAGES:
            await every_second(service, target, job_id)
        for job_id in DAMAGES:
            await _runs_again(service, job_id)
        await settled(service, "healthy", until=healed)
        assert {*stored_states(service.database).values()} == {"active"}


async def _check_broken(service: CrashingService, job_id: str) -> None:
    answer = await service.client.get(f"/api/v1/jobs/{job_id}")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["status"], job["job_id"]) == ("broken", job_id)
    assert job["state_reason"]
    rows = await read_history(service.client, job_id)
    assert {(row["status"], row["reason"]) for row in rows} <= {("failed", "broken")}


async def _check_log(service: CrashingService) -> None:
    """What broke is told once, with its reason, and no loop stumbled over it."""
    lines = service.log_lines()
    told = [line["job_id"] for line in lines if line["event"] == "job.broken"]
    assert len(told) == len(set(told))
    assert [line for line in lines if line["event"] == "loop.failed"] == []


async def _runs_again(service: CrashingService, job_id: str) -> None:
    async def completed() -> bool:
        rows: list[Row] = await read_history(service.client, job_id)
        return any(row["status"] == "completed" for row in rows)

    await eventually(completed)


# A number that no calendar knows, a document that no parser bears, a revision that is gone.
STATEMENTS = {
    "next-run": "UPDATE jobs SET next_run_us = 9000000000000000000 WHERE id = 'bad'",
    "anchor": "UPDATE jobs SET anchor_us = 9000000000000000000 WHERE id = 'bad'",
    "created": "UPDATE jobs SET created_us = 9000000000000000000 WHERE id = 'bad'",
    "updated": "UPDATE jobs SET updated_us = -9000000000000000000 WHERE id = 'bad'",
    "deep": "UPDATE jobs SET schedule = replace(hex(zeroblob(50000)), '0', '[') WHERE id = 'bad'",
    "revision": "DELETE FROM job_revisions WHERE job_id = 'bad'",
    "attempt": "UPDATE executions SET scheduled_us = 9000000000000000000,"
    " started_us = 9000000000000000000 WHERE status IN ('queued', 'retrying')",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=list(STATEMENTS))
async def test_impossible_values_are_refused_or_kept(
    tmp_path: Path, nursery: Nursery, statement: str
):
    """The database refuses the value; or the service starts, lists answer, other jobs run."""
    async with (
        RawServer((reply(status="503 Service Unavailable"),)) as target,
        CrashingService(nursery, tmp_path) as service,
    ):
        await service.start()
        slow = {"max_retries": 1, "retry_backoff_sec": 3600, "schedule_type": "interval"}
        await create(service.client, "bad", target.url("/bad"), interval={"seconds": 1}, **slow)
        await every_second(service, target, "good")
        # A run that waits for its retry is what one of the statements spoils.
        await eventually(lambda: any(r.status == "retrying" for r in read_rows(service.database)))
        await service.kill()
        if _is_refused(service.database, statement):
            return
        await service.start()
        for path in (*LISTS, "/api/v1/jobs/bad", "/api/v1/jobs/bad/executions"):
            assert (await service.client.get(path)).status_code == 200, path
        sent = len(target.requests)
        await eventually(lambda: any(b"/good" in r.line for r in target.requests[sent:]), seconds=5)
        await _is_settled_or_broken(service)


def _is_refused(database: Path, statement: str) -> bool:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        with connection:
            assert connection.execute(statement).rowcount > 0
    except sqlite3.IntegrityError:
        return True
    finally:
        connection.close()
    return False


async def _is_settled_or_broken(service: CrashingService) -> None:
    """Wait until what cannot be used is told: the job is broken, or its runs ended."""

    def told() -> bool:
        waiting = [
            row for row in read_rows(service.database)
            if row.job_id == "bad" and row.status in ("queued", "running", "retrying")
        ]  # fmt: skip
        return stored_states(service.database)["bad"] == "broken" or not waiting

    await eventually(told, seconds=5)
