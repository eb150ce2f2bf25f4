"""Replicas wake each other, on a real PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.backends.postgres.wakeups import PostgresWakeups, WakeupKind, WakeupOptions
from app.engine.tasks import Tasks
from tests.support.service import eventually

FAST = WakeupOptions(gather=timedelta(milliseconds=1))


class Replica:
    """One listener, and what it heard."""

    def __init__(self, url: str, options: WakeupOptions = FAST) -> None:
        self.heard: list[tuple[WakeupKind, str]] = []
        self.wakeups = PostgresWakeups(
            url=url,
            options=options,
            on_wakeup=lambda kind, key: self.heard.append((kind, key)),
        )

    async def hears(self, *expected: tuple[WakeupKind, str]) -> None:
        async def heard_all() -> bool:
            return set(expected) <= set(self.heard)

        await eventually(heard_all)


@contextlib.asynccontextmanager
async def replicas(url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    tasks, one, two = Tasks(), Replica(url), Replica(url)
    tasks.loop("one", one.wakeups.run)
    tasks.loop("two", two.wakeups.run)
    try:
        await one.hears((WakeupKind.ALL, ""))
        await two.hears((WakeupKind.ALL, ""))
        yield one, two
    finally:
        await tasks.end_all()


async def test_others_hear_and_the_sender_does_not(url: str):
    """A wakeup reaches the other replicas, with its key, and not the one that sent it."""
    async with replicas(url) as (one, two):
        one.wakeups.send(WakeupKind.JOB, "a job: 日本")
        one.wakeups.send(WakeupKind.RUNS)
        await two.hears((WakeupKind.JOB, "a job: 日本"), (WakeupKind.RUNS, ""))
        two.wakeups.send(WakeupKind.CANCEL_RUN, "exe_1")
        await one.hears((WakeupKind.CANCEL_RUN, "exe_1"))
        assert one.heard == [(WakeupKind.ALL, ""), (WakeupKind.CANCEL_RUN, "exe_1")]


async def test_the_options_of_an_address_mean_what_they_mean_elsewhere(url: str):
    """Where the address asks for TLS, or for none, replicas hear each other all the same."""
    async with replicas(f"{url}&ssl=disable") as (one, two):
        one.wakeups.send(WakeupKind.RUNS)
        await two.hears((WakeupKind.RUNS, ""))


async def test_a_lost_connection_is_opened_again(url: str):
    """After its connection ended a replica listens again and looks at everything."""
    async with replicas(url) as (one, two):
        two.heard.clear()
        connection = await _connect(url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        await connection.close()
        one.wakeups.send(WakeupKind.RUNS)
        two.wakeups.send(WakeupKind.RUNS)
        await two.hears((WakeupKind.ALL, ""))
        one.wakeups.send(WakeupKind.JOB, "later")
        await two.hears((WakeupKind.JOB, "later"))


class BrokenConnection:
    """Fails to send, as a connection that is lost does."""

    async def execute(self, *_: object) -> None:
        raise ConnectionResetError


async def test_what_could_not_be_sent_is_still_news(url: str):
    """What a connection lost is sent over the next one, without waiting for more or for a ping."""
    async with replicas(url) as (_, two):
        one = Replica(url, WakeupOptions(ping_every=timedelta(hours=1)))
        one.wakeups.send(WakeupKind.JOB, "kept")
        with pytest.raises(ConnectionResetError):
            await one.wakeups._flush(BrokenConnection())
        tasks = Tasks()
        tasks.loop("one", one.wakeups.run)
        try:
            await two.hears((WakeupKind.JOB, "kept"))
        finally:
            await tasks.end_all()


async def test_what_could_not_be_sent_is_bounded(url: str):
    """Wakeups that came while others could not be sent are still no more than the limit."""
    one = Replica(url)
    for number in range(10_000):
        one.wakeups.send(WakeupKind.JOB, f"job-{number}")

    class Slow(BrokenConnection):
        async def execute(self, *_: object) -> None:
            one.wakeups.send(WakeupKind.JOB, "meanwhile")
            await super().execute()

    with pytest.raises(ConnectionResetError):
        await one.wakeups._flush(Slow())
    assert list(one.wakeups._waiting) == ["all "]


async def test_too_many_wakeups_become_one(url: str):
    """A flood of wakeups is bounded: the others are told that anything may have changed."""
    async with replicas(url) as (one, two):
        two.heard.clear()
        for number in range(10_001):
            one.wakeups.send(WakeupKind.JOB, f"job-{number}")
        await two.hears((WakeupKind.ALL, ""))
        await asyncio.sleep(0)
        assert len(two.heard) == 1


async def _connect(url: str):
    import asyncpg
    from sqlalchemy.engine import make_url

    address = make_url(url).set(drivername="postgresql")
    return await asyncpg.connect(address.render_as_string(hide_password=False))
