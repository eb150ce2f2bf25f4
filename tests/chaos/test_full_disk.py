"""The disk is full: nothing is sent that is not written, and space heals everything."""

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.chaos.judge import check_account, check_refused, counts_up, is_ready
from tests.e2e.world import (
    CLOCK,
    Script,
    arrivals,
    create,
    read_history,
    reply_after,
    run_python,
    soon,
    until,
    wait_for_end,
)
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import Service, eventually, free_port
from tests.support.storage import filled, no_growth, small_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.only_on(DatabaseKind.SQLITE, because="a server has a disk of its own"),
]

SECOND = timedelta(seconds=1)
FULL_FOR = 2.5 * SECOND
# A retry that comes due in that time.
RETRY_AFTER_SECONDS = 1.5
TICKS = ("tick-a", "tick-b")


@contextlib.contextmanager
def full_disk(service: Service):
    """Fill the small disk that the data is on."""
    with filled(service.folder / "data"):
        yield


@contextlib.contextmanager
def full_files(service: Service):
    """Let no file of the service grow, its log neither."""
    data = service.folder / "data"
    with no_growth(service.pid, data / "jobs.db", data / "jobs.db-wal"):
        yield


@pytest.mark.parametrize("fault", [full_disk, full_files])
async def test_a_full_disk_heals_by_itself(home: Home, tmp_path: Path, fault):
    """While nothing can be written nothing is sent and the API says so; then all is made up for."""
    with contextlib.ExitStack() as stack:
        if fault is full_disk:
            stack.enter_context(small_disk(tmp_path / "data", size="4m"))
        script = Script(
            {
                "/flaky": (reply(status="503 Service Unavailable"), reply("up again")),
                **{f"/{job_id}": (reply(),) for job_id in TICKS},
            }
        )
        async with RawServer((script,)) as target, Service(home) as service:
            first = await counts_up(service, target, TICKS)
            await _begin_flaky(service, target)
            with fault(service):
                await eventually(lambda: _is_refused(service.client, target))
                sent = len(target.requests)
                await until(CLOCK.now() + FULL_FOR)
                await check_refused(service, target)
                assert len(target.requests) == sent
            await eventually(lambda: is_ready(service.client))
            flaky = await wait_for_end(service.client, "flaky")
            assert (flaky["status"], flaky["attempts"]) == ("completed", 2)
            await check_account(service, target, first, until=CLOCK.now(), once=["flaky"])


async def _begin_flaky(service: Service, target: RawServer) -> None:
    """Make a job whose first attempt fails, and wait until its retry waits in the database."""
    await create(
        service.client, "flaky", target.url("/flaky"), schedule_type="date", run_at=soon(0.2),
        max_retries=1, retry_backoff_sec=RETRY_AFTER_SECONDS,
    )  # fmt: skip

    async def waits() -> bool:
        rows = await read_history(service.client, "flaky")
        return [row["status"] for row in rows] == ["retrying"]

    await eventually(waits)


async def _is_refused(client: httpx.AsyncClient, target: RawServer) -> bool:
    """Tell whether the fault has reached the service: its last write may just be under way."""
    job = {"schedule_type": "interval", "interval": {"hours": 1}, "target_url": target.url("/x")}
    answer = await client.post("/api/v1/jobs", json=job)
    return answer.status_code == 503


async def test_a_stop_on_a_full_disk_is_clean(home: Home, tmp_path: Path):
    """The reserve makes room for what attempts came to: no answered request is sent again."""
    answer = asyncio.Event()
    script = Script(
        {"/held": (reply_after(answer), reply("twice")), "/hang": (hang, reply("again"))}
    )
    with small_disk(tmp_path / "data", size="16m"):
        async with (
            RawServer((script,)) as target,
            Service(home, MYSCHEDULER_SHUTDOWN_GRACE_SECONDS="1") as service,
        ):
            for path in ("held", "hang"):
                once = {"schedule_type": "date", "run_at": soon(0.3)}
                await create(service.client, path, target.url(f"/{path}"), **once)
            await eventually(lambda: len(target.requests) == 2)
            with filled(tmp_path / "data"):
                answer.set()
                await eventually(lambda: _has_postponed(service))
                assert await service.stop() == 0
            await service.start()
            held = await wait_for_end(service.client, "held")
            assert (held["result"]["response_body"], held["attempts"]) == ("at last", 1)
            hanging = await wait_for_end(service.client, "hang")
            assert [a["outcome"] for a in hanging["attempt_list"]] == ["interrupted", "response"]
            assert len(arrivals(target, "/held")) == 1


def _has_postponed(service: Service) -> bool:
    return any(line["event"] == "outcomes.postponed" for line in service.log_lines())


async def test_a_first_start_on_a_full_disk_is_refused_in_words(home: Home, tmp_path: Path):
    """Where there is no room for a database the start fails with a sentence, and heals."""
    data = tmp_path / "data"
    with small_disk(data, size="1m"):
        with filled(data):
            code, out, err = await run_python(
                tmp_path,
                *("-m", "app", "serve"),
                DATABASE_URL=f"sqlite:///{data / 'jobs.db'}",
                PORT=str(free_port()),
            )
        assert (code, err.count("\n")) == (1, 1), err
        assert "disk is full" in err
        assert "Traceback" not in out
        async with Service(home) as service:
            assert await is_ready(service.client)
