"""A backlog far beyond what memory holds, behind targets that hang."""

from datetime import timedelta

import pytest

from app.domain.clock import to_us
from benchmarks.machine import Usage
from tests.e2e.world import CLOCK
from tests.support.homes import Home
from tests.support.raw_server import RawServer, hang
from tests.support.service import Service, eventually

JOBS, HOSTS, RUNS = 200, 50, 100_000
# Attempts that time out one after the other while the backlog is watched: each second 200 begin.
WATCHED_ATTEMPTS = 1000
# Measured: 24 to 32 MiB, and 57 where nothing bounds what is held in memory. GUARANTEES I12: 128.
GROWTH_MAX_MIB = 48
ANSWERED_SECONDS = 2.0

# Valid in both databases; due since five seconds, in order.
QUEUE_RUNS = f"""
    WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {RUNS})
    INSERT INTO executions (
        id, job_id, job_revision, clock_epoch, cause, scheduled_us, instant_count, status,
        exclusive, attempts, retries, next_attempt_us, queued_us
    )
    SELECT
        'exe_' || n, 'job-' || (n % {JOBS}), 1, 0, 'manual', CAST(? AS bigint) + n, 1, 'queued',
        0, 0, 0, CAST(? AS bigint) + n, CAST(? AS bigint)
    FROM numbers
"""  # noqa: S608 - numbers of this module


@pytest.mark.sweep
@pytest.mark.timeout(300)
async def test_a_hundred_thousand_waiting_runs_fit_into_memory(home: Home):
    """With 100,000 runs queued the process grows by less than 48 MiB, and the API answers."""
    async with RawServer((hang,), host="0.0.0.0") as target, Service(home) as service:
        for number in range(JOBS):
            await create_job(service, number, port=target.port)
        began_mib = Usage.of(service.pid).memory_mib
        assert await service.stop() == 0
        due = to_us(CLOCK.now() - timedelta(seconds=5))
        home.rows(QUEUE_RUNS, due, due, due)

        await service.start()
        seconds: list[float] = []

        async def have_timed_out() -> bool:
            begun = CLOCK.monotonic()
            assert (await service.client.get("/api/v1/jobs")).status_code == 200
            seconds.append(CLOCK.monotonic() - begun)
            return target.connection_count >= WATCHED_ATTEMPTS

        await eventually(have_timed_out, seconds=60, every=0.1)
        peak_mib = Usage.of(service.pid).peak_memory_mib
        ((waiting,),) = home.rows("SELECT count(*) FROM executions WHERE status = 'queued'")
        await service.kill()
    print(  # noqa: T201 - figures for whoever runs the sweep
        f"{began_mib:.0f} MiB with {JOBS} jobs, at most {peak_mib:.0f} MiB with {waiting:,} runs "
        f"waiting; {len(seconds)} answers, the slowest after {max(seconds) * 1000:.0f} ms"
    )
    assert waiting > RUNS * 0.9
    assert peak_mib - began_mib < GROWTH_MAX_MIB
    assert max(seconds) < ANSWERED_SECONDS


async def create_job(service: Service, number: int, *, port: int) -> None:
    """Store a job that never comes due, whose target is one of the hosts that hang."""
    job = {
        "job_id": f"job-{number}",
        "target_url": f"http://127.0.0.{number % HOSTS + 1}:{port}/",
        "schedule_type": "date",
        "run_at": "2099-01-01T00:00:00Z",
        "overlap_policy": "allow",
        "timeout_sec": 1,
    }
    assert (await service.client.post("/api/v1/jobs", json=job)).status_code == 200
