"""Requests that come twice at the same moment, on SQLite and on PostgreSQL."""

import asyncio

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import from_us, to_us
from app.domain.errors import IdempotencyKeyReusedError
from app.models.tables import leadership
from app.services.idempotency import RequestKey, answer_once
from tests.support.databases import Database

NOW = from_us(1_800_000_000_000_000)
KEY = RequestKey("key", "the request")
AT_ONCE = 8


def count_up(connection: WriteConnection) -> str:
    """Make a change that is seen if it is made twice, and takes so long that all have begun."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_sleep(0.1)))
    counted = connection.execute(
        sa.update(leadership).values(term=leadership.c.term + 1).returning(leadership.c.term)
    )
    return str(counted.scalar_one())


def ask(connection: WriteConnection, request_key: RequestKey) -> str:
    return answer_once(connection, request_key, lambda: count_up(connection), now=NOW)


@pytest.fixture
async def counter(database: Database) -> Database:
    """Give a database with a number in it."""
    us = to_us(NOW)
    row = {"id": 1, "term": 1, "holder": "", "since_us": us, "beat_us": us}
    await database.write(lambda connection: connection.execute(sa.insert(leadership), row))
    return database


async def test_a_request_that_comes_twice_at_once_counts_once(counter: Database):
    """Of requests with one key in one moment the first is done, and all get its answer."""
    asked = [counter.write(ask, KEY) for _ in range(AT_ONCE)]
    assert await asyncio.gather(*asked) == ["2"] * AT_ONCE


async def test_a_key_that_is_used_for_two_requests_at_once_is_refused(counter: Database):
    """Of two different requests with one key in one moment one is done and one refused."""
    other = RequestKey(KEY.key, "another request")
    answers = await asyncio.gather(
        counter.write(ask, KEY), counter.write(ask, other), return_exceptions=True
    )
    assert sorted(map(type, answers), key=str) == sorted([str, IdempotencyKeyReusedError], key=str)


async def test_other_requests_do_not_wait(counter: Database):
    """Each key counts once for itself."""
    asked = [counter.write(ask, RequestKey(f"key {n}", "")) for n in range(AT_ONCE)]
    assert sorted(await asyncio.gather(*asked)) == [str(n) for n in range(2, AT_ONCE + 2)]
