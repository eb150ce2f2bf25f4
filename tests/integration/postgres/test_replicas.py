"""Three replicas on one PostgreSQL, as processes: who ticks, who sends, and what a loss costs.

The tests share one cluster and leave it whole; a crash with a request in flight begins them, and
its rescue, which a lease delays, ends them. The storm is ``tests/chaos/test_replicas.py``.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from app.domain.clock import from_us
from tests.e2e.world import (
    CLOCK,
    arrivals,
    arrived_at,
    create,
    instant,
    read_execution,
    trigger,
    until,
    wait_for_end,
)
from tests.support.raw_server import RawServer, Request
from tests.support.replicas import (
    Brood,
    MortalPostgres,
    Replica,
    Replicas,
    Target,
    open_replicas,
)
from tests.support.service import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

EVERY_SECOND: dict[str, Any] = {
    "schedule_type": "interval", "interval": {"seconds": 1},
    "catch_up": "all", "overlap_policy": "allow",
}  # fmt: skip
NEVER: dict[str, Any] = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00Z"}
STEADY = ("steady-0", "steady-1", "steady-2")


@dataclass
class World:
    """A cluster at work, and the target of its jobs."""

    replicas: Replicas
    server: RawServer
    target: Target

    async def whole(self) -> Replica:
        """Have all replicas alive and one of them lead; return that one."""
        await self.replicas.start()
        return await self.replicas.new_leader()

    async def ticked(self, times: int = 2) -> None:
        """Wait until every steady job has been sent so often, for instants still to come."""
        now = CLOCK.now()

        def sent() -> bool:
            return all(len(self.sent_since(f"/{job}", now)) >= times for job in STEADY)

        await eventually(sent)

    def sent_since(self, path: str, moment: datetime) -> list[Request]:
        """List what arrived at a path for instants after a moment."""
        return [
            request
            for request in arrivals(self.server, path)
            if instant(request.headers["x-scheduler-scheduled-at"]) > moment
        ]


# A change of a job that was not told would go unnoticed for half of this.
_FAR_SIGHTED = {"MYSCHEDULER_READ_AHEAD_SECONDS": "30"}


@dataclass
class Crash:
    """A leader that was killed while it sent, and what followed."""

    execution_id: str
    killed: str
    gained_seconds: float
    sent_seconds: float


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    brood: Brood, postgres: MortalPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Start three replicas at once on an empty database; each is given a job."""
    folder = tmp_path_factory.mktemp("replicas")
    target = Target()
    async with (
        RawServer((target,)) as server,
        open_replicas(folder, postgres, brood, *[_FAR_SIGHTED] * 3) as replicas,
    ):
        await replicas.start()
        for job_id, replica in zip(STEADY, replicas.all, strict=True):
            await create(replica.client, job_id, server.url(f"/{job_id}"), **EVERY_SECOND)
        yield World(replicas, server, target)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crash(world: World) -> Crash:
    """Kill the leader while it sends, and wait for the next one's first run."""
    leader = await world.whole()
    await create(leader.client, "orphan", world.server.url("/hold-1"), timeout_sec=1, **NEVER)
    execution_id = await trigger(leader.client, "orphan")
    await eventually(lambda: arrivals(world.server, "/hold-1"), every=0.005)
    [row] = await world.replicas.rows("SELECT owner FROM executions WHERE id = $1", execution_id)
    killed_at, clock = CLOCK.now(), time.monotonic()
    await leader.kill()
    await world.replicas.new_leader(other_than=leader)
    gained = time.monotonic() - clock
    await eventually(lambda: world.sent_since("/steady-0", killed_at))
    return Crash(execution_id, row["owner"], gained, time.monotonic() - clock)


async def test_an_empty_database_is_migrated_once(world: World):
    """Of three replicas that start together one migrates; jobs made through any of them run."""
    assert sum(one.told("database.migrated") for one in world.replicas.all) == 1
    await world.ticked()


async def test_one_leads_and_shows_it(world: World):
    """The lock is in pg_locks once, the leader's health has its passes, the others stand by."""
    leader = await world.whole()
    held = await world.replicas.rows(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert len(held) == 1
    assert "lag" in await leader.checks()
    for other in world.replicas.all:
        if other is not leader:
            assert "standing by" in (await other.checks())["scheduler"]["detail"]
            assert other.told("Lock not acquired, standing by") == 1


async def test_health_counts_how_the_lead_came_and_went(world: World):
    """Each replica's health says how often it won and lost the lead, and since when it leads."""
    leader = await world.whole()
    await world.ticked()
    for replica in world.replicas.all:
        health = (await replica.client.get("/health")).json()
        found = health["leadership"]
        assert health["leading"] is (replica is leader)
        assert found["terms_won"] == found["terms_lost"] + (replica is leader)
        assert found["takeovers"] <= found["terms_won"]
        assert (found["leading_since"] is not None) is (replica is leader)
    [row] = await world.replicas.rows("SELECT since_us FROM leadership")
    found = (await leader.client.get("/health")).json()["leadership"]
    assert found["terms_won"] == leader.told("leader.gained")
    since = instant(found["leading_since"])
    assert timedelta(0) <= since - from_us(row["since_us"]) < timedelta(seconds=1)


async def test_each_execution_names_its_replica(world: World):
    """Runs are sent by more than one replica, and each tells by which, as does that one's log."""
    await world.whole()
    pids = {str(one.pid): one for one in world.replicas.all}

    async def senders() -> set[str]:
        rows = await world.replicas.rows(
            "SELECT DISTINCT sent_by FROM executions WHERE status = 'completed'"
        )
        assert all(row["sent_by"] for row in rows)
        return {row["sent_by"].split(":")[1] for row in rows} & set(pids)

    async def several() -> bool:
        for client in [replica.client for replica in world.replicas.all]:
            await trigger(client, STEADY[0])
        return len(await senders()) > 1

    await eventually(several)
    client = world.replicas.all[0].client
    for job in STEADY:
        for row in (await client.get(f"/api/v1/jobs/{job}/executions")).json()["executions"]:
            if row["status"] == "completed":
                sender = pids.get(row["replica"].split(":")[1])
                assert sender is None or sender.told(row["execution_id"])


async def test_a_killed_leader_is_replaced(crash: Crash):
    """After kill -9 of the leader another one ticks within five seconds."""
    _tell("takeover after kill -9", crash.gained_seconds, crash.sent_seconds)
    assert crash.gained_seconds <= 5
    assert crash.sent_seconds <= 5 + 1  # the jobs are due once a second


async def test_a_leader_that_stops_hands_over(world: World):
    """At SIGTERM the lead passes within a second, and the stopped replica ends in order."""
    leader = await world.whole()
    await world.ticked(1)
    asked_at, clock = CLOCK.now(), time.monotonic()
    os.kill(leader.pid, signal.SIGTERM)
    seconds = await _lead_passed(world, leader, asked_at)
    await eventually(lambda: world.sent_since("/steady-0", asked_at))
    _tell("hand-over at SIGTERM", seconds, time.monotonic() - clock)
    assert await leader.ended() == 0
    assert seconds <= HAND_OVER_SECONDS


async def test_an_open_request_delays_no_hand_over(world: World):
    """A leader that stops while a client still sends a request hands over within a second."""
    leader = await world.whole()
    _, writer = await asyncio.open_connection("127.0.0.1", leader.port)
    writer.write(b"POST /api/v1/jobs HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n{")
    await writer.drain()
    await world.ticked(1)
    asked_at = CLOCK.now()
    os.kill(leader.pid, signal.SIGTERM)
    try:
        seconds = await _lead_passed(world, leader, asked_at)
        assert await leader.ended() == 0
    finally:
        writer.transport.abort()
    assert seconds <= HAND_OVER_SECONDS


async def test_an_attempt_under_way_delays_no_hand_over(world: World):
    """A leader that stops while it sends hands over within a second, and ends what it sends."""
    leader = await world.whole()
    await create(leader.client, "held-over", world.server.url("/hold-4"), timeout_sec=5, **NEVER)
    execution_id = await _hold_on(world, leader, "held-over", "/hold-4")
    asked_at = CLOCK.now()
    os.kill(leader.pid, signal.SIGTERM)
    seconds = await _lead_passed(world, leader, asked_at)
    assert leader.is_alive
    assert world.target.open["/hold-4"]
    _tell("hand-over at SIGTERM, an attempt under way", seconds)
    assert await leader.ended() == 0
    assert seconds <= HAND_OVER_SECONDS
    row = await read_execution((await world.replicas.follower()).client, execution_id)
    assert (row["status"], row["reason"], row["attempts"]) == ("failed", "timeout", 1)
    assert row["replica"].split(":")[1] == str(leader.pid)


async def _lead_passed(world: World, leader: Replica, asked_at: datetime) -> float:
    """Wait until another one leads; tell how long after a moment, by what it wrote down."""
    await world.replicas.new_leader(other_than=leader)
    [row] = await world.replicas.rows("SELECT since_us FROM leadership")
    return (from_us(row["since_us"]) - asked_at).total_seconds()


async def _hold_on(world: World, sender: Replica, job_id: str, path: str) -> str:
    """Have a replica send a request that is not answered; give its execution.

    Others may take what is triggered at it; then it is cancelled and tried again.
    """
    while True:
        execution_id = await trigger(sender.client, job_id)
        await eventually(lambda: world.target.open[path])
        if await _sender_pid(world, execution_id) == sender.pid:
            return execution_id
        await sender.client.post(f"/api/v1/executions/{execution_id}/cancel")
        await eventually(lambda: not world.target.open[path])


async def _sender_pid(world: World, execution_id: str) -> int:
    [row] = await world.replicas.rows("SELECT owner FROM executions WHERE id = $1", execution_id)
    return int(row["owner"].split(":")[1])


async def test_a_frozen_leader_is_replaced(world: World):
    """After SIGSTOP of the leader another ticks within 15 s; let go on, it follows, told once."""
    leader = await world.whole()
    others = [one for one in world.replicas.all if one is not leader]
    lost, gained = leader.told("leader.lost"), sum(one.told("leader.gained") for one in others)
    stopped_at, clock = CLOCK.now(), time.monotonic()
    leader.freeze()
    try:
        new = await world.replicas.new_leader(other_than=leader)
        seconds = time.monotonic() - clock
        await eventually(lambda: world.sent_since("/steady-0", stopped_at + timedelta(seconds=1)))
    finally:
        leader.thaw()
    _tell("takeover after SIGSTOP", seconds)
    assert seconds <= FROZEN_SECONDS
    await eventually(lambda: leader.told("leader.lost") == lost + 1)
    await eventually(leader.is_ready)
    await world.ticked()
    healths = [(await replica.client.get("/health")).json() for replica in world.replicas.all]
    assert [health["leading"] for health in healths] == [one is new for one in world.replicas.all]
    assert sum(health["leadership"]["cut_offs"] for health in healths) >= 1
    assert leader.told("leader.lost") == lost + 1
    assert sum(one.told("leader.gained") for one in others) == gained + 1
    proof = (await new.client.get("/api/v1/ledger/verify")).json()
    assert (proof["unaccounted_count"], proof["duplicates_count"]) == (0, 0)


async def test_a_stop_in_good_order_is_noted(world: World):
    """A leader's stop is told as one, so that what follows is not told as a crash."""
    leader = await world.whole()
    assert await leader.terminate() == 0
    assert await world.replicas.rows("SELECT 1 FROM service_events WHERE kind = 'stopped'")


async def test_jobs_made_elsewhere_are_due_at_once(world: World):
    """Jobs made through a follower and due half a second later are sent on time, each of them."""
    await world.whole()
    follower = await world.replicas.follower()
    for number in range(5):
        path, due = f"/soon-{number}", CLOCK.now() + timedelta(seconds=0.5)
        await create(
            follower.client, path[1:], world.server.url(path),
            schedule_type="date", run_at=due.isoformat(),
        )  # fmt: skip
        [request] = await eventually(partial(arrivals, world.server, path))
        assert arrived_at(request) - due < timedelta(seconds=1)


async def test_an_edit_elsewhere_holds_at_once(world: World):
    """A job replaced through a follower is sent by its new definition and no more by the old."""
    await world.whole()
    follower = await world.replicas.follower()
    old, new = world.server.url("/edit-old"), world.server.url("/edit-new")
    await create(follower.client, "edited", old, **EVERY_SECOND)
    await eventually(lambda: arrivals(world.server, "/edit-old"))
    await create(follower.client, "edited", new, **EVERY_SECOND, replace_existing=True)
    answered_at = CLOCK.now()
    await eventually(lambda: len(world.sent_since("/edit-new", answered_at)) >= 2, seconds=4)
    assert world.sent_since("/edit-old", answered_at) == []


async def test_an_edit_elsewhere_makes_due_at_once(world: World):
    """A job that a follower is told to run in half a second instead of in 2099 is on time."""
    await world.whole()
    follower = await world.replicas.follower()
    for number in range(3):
        path = f"/sooner-{number}"
        url = world.server.url(path)
        await create(follower.client, path[1:], url, **NEVER)
        due = CLOCK.now() + timedelta(seconds=0.5)
        await create(
            follower.client, path[1:], url,
            schedule_type="date", run_at=due.isoformat(), replace_existing=True,
        )  # fmt: skip
        [request] = await eventually(partial(arrivals, world.server, path))
        assert arrived_at(request) - due < timedelta(seconds=1)


async def test_an_edit_elsewhere_makes_due_no_more(world: World):
    """A job that is due in a second, which the leader knows, and is put off has no run then."""
    leader = await world.whole()
    follower = await world.replicas.follower()
    url, due = world.server.url("/later"), CLOCK.now() + timedelta(seconds=1.5)
    await create(leader.client, "later", url, schedule_type="date", run_at=due.isoformat())
    await create(follower.client, "later", url, **NEVER, replace_existing=True)
    await until(due)
    await world.ticked()
    assert await world.replicas.rows("SELECT 1 FROM executions WHERE job_id = 'later'") == []
    assert arrivals(world.server, "/later") == []


async def test_a_job_resumed_elsewhere_is_due_at_once(world: World):
    """A job that is resumed through a follower is on time from its next instant on."""
    await world.whole()
    follower = await world.replicas.follower()
    await create(follower.client, "again", world.server.url("/again"), **EVERY_SECOND)
    for action in ("pause", "resume"):
        answer = await follower.client.post(f"/api/v1/jobs/again/{action}")
        assert answer.status_code == 200, answer.text
    resumed_at = CLOCK.now()
    [request, *_] = await eventually(lambda: world.sent_since("/again", resumed_at))
    assert arrived_at(request) - resumed_at < timedelta(seconds=2)
    await follower.client.delete("/api/v1/jobs/again")


@pytest.mark.parametrize("action", ["pause", "delete"])
async def test_a_pause_or_deletion_elsewhere_holds_at_once(world: World, action: str):
    """A job paused or deleted through a follower is due no more."""
    await world.whole()
    follower = await world.replicas.follower()
    path = f"/{action}d"
    await create(follower.client, path[1:], world.server.url(path), **EVERY_SECOND)
    await eventually(lambda: arrivals(world.server, path))
    jobs = f"/api/v1/jobs{path}"
    asked = follower.client.post(f"{jobs}/pause") if action == "pause" else None
    answer = await (asked or follower.client.delete(jobs))
    assert answer.status_code == 200, answer.text
    answered_at = CLOCK.now()
    await world.ticked()
    assert world.sent_since(path, answered_at) == []


async def test_a_run_is_cancelled_through_another_replica(world: World):
    """A cancel that another replica hears closes the connection at once, and no attempt follows."""
    await world.whole()
    execution_id, other = await _hold(world, "held", "/hold-2")
    answer = await other.client.post(f"/api/v1/executions/{execution_id}/cancel")
    assert answer.status_code == 200, answer.text
    await eventually(lambda: not world.target.open["/hold-2"], seconds=1)
    row = await wait_for_end(other.client, "held")
    assert (row["status"], row["attempts"]) == ("cancelled", 1)


async def test_a_cancel_through_another_replica_is_confirmed(world: World):
    """The answer of a cancel says that the run has ended, whichever replica is asked."""
    await world.whole()
    execution_id, other = await _hold(world, "held-too", "/hold-3")
    answer = await other.client.post(f"/api/v1/executions/{execution_id}/cancel")
    assert answer.json()["status"] == "cancelled"


async def _hold(world: World, job_id: str, path: str) -> tuple[str, Replica]:
    """Have a request under way; give its execution and a replica that does not send it."""
    client = world.replicas.all[0].client
    await create(client, job_id, world.server.url(path), **NEVER)
    execution_id = await trigger(client, job_id)
    await eventually(lambda: world.target.open[path])
    pid = await _sender_pid(world, execution_id)
    return execution_id, next(one for one in world.replicas.all if one.pid != pid)


async def test_a_job_runs_once_at_a_time_over_all_replicas(world: World):
    """Runs of a job with ``max_instances`` 1 that three replicas could take never overlap."""
    await world.whole()
    clients = [replica.client for replica in world.replicas.all]
    await create(
        clients[0], "alone", world.server.url("/slow-1"), overlap_policy="queue_all", **NEVER
    )
    await asyncio.gather(*(trigger(client, "alone") for client in clients * 2))
    await eventually(lambda: len(arrivals(world.server, "/slow-1")) == 6)
    assert world.target.peak["/slow-1"] == 1


async def test_a_restart_of_the_database_is_survived(world: World):
    """While PostgreSQL is away changes get 503; then all goes on, and nothing due is missing."""
    leader = await world.whole()
    postgres = world.replicas.postgres
    postgres.end(signal.SIGINT)
    job = {"job_id": "refused", "target_url": world.server.url("/refused"), **NEVER}
    for replica in world.replicas.all:
        answer = await replica.client.post("/api/v1/jobs", json=job)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert (await replica.client.get("/health/ready")).status_code == 503
        assert (await replica.client.get("/health/live")).status_code == 200
    clock = time.monotonic()
    await postgres.revive()
    await world.ticked()
    _tell("two ticks after the database came back", time.monotonic() - clock)
    for replica in world.replicas.all:
        await eventually(replica.is_ready)
    proof = (await leader.client.get("/api/v1/ledger/verify")).json()
    assert (proof["proven"], proof["unaccounted_count"], proof["duplicates_count"]) == (True, 0, 0)


async def test_a_stalled_database_is_told_within_seconds(world: World):
    """A replica whose connections carry nothing any more answers 503, and readiness fails."""
    await world.whole()
    follower = await world.replicas.follower()
    job = {"job_id": "stalled", "target_url": world.server.url("/stalled"), **NEVER}
    follower.proxy.stall()
    try:
        ready = await follower.client.get("/health/ready", timeout=5)
        answer = await follower.client.post("/api/v1/jobs", json=job)
    finally:
        follower.proxy.resume()
        follower.proxy.cut()
    assert (ready.status_code, answer.status_code) == (503, 503)
    await eventually(follower.is_ready)


async def test_what_a_killed_replica_was_sending_is_rescued(world: World, crash: Crash):
    """A run whose worker died is sent again under its id once its lease is over, told as lost."""
    client = (await world.whole()).client
    await eventually(lambda: len(arrivals(world.server, "/hold-1")) == 2)
    row = await wait_for_end(client, "orphan")
    assert (row["status"], row["attempts"]) == ("completed", 2)
    detail = await read_execution(client, crash.execution_id)
    assert [one["outcome"] for one in detail["attempt_list"]] == ["lost", "response"]
    lost, sent = (one["replica"] for one in detail["attempt_list"])
    assert (lost, row["replica"]) == (crash.killed, sent)
    assert sent != lost


HAND_OVER_SECONDS = 1.0
# A leader is cut off after ten seconds of silence; its standby looks every half second.
FROZEN_SECONDS = 15.0


def _tell(what: str, *seconds: float) -> None:
    sys.stdout.write(f"\n{what}: {', '.join(f'{one:.2f} s' for one in seconds)}\n")
