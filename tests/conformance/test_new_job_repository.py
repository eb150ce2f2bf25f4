"""New jobs are stored many at a time, exactly as one by one."""

import asyncio

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.ids import JobId
from app.domain.job import Change, JobState
from app.models.tables import job_revisions, jobs
from app.repositories import job_repository
from app.repositories.new_job_repository import FirstJob, insert_new_jobs
from tests.conformance.builders import NOW, make_definition, make_job
from tests.support.databases import Database, DatabaseKind

TEXT = '名前 "quoted" \\ 😀 {}'


def rows(connection: ReadConnection) -> list[list[dict[str, object]]]:
    """Read both tables, without the ids."""
    return [
        [
            {**row, key: None}
            for row in connection.execute(sa.select(table).order_by(table.c[key])).mappings()
        ]
        for table, key in ((jobs, "id"), (job_revisions, "job_id"))
    ]


async def test_a_batch_stores_what_single_writes_do(database: Database):
    """Every column of a job and of its revision is as if the job had been stored alone."""
    job = make_job("one", definition=make_definition(name=TEXT))

    def one_by_one(connection: WriteConnection) -> None:
        job_repository.insert_job(connection, job, actor="127.0.0.1")
        job_repository.insert_job(connection, make_job("two"), actor=None)

    def at_once(connection: WriteConnection) -> list[bool]:
        new = [
            FirstJob(make_job("three", definition=job.definition), actor="127.0.0.1"),
            FirstJob(make_job("two again"), actor=None),
        ]
        return insert_new_jobs(connection, new)

    await database.write(one_by_one)
    expected = await database.read(rows)
    assert await database.write(at_once) == [True, True]
    stored = await database.read(rows)
    by_text = [sorted(table, key=str) for table in stored]
    assert by_text == [sorted(table * 2, key=str) for table in expected]
    found = await database.read(job_repository.find_job, job_id=JobId("three"))
    assert found is not None
    assert found.definition == job.definition


async def test_known_ids_are_left_out(database: Database):
    """A job of a known id stays as it is, a deleted one too; of two of one id the first is new."""
    kept = make_job("kept")
    gone = make_job("gone", state=JobState.DELETED, next_run_time=None, revision=2)

    def store(connection: WriteConnection) -> list[bool]:
        job_repository.insert_job(connection, kept, actor=None)
        job_repository.insert_job(connection, make_job("gone"), actor=None)
        job_repository.save_state(connection, gone, Change.DELETED, accounted=NOW, actor=None)
        other = make_definition(name="other")
        names = ("new", "kept", "gone", "new", "newer")
        return insert_new_jobs(
            connection,
            [FirstJob(make_job("new"), actor="first")]
            + [FirstJob(make_job(name, definition=other), actor=None) for name in names[1:]],
        )

    assert await database.write(store) == [True, False, False, False, True]
    assert await database.read(job_repository.find_job, job_id=JobId("kept")) == kept
    assert await database.read(job_repository.find_job, job_id=JobId("gone")) is None
    first = await database.read(job_repository.find_job, job_id=JobId("new"))
    assert first is not None
    assert first.definition == make_definition()


async def test_a_batch_that_stores_nothing_is_fine(database: Database):
    """Nothing but known ids writes nothing."""

    def store_twice(connection: WriteConnection) -> list[bool]:
        insert_new_jobs(connection, [FirstJob(make_job("a"), actor=None)])
        return insert_new_jobs(connection, [FirstJob(make_job("a"), actor=None)])

    assert await database.write(store_twice) == [False]


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="SQLite has one writer")
async def test_the_same_ids_in_another_order_wait_in_no_circle(postgres: Database):
    """Two processes that are sent the same herd each store a part, and none of it twice."""
    for turn in range(5):
        herd = [FirstJob(make_job(f"job-{turn}-{number}"), actor=None) for number in range(200)]
        stored = await asyncio.gather(
            *(postgres.write(insert_new_jobs, order) for order in (herd, herd[::-1]) * 2)
        )
        assert sum(map(sum, stored)) == len(herd)
