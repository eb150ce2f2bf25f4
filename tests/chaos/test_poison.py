"""Rows that someone or something damaged: the job is kept as broken, and nobody else notices."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from tests.chaos.arrivals import read_rows
from tests.chaos.judge import settled
from tests.e2e.world import CLOCK, Row, create, read_history
from tests.support.homes import Home
from tests.support.nursery import CrashingService, Nursery
from tests.support.raw_server import RawServer, reply
from tests.support.service import eventually

LISTS = ("/api/v1/jobs", "/api/v1/executions", "/api/v1/jobs/executions/recent", "/health/ready")
Damage = Callable[[str], str]


def change(**values: Any) -> Damage:
    """Change some values of a document."""
    return lambda text: json.dumps({**json.loads(text), **values})


# By job: the document that is damaged, and how. A delivery is read with each run only: the first
# one fails, and with it the job is broken.
DAMAGES: dict[str, tuple[str, Damage]] = {
    "schedule-empty": ("schedule", lambda _: ""),
    "schedule-cut": ("schedule", lambda text: text[:40]),
    "schedule-null": ("schedule", lambda _: "null"),
    "schedule-list": ("schedule", lambda _: "[]"),
    "kind-unknown": ("schedule", change(kind="sometimes")),
    "interval-0": ("schedule", change(period=0)),
    "interval-tiny": ("schedule", change(period=1)),
    "interval-negative": ("schedule", change(period=-5_000_000)),
    "interval-huge": ("schedule", change(period=10**18)),
    "interval-text": ("schedule", change(period="1000000")),
    "cron-nonsense": ("schedule", change(kind="cron", fields=[["minute", "61"]])),
    "crontab-nonsense": ("schedule", change(kind="crontab", expression="* * *")),
    "zone-unknown": ("schedule", change(timezone="Mars/Olympus")),
    "zone-number": ("schedule", change(timezone=5)),
    "policy-cut": ("policy", lambda text: text[:40]),
    "policy-empty": ("policy", lambda _: "{}"),
    "policy-unknown": ("policy", change(catch_up="some")),
    "policy-negative": ("policy", change(misfire_grace=-1)),
    "delivery-cut": ("delivery", lambda text: text[:40]),
    "delivery-null": ("delivery", lambda _: "null"),
    "delivery-kind": ("delivery", change(kind="pigeon")),
    "delivery-timeout": ("delivery", change(timeout=-1)),
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as starts:
        yield starts


async def every_second(service: CrashingService, target: RawServer, job_id: str) -> None:
    fields = {
        "schedule_type": "interval", "interval": {"seconds": 1}, "replace_existing": True,
        "timeout_sec": 5,
    }  # fmt: skip
    await create(service.client, job_id, target.url(f"/{job_id}"), **fields)


def damage(home: Home) -> None:
    """Damage each job's document, in its row and in that of its revision."""
    with home.open_sql() as sql:
        for job_id, (column, spoil) in DAMAGES.items():
            for table, key in (("jobs", "id"), ("job_revisions", "job_id")):
                read = f"SELECT {column} FROM {table} WHERE {key} = ?"  # noqa: S608 - names of ours
                write = f"UPDATE {table} SET {column} = ? WHERE {key} = ?"  # noqa: S608 - as above
                ((text,),) = sql.rows(read, job_id)
                assert spoil(text) != text
                sql.rows(write, spoil(text), job_id)


def stored_states(home: Home) -> dict[str, str]:
    return dict(home.rows("SELECT id, state FROM jobs"))


@pytest.mark.slow
async def test_unreadable_jobs_are_kept_as_broken(home: Home, nursery: Nursery):
    """Each says what is wrong with it, the others run, lists answer, and an edit heals it."""
    async with (
        RawServer((reply(),)) as target,
        CrashingService(nursery, home) as service,
    ):
        await service.start()
        for job_id in (*DAMAGES, "healthy"):
            await every_second(service, target, job_id)
        await service.kill()
        before = {row.id for row in read_rows(service.home)}
        damage(service.home)
        await service.start()

        await settled(service, "healthy", until=CLOCK.now())

        def kept() -> bool:
            states = stored_states(service.home)
            return {job_id for job_id in states if states[job_id] == "broken"} == {*DAMAGES}

        await eventually(kept)
        for job_id in DAMAGES:
            await _check_broken(service, job_id, before)
        for path in LISTS:
            assert (await service.client.get(path)).status_code == 200, path
        await _check_log(service)

        healed = CLOCK.now()
        for job_id in DAMAGES:
            await every_second(service, target, job_id)
        for job_id in DAMAGES:
            await _runs_again(service, job_id)
        await settled(service, "healthy", until=healed)
        assert {*stored_states(service.home).values()} == {"active"}


async def _check_broken(service: CrashingService, job_id: str, before: set[str]) -> None:
    answer = await service.client.get(f"/api/v1/jobs/{job_id}")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["status"], job["job_id"]) == ("broken", job_id)
    assert job["state_reason"]
    rows = await read_history(service.client, job_id)
    after = [row for row in rows if row["execution_id"] not in before]
    assert {(row["status"], row["reason"]) for row in after} <= {("failed", "broken")}


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
    "deep": f"UPDATE jobs SET schedule = '{'[' * 100_000}' WHERE id = 'bad'",  # noqa: S608 - brackets
    "revision": "DELETE FROM job_revisions WHERE job_id = 'bad'",
    "attempt": "UPDATE executions SET scheduled_us = 9000000000000000000,"
    " started_us = 9000000000000000000 WHERE status IN ('queued', 'retrying')",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=list(STATEMENTS))
async def test_impossible_values_are_refused_or_kept(home: Home, nursery: Nursery, statement: str):
    """The database refuses the value; or the service starts, lists answer, other jobs run."""
    async with (
        RawServer((reply(status="503 Service Unavailable"),)) as target,
        CrashingService(nursery, home) as service,
    ):
        await service.start()
        slow = {"max_retries": 1, "retry_backoff_sec": 3600, "schedule_type": "interval"}
        await create(service.client, "bad", target.url("/bad"), interval={"seconds": 1}, **slow)
        await every_second(service, target, "good")
        # A run that waits for its retry is what one of the statements spoils.
        await eventually(lambda: any(r.status == "retrying" for r in read_rows(service.home)))
        await service.kill()
        if _is_refused(service.home, statement):
            return
        await service.start()
        for path in (*LISTS, "/api/v1/jobs/bad", "/api/v1/jobs/bad/executions"):
            assert (await service.client.get(path)).status_code == 200, path
        sent = len(target.requests)
        await eventually(
            lambda: any(b"/good" in r.line for r in target.requests[sent:]), seconds=15
        )
        await _is_settled_or_broken(service)


def _is_refused(home: Home, statement: str) -> bool:
    try:
        assert home.rows(f"{statement} RETURNING 1")
    except (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError):
        return True
    return False


async def _is_settled_or_broken(service: CrashingService) -> None:
    """Wait until what cannot be used is told: the job is broken, or its runs ended."""

    def told() -> bool:
        waiting = [
            row for row in read_rows(service.home)
            if row.job_id == "bad" and row.status in ("queued", "running", "retrying")
        ]  # fmt: skip
        return stored_states(service.home)["bad"] == "broken" or not waiting

    await eventually(told, seconds=15)
