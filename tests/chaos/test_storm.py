"""Killed again and again at random moments, under load and while jobs are being changed.

The whole storm (at least 100 kills over 20,000 runs; some five minutes) is a sweep::

    pytest -m sweep -s --timeout=1800 tests/chaos/test_storm.py

``make test`` has a slice of it.
"""

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import pytest

from app.domain.clock import to_us
from tests.chaos.arrivals import (
    Row,
    duplicates,
    find_contradictions,
    find_gaps,
    read_rows,
    whole,
)
from tests.chaos.storm import Client, Storm, Target, steady_job
from tests.e2e.world import CLOCK, instant
from tests.support.homes import Home
from tests.support.nursery import CrashingService, Nursery
from tests.support.raw_server import RawServer
from tests.support.service import eventually

SECOND_US = 1_000_000
OPEN = ("queued", "running", "retrying")
# On PostgreSQL an attempt is lost when its lease is over, which a short timeout shortens.
SOON_LOST = {"timeout_sec": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How hard it blows: kills, runs that arrived, jobs that run every second."""

    kills: int
    runs: int
    jobs: int
    seed: int = 1


SLICE = pytest.param(Size(kills=5, runs=300, jobs=60), marks=pytest.mark.slow, id="slice")
WHOLE = pytest.param(Size(kills=100, runs=20_000, jobs=150), marks=pytest.mark.sweep, id="whole")


@pytest.mark.parametrize("size", [SLICE, WHOLE])
async def test_a_storm_of_kills_loses_and_invents_nothing(home: Home, size: Size):
    """Every due instant has a row, every row an end, every arrival a row; what was said holds."""
    chance = random.Random(size.seed)
    with Nursery() as nursery:
        async with (
            RawServer((Target(size.seed),)) as target,
            CrashingService(
                nursery,
                home,
                MYSCHEDULER_LATE_STARTS_PER_SECOND="0",
                MYSCHEDULER_HOST_CONCURRENCY="100",
                MYSCHEDULER_HISTORY_PER_JOB="1000000",
            ) as service,
        ):
            await service.start()
            first = await _create_steady(service, target, size)
            client = Client(http=service.client, target=target, chance=chance, fields=SOON_LOST)
            storm = Storm(service=service, chance=chance)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(client.run(stop))
                await storm.blow(
                    kills=size.kills,
                    enough=lambda: len(target.requests) >= size.runs and bool(client.triggered),
                )
                stop.set()
            await client.check()
            present = await _calm_down(service, [*first, *client.jobs])
            rows = read_rows(service.home)
            _print_figures(storm, client, rows, target)
            _judge(rows, target, client, first)
            assert find_gaps(rows, first, period_us=SECOND_US, until_us=to_us(present)) == []
            await _judge_by_proof(service)


async def _create_steady(service: CrashingService, target: RawServer, size: Size) -> dict[str, int]:
    """Create the jobs that nobody changes; tell when each begins."""
    first = {}
    for number in range(size.jobs):
        job = {**steady_job(number, target), **SOON_LOST}
        answer = await service.client.post("/api/v1/jobs", json=job)
        assert answer.status_code == 200, answer.text
        first[job["job_id"]] = to_us(instant(answer.json()["next_run_time"]))
    return first


async def _calm_down(service: CrashingService, job_ids: list[str]) -> datetime:
    """Wait until every job has come to the present, let none go on, and all runs end.

    Returns the moment up to which every due instant must have its row.
    """
    present = CLOCK.now()

    async def came_to_the_present() -> bool:
        proof = (await service.client.get("/api/v1/ledger/verify")).json()
        since = proof["overdue_since"]
        return since is None or instant(since) > present

    await eventually(came_to_the_present, seconds=120, every=0.5)
    for job_id in job_ids:
        answer = await service.client.post(f"/api/v1/jobs/{job_id}/pause")
        assert answer.status_code == 200, answer.text

    def all_ended() -> bool:
        return all(row.status not in OPEN for row in read_rows(service.home))

    await eventually(all_ended, seconds=120, every=0.5)
    return present


def _judge(rows: list[Row], target: RawServer, client: Client, first: dict[str, int]) -> None:
    """Hold the table against the arrivals and the client's memory."""
    sent = whole(target.requests)
    assert find_contradictions(rows, sent) == []

    at_most_once = [row for row in rows if row.job_id in _at_most_once(first)]
    assert max(row.attempts for row in at_most_once) == 1

    manual = {row.id: row.job_id for row in rows if row.cause == "manual"}
    assert manual == client.triggered
    assert manual != {}


def _at_most_once(first: dict[str, int]) -> list[str]:
    return [job_id for job_id in first if int(job_id.partition("-")[2]) % 5 == 4]


async def _judge_by_proof(service: CrashingService) -> None:
    """Let the service prove its ledger."""
    proof = (await service.client.get("/api/v1/ledger/verify")).json()
    assert proof["proven"], proof


def _print_figures(storm: Storm, client: Client, rows: list[Row], target: RawServer) -> None:
    sent = whole(target.requests)
    outcomes = Counter(outcome for row in rows for outcome, _ in row.outcomes)
    figures = {
        "kills": storm.kills,
        "rows": len(rows),
        "instants": sum(row.instant_count for row in rows),
        "ends": dict(Counter(f"{row.status}/{row.reason or '-'}" for row in rows)),
        "attempts": dict(outcomes),
        "arrivals": sum(sent.values()),
        "arrivals beyond the first of an execution": duplicates(sent),
        "requests answered": dict(client.answers),
        "requests unanswered": client.unanswered,
    }
    sys.stdout.writelines(f"\n{name}: {value}" for name, value in figures.items())
    sys.stdout.write("\n")
