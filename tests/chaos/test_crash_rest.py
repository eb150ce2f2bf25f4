"""The rest of the crash matrix: births that are ends, a cancellation, what recovers, a migration.

As in ``test_crash_matrix.py``, each death is a real ``kill -9`` at a named point.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import CodeType

import httpx
import pytest

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from app.domain.clock import to_us
from tests.chaos.arrivals import Row, find_contradictions, read_rows, whole
from tests.conformance.test_migrations import all_objects, downgrade
from tests.e2e.world import CLOCK, instant
from tests.support import failpoint
from tests.support.databases import run_on
from tests.support.failpoint import AFTER, BEFORE
from tests.support.homes import Home
from tests.support.nursery import KILLED, CrashingService, Nursery
from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import ROOT, eventually

OK = reply("ok")
UNWELL = reply(status="503 Service Unavailable")
# Within this time a run is triggered; what may not be late is late soon after its time.
DUE_AFTER = timedelta(seconds=0.5)
GRACE = 0.05
# How far the clock is set back: before an hourly job comes due.
STEP = timedelta(minutes=50)
OPEN = ("queued", "running", "retrying")
MOMENTS = pytest.mark.parametrize("moment", [BEFORE, AFTER])


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as starts:
        yield starts


@MOMENTS
async def test_a_death_at_the_birth_of_a_skipped_instant(home: Home, nursery: Nursery, moment: str):
    """An instant that finds its job running gets its one row whole, or gets it later."""
    async with RawServer((hang, OK)) as target, CrashingService(nursery, home) as service:
        await service.start(f"pass.{moment}")
        await _create(service, target, schedule_type="date", run_at=_in(DUE_AFTER))
        await _trigger(service)
        assert await service.ended() == KILLED
        rows = read_rows(home)
        found = [(row.cause, row.status, row.reason) for row in rows if row.cause != "manual"]
        assert found == [("schedule", "skipped", "overlap")] * (moment == AFTER)
        born = [row for row in rows if row.cause != "manual"]

        await service.start()
        await _all_end(home, 2)
        due = [row for row in read_rows(home) if row.cause != "manual"]
        assert len(due) == 1
        assert born in ([], due)
        await _judge(service, target)


@MOMENTS
async def test_a_death_at_the_birth_of_a_missed_instant(home: Home, nursery: Nursery, moment: str):
    """An instant that nobody was there for is missed once, and never sent."""
    async with RawServer((OK,)) as target, CrashingService(nursery, home) as service:
        await service.start(f"api.{AFTER}")
        due_at = CLOCK.now() + timedelta(seconds=GRACE)
        with pytest.raises(httpx.TransportError):
            await _create(
                service, target, schedule_type="date", run_at=due_at.isoformat(),
                catch_up="none", misfire_grace_time=GRACE,
            )  # fmt: skip
        assert await service.ended() == KILLED
        await eventually(lambda: CLOCK.now() > due_at + timedelta(seconds=2 * GRACE))
        service.begin(f"pass.{moment}")
        assert await service.ended() == KILLED
        born = read_rows(home)
        assert [row.status for row in born] == ["missed"] * (moment == AFTER)

        await service.start()
        await _all_end(home, 1)
        rows = read_rows(home)
        assert [row.status for row in rows] == ["missed"]
        assert born in ([], rows)
        assert target.requests == []
        await _judge(service, target)


@MOMENTS
async def test_a_death_at_the_end_of_a_cancelled_run(home: Home, nursery: Nursery, moment: str):
    """A run that was cancelled while it was under way is sent no second time."""
    async with RawServer((hang, OK)) as target, CrashingService(nursery, home) as service:
        await service.start(f"record.{moment}")
        await _create(service, target)
        execution_id = await _trigger(service)
        await eventually(lambda: target.requests)
        try:
            answer = await service.client.post(f"/api/v1/executions/{execution_id}/cancel")
            assert answer.status_code == 200
        except httpx.TransportError:
            pass  # it died with the answer on its way
        assert await service.ended() == KILLED
        (left,) = read_rows(home)
        assert left.status == ("cancelled" if moment == AFTER else "running")

        await service.start()
        await _all_end(home, 1)
        (row,) = read_rows(home)
        assert (row.status, row.reason, row.attempts) == ("cancelled", "user", 1)
        assert len(target.requests) == 1
        await _judge(service, target)


async def _leave_a_retry(service: CrashingService, target: RawServer) -> None:
    """Kill a service whose one execution waits for its second attempt."""
    await service.start()
    await _create(service, target, max_retries=1, retry_backoff_sec=0.2)
    await _trigger(service)
    await eventually(lambda: [row.status for row in read_rows(service.home)] == ["retrying"])
    await service.kill()


@pytest.mark.parametrize("point", [BEFORE, AFTER, f"{AFTER}@2"])
async def test_a_death_while_a_step_back_is_mended(home: Home, nursery: Nursery, point: str):
    """Whichever half of the mending was committed, the clock's step back is mended once."""
    async with RawServer((UNWELL, OK)) as target, CrashingService(nursery, home) as service:
        await _leave_a_retry(service, target)
        _set_ahead(home)
        service.begin(f"mend.{point}")
        assert await service.ended() == KILLED
        assert _mended(home) == (point != BEFORE, point == f"{AFTER}@2")

        await service.start()
        await _all_end(home, 1)
        assert _mended(home) == (True, True)
        (next_run_time,) = await _next_run_times(service)
        assert next_run_time < CLOCK.now() + timedelta(hours=1)
        await _judge(service, target)


@MOMENTS
async def test_a_death_while_the_unreadable_is_ended(home: Home, nursery: Nursery, moment: str):
    """A run that can never be sent ends together with what becomes of its job."""
    async with RawServer((UNWELL, OK)) as target, CrashingService(nursery, home) as service:
        await _leave_a_retry(service, target)
        for table in ("jobs", "job_revisions"):
            home.rows(f"UPDATE {table} SET policy = '{{}}'")  # noqa: S608 - constants
        service.begin(f"broken.{moment}")
        assert await service.ended() == KILLED
        ended = [("failed", "broken", "broken")]
        assert _broken(home) == (ended if moment == AFTER else [("retrying", "status", "active")])

        await service.start()
        await eventually(lambda: _broken(home) == ended)
        told = home.rows("SELECT count(*) FROM job_revisions WHERE change = 'broken'")
        assert told == [(1,)]
        assert len(target.requests) == 1


async def test_a_death_within_a_migration(home: Home, nursery: Nursery):
    """An upgrade that dies before its commit leaves the old schema whole; the next one makes it."""
    await migrate(DatabaseOptions(url=home.url))
    newest = await run_on(home.url, all_objects)
    await run_on(home.url, downgrade, "0001")
    old = await run_on(home.url, all_objects)
    async with CrashingService(nursery, home) as service:
        service.begin(failpoint.MIGRATED)
        assert await service.ended() == KILLED
        assert await run_on(home.url, all_objects) == old
        assert home.rows("SELECT version_num FROM alembic_version") == [("0001",)]
        await service.start()
        assert sorted(await run_on(home.url, all_objects)) == sorted(newest)


def test_every_station_is_somewhere():
    """What a station's transactions are known by is the name of code that there is."""
    names = list(_names_of_code())
    nowhere = [
        station
        for station, place in failpoint.STATIONS.items()
        if not any(re.search(place, name) for name in names)
    ]
    assert nowhere == []


def _names_of_code() -> Iterator[str]:
    """Name every function, lambda and nested function of the product, as at run time."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        yield from _names_within(_compiled(path))


def _compiled(path: Path) -> CodeType:
    return compile(path.read_text(encoding="utf-8"), str(path), "exec")


def _names_within(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname
            yield from _names_within(constant)


def _in(delay: timedelta) -> str:
    return (CLOCK.now() + delay).isoformat()


async def _create(service: CrashingService, target: RawServer, **fields: object) -> None:
    """Create the job ``job``, every hour if nothing else is said."""
    rule = {"schedule_type": "interval", "interval": {"hours": 1}}
    if "schedule_type" in fields:
        rule = {}
    job = {"job_id": "job", "target_url": target.url("/hook"), "timeout_sec": 1.5, **rule, **fields}
    answer = await service.client.post("/api/v1/jobs", json=job)
    assert answer.status_code == 200, answer.text


async def _trigger(service: CrashingService) -> str:
    answer = await service.client.post("/api/v1/jobs/job/trigger")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["execution_id"])


async def _next_run_times(service: CrashingService) -> list[datetime]:
    listed = (await service.client.get("/api/v1/jobs")).json()["jobs"]
    return [instant(job["next_run_time"]) for job in listed]


async def _all_end(home: Home, count: int) -> None:
    def ended() -> bool:
        rows: list[Row] = read_rows(home)
        return len(rows) == count and all(row.status not in OPEN for row in rows)

    await eventually(ended)


def _set_ahead(home: Home) -> None:
    """Leave what a process leaves whose clock was ahead: all it wrote lies in the future."""
    step_us = STEP // timedelta(microseconds=1)
    for change in (
        "leadership SET beat_us = beat_us + ?",
        "jobs SET next_run_us = next_run_us + ?",
        "jobs SET cursor_us = cursor_us + ?",
        "executions SET next_attempt_us = next_attempt_us + ? WHERE status = 'retrying'",
    ):
        home.rows(f"UPDATE {change}", step_us)


def _mended(home: Home) -> tuple[bool, bool]:
    """Tell whether the job began its next epoch, and whether the step back is noted; each once."""
    ((epoch, cursor_us),) = home.rows("SELECT clock_epoch, cursor_us FROM jobs")
    assert (epoch == 1) == (cursor_us < to_us(CLOCK.now() + STEP / 2))
    query = "SELECT count(*) FROM service_events WHERE kind = 'clock_set_back'"
    ((notes,),) = home.rows(query)
    assert notes <= 1
    return epoch == 1, notes == 1


def _broken(home: Home) -> list[tuple[str, str, str]]:
    query = (
        "SELECT executions.status, executions.reason, jobs.state FROM executions"
        " JOIN jobs ON jobs.id = executions.job_id"
    )
    return [(str(a), str(b), str(c)) for a, b, c in home.rows(query)]


async def _judge(service: CrashingService, target: RawServer) -> None:
    """The service's own proof and an independent one find nothing."""
    assert find_contradictions(read_rows(service.home), whole(target.requests)) == []
    proof = (await service.client.get("/api/v1/ledger/verify")).json()
    assert (proof["proven"], proof["overdue_count"]) == (True, 0), proof
