"""Two replicas that are asked to create one job in the same moment."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.domain.errors import JobExistsError
from app.domain.ids import JobId
from app.repositories.new_job_repository import FirstJob, insert_new_jobs
from app.services.created_job import CreatedJob
from app.services.idempotency import RequestKey
from app.services.job_service import NewJob
from tests.conformance.builders import make_definition, make_job
from tests.support.databases import DatabaseKind, open_database
from tests.support.homes import Home
from tests.support.pipeline import open_pipeline
from tests.support.service import eventually

JOB = JobId("job")
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'INSERT'"
COPY_JOB = 'INSERT INTO jobs SELECT (jsonb_populate_record(j, \'{"id": "job"}\')).* FROM jobs j'
COPY_REVISION = (
    'INSERT INTO job_revisions SELECT (jsonb_populate_record(r, \'{"job_id": "job"}\')).*'
    " FROM job_revisions r"
)


@pytest.mark.parametrize(
    ("key", "replacing"),
    [(None, False), (RequestKey("k", "hash"), False), (None, True)],
    ids=["create", "create with a key", "replace"],
)
async def test_a_job_that_another_replica_stores_in_this_moment(
    tmp_path: Path,
    url: str,
    key: RequestKey | None,
    replacing: bool,  # noqa: FBT001 - a parameter of the test
):
    """The second finds the first's job: it replaces it, or is told that it exists."""
    home = Home(kind=DatabaseKind.POSTGRES, folder=tmp_path, url=url)
    async with open_pipeline(home, start=False) as pipeline, open_database(url) as database:
        await database.write(_insert, make_job("model"))
        other = await _connect(url)
        looking = await _connect(url)
        first = other.transaction()
        await first.start()
        await other.execute(COPY_JOB)
        await other.execute(COPY_REVISION)

        new = NewJob(id=JOB, definition=make_definition(name="second"), replace_existing=replacing)

        async def commit_first() -> None:
            await eventually(lambda: _is_waiting(looking))
            await first.commit()

        answer, _ = await asyncio.gather(
            pipeline.jobs.create(new, actor=None, request_key=key),
            commit_first(),
            return_exceptions=True,
        )
        stored = await pipeline.jobs.get(JOB)
        for connection in (other, looking):
            await connection.close()
    assert stored.definition is not None
    if replacing:
        assert isinstance(answer, CreatedJob)
        assert (stored.definition.name, stored.revision) == ("second", 2)
    else:
        assert isinstance(answer, JobExistsError)
        assert (stored.definition.name, stored.revision) == ("A job", 1)


def _insert(connection: Any, job: Any) -> None:
    insert_new_jobs(connection, [FirstJob(job, None)])


async def _is_waiting(connection: Any) -> bool:
    return bool(await connection.fetchval(WAITS))


async def _connect(url: str) -> Any:
    address = make_url(url).set(drivername="postgresql")
    return await asyncpg.connect(address.render_as_string(hide_password=False))
