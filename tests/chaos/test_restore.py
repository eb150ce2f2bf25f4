"""A backup taken while the service writes, put in the place of the data."""

from pathlib import Path

import pytest

from tests.chaos.judge import SECOND, counts_up, is_ready, settled
from tests.e2e.world import CLOCK, Row, assert_no_gap, read_execution, run_python, until
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service

pytestmark = pytest.mark.only_on(DatabaseKind.SQLITE, because="the backups of a server are its own")

JOBS = ("tick-a", "tick-b", "tick-c")
LOST = 2 * SECOND


async def run(service: Service, *arguments: str) -> tuple[int, str, str]:
    """Run a command on the data of a service."""
    url = f"sqlite:///{service.folder / 'data' / 'jobs.db'}"
    return await run_python(service.folder, "-m", "app", *arguments, DATABASE_URL=url)


def ids_of(rows: list[Row]) -> dict[str, str]:
    return {row["scheduled_for"]: row["execution_id"] for row in rows}


@pytest.mark.slow
async def test_a_restored_backup_makes_up_under_the_same_ids(home: Home, tmp_path: Path):
    """What ran after the backup runs again under its old id; no instant is lost or doubled."""
    data = tmp_path / "data"
    async with RawServer((reply(),)) as target, Service(home) as service:
        first = await counts_up(service, target, JOBS)
        code, out, err = await run(service, "backup", "copy.db")
        assert (code, err) == (0, "")
        assert out.startswith(f"Wrote {tmp_path / 'copy.db'} (")
        assert await is_ready(service.client)

        seen = CLOCK.now() + LOST
        await until(seen)
        before = {job_id: await settled(service, job_id, until=seen) for job_id in first}
        await service.kill()
        for path in data.glob("jobs.db*"):
            path.unlink()
        (tmp_path / "copy.db").rename(data / "jobs.db")
        await service.start()

        for job_id, begin in first.items():
            rows = await settled(service, job_id, until=CLOCK.now())
            assert_no_gap(rows, first=begin, period=SECOND)
            again = ids_of(rows)
            assert ids_of(before[job_id]).items() <= again.items()
            assert len(set(again.values())) == len(rows)
            oldest = await read_execution(service.client, rows[0]["execution_id"])
            assert (oldest["status"], oldest["attempts"]) == ("completed", 1)
        assert (await run(service, "check"))[0] == 0
