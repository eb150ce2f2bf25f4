from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.db.session import open_postgres
from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.errors import StorageInUseError
from app.repositories import leadership_repository
from tests.conformance.builders import NOW, NOW_US
from tests.support.databases import Database, DatabaseKind


async def test_terms_are_counted_from_one(database: Database):
    """Each start begins the next term, and its holder is written down."""
    take = leadership_repository.take_leadership
    assert await database.write(take, holder="a", now=NOW) == 1
    assert await database.write(take, holder="b", now=NOW + timedelta(seconds=1)) == 2
    assert await database.rows("SELECT * FROM leadership") == [
        {
            "id": 1,
            "term": 2,
            "holder": "b",
            "since_us": NOW_US + 1_000_000,
            # The one before was last alive then; the new one has given no sign of life yet.
            "beat_us": NOW_US,
        }
    ]


async def test_the_last_sign_of_life_goes_back_only_on_a_known_clock(database: Database):
    """After an unnoticed step back the last beat stays, until a start or a mending begins anew."""
    await database.write(leadership_repository.take_leadership, holder="a", now=NOW)
    earlier = NOW - timedelta(hours=1)
    await database.write(leadership_repository.beat, now=earlier)
    assert await database.read(leadership_repository.last_beat) == NOW
    await database.write(leadership_repository.begin_beats, now=earlier)
    assert await database.read(leadership_repository.last_beat) == earlier


async def test_the_holder_of_the_term_may_write(database: Database):
    """The guard lets the present term pass."""
    term = await database.write(leadership_repository.take_leadership, holder="a", now=NOW)
    await database.write(leadership_repository.guard_term, term=term)


async def test_an_ended_term_writes_nothing(database: Database):
    """A leader that was replaced is refused, and with it the whole transaction."""
    term = await database.write(leadership_repository.take_leadership, holder="a", now=NOW)
    await database.write(leadership_repository.take_leadership, holder="b", now=NOW)

    def late_tick(connection: WriteConnection) -> None:
        leadership_repository.beat(connection, now=NOW + timedelta(hours=1))
        leadership_repository.guard_term(connection, term=term)

    with pytest.raises(StorageInUseError, match="taken over"):
        await database.unit_of_work.write(late_tick)
    assert await database.rows("SELECT beat_us FROM leadership") == [{"beat_us": NOW_US}]


async def test_without_any_term_nobody_may_write(database: Database):
    """On a database that no one leads, the guard refuses."""
    with pytest.raises(StorageInUseError):
        await database.write(leadership_repository.guard_term, term=1)


@pytest.mark.only_on(DatabaseKind.POSTGRES, because="with SQLite there is no other process")
async def test_a_takeover_waits_for_the_tick_under_way(postgres: Database):
    """Between a tick's guard and its commit no other process can begin a term."""
    term = await postgres.write(leadership_repository.take_leadership, holder="a", now=NOW)
    engine = open_postgres(postgres.url, connections=2)

    def guard(connection: sa.Connection) -> None:
        leadership_repository.guard_term(WriteConnection(ReadConnection(connection)), term=term)

    def take(connection: sa.Connection) -> None:
        connection.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
        writing = WriteConnection(ReadConnection(connection))
        leadership_repository.take_leadership(writing, holder="b", now=NOW)

    async with engine.connect() as ticking, engine.connect() as taking:
        await ticking.run_sync(guard)
        with pytest.raises(DBAPIError, match="lock timeout"):
            await taking.run_sync(take)
    await engine.dispose()


async def test_a_beat_is_written(database: Database):
    """A beat proves that the database takes writes, and leaves the term alone."""
    await database.write(leadership_repository.take_leadership, holder="a", now=NOW)
    await database.write(leadership_repository.beat, now=NOW + timedelta(seconds=5))
    assert await database.rows("SELECT term, since_us, beat_us FROM leadership") == [
        {"term": 1, "since_us": NOW_US, "beat_us": NOW_US + 5_000_000}
    ]
