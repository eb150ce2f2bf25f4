"""Replicas wake each other, on a real PostgreSQL."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from app.backends.postgres.wakeups import PostgresWakeups, WakeupKind, WakeupOptions
from app.engine.tasks import Tasks
from tests.support.service import eventually


class Replica:
    """One listener, and what it heard."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[WakeupKind, str]] = []
        self.wakeups = PostgresWakeups(
            url=url,
            options=WakeupOptions(gather=timedelta(milliseconds=1)),
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
