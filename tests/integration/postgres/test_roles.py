"""Replicas that share the work by roles, as processes: who does what, and how they hear of it."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.e2e.world import CLOCK, arrivals, arrived_at, create, instant, trigger
from tests.support.raw_server import RawServer, Request
from tests.support.replicas import Brood, MortalPostgres, Replica, Target, open_replicas
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

EVERY_SECOND: dict[str, Any] = {
    "schedule_type": "interval", "interval": {"seconds": 1},
    "catch_up": "all", "overlap_policy": "allow",
}  # fmt: skip
NEVER: dict[str, Any] = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}


async def test_each_role_does_its_part_and_no_other(
    brood: Brood, postgres: MortalPostgres, tmp_path_factory: pytest.TempPathFactory
):
    """Only a scheduler leads, only a worker sends, and the API answers wherever it is."""
    target = Target()
    roles = [{"MYSCHEDULER_ROLE": role} for role in ("api", "worker", "scheduler")]
    async with (
        RawServer((target,)) as server,
        open_replicas(tmp_path_factory.mktemp("roles"), postgres, brood, *roles) as replicas,
    ):
        api, worker, scheduler = replicas.all
        await asyncio.gather(api.start(), worker.start())
        await create(api.client, "steady", server.url("/steady"), **EVERY_SECOND)
        await trigger(api.client, "steady")
        await eventually(lambda: len(server.requests) == 1)
        assert await replicas.leader() is None
        assert await worker.terminate() == 0

        await scheduler.start()
        assert await replicas.new_leader() is scheduler

        async def queued() -> bool:
            rows = await replicas.rows("SELECT 1 FROM executions WHERE status = 'queued'")
            return len(rows) >= 2

        await eventually(queued)
        assert len(server.requests) == 1
        await worker.start()
        await eventually(lambda: len(server.requests) >= 3)
        await _hears_at_once(api, server)


async def _hears_at_once(api: Replica, server: RawServer) -> None:
    """Prove that a worker that neither ticks nor answers for it sends what others leave it."""
    began = CLOCK.now() + timedelta(seconds=1)

    def due_of(one: Request) -> datetime:
        return instant(one.headers["x-scheduler-scheduled-at"])

    def fresh() -> list[Request]:
        return [one for one in arrivals(server, "/steady") if due_of(one) > began]

    await eventually(lambda: len(fresh()) >= 5)
    assert max(arrived_at(one) - due_of(one) for one in fresh()) < timedelta(seconds=1)
    await create(api.client, "by-hand", server.url("/by-hand"), **NEVER)
    for number in range(1, 4):
        asked_at = CLOCK.now()
        await trigger(api.client, "by-hand")
        await eventually(partial(_came, server, number))
        assert arrived_at(arrivals(server, "/by-hand")[-1]) - asked_at < timedelta(seconds=1)


def _came(server: RawServer, number: int) -> bool:
    return len(arrivals(server, "/by-hand")) == number


async def test_what_no_one_is_told_of_is_found(
    brood: Brood, postgres: MortalPostgres, tmp_path_factory: pytest.TempPathFactory
):
    """Where no wakeup arrives, a worker finds what waits, and the leader what is due, by looking.

    The database swallows what is sent: its own ``pg_notify`` is found last.
    """
    roles = [{"MYSCHEDULER_ROLE": role} for role in ("api", "worker", "scheduler")]
    async with (
        RawServer((Target(),)) as server,
        open_replicas(tmp_path_factory.mktemp("deaf"), postgres, brood, *roles) as replicas,
    ):
        await replicas.rows(_SWALLOW)
        await replicas.rows(f"ALTER DATABASE {replicas.database} SET search_path=public,pg_catalog")
        await replicas.start()
        api, *_ = replicas.all
        await create(api.client, "by-hand", server.url("/by-hand"), **NEVER)
        for number in range(1, 4):
            asked_at = CLOCK.now()
            await trigger(api.client, "by-hand")
            await eventually(partial(_came, server, number))
            assert arrived_at(arrivals(server, "/by-hand")[-1]) - asked_at < POLL_SECONDS
        due = CLOCK.now() + timedelta(seconds=0.5)
        await create(
            api.client, "soon", server.url("/soon"), schedule_type="date", run_at=due.isoformat()
        )
        [request] = await eventually(partial(arrivals, server, "/soon"))
        assert arrived_at(request) - due < 2 * POLL_SECONDS


_SWALLOW = """
    CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'
"""


# A worker looks every two seconds, or one later; the leader reads jobs ahead as often.
POLL_SECONDS = timedelta(seconds=3.5)
