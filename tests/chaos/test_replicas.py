"""Three replicas on one PostgreSQL in a storm: killed, stopped, restarted, cut off, stalled.

The whole storm (at least 100 faults over 20,000 runs; some ten minutes) is a sweep::

    pytest -m sweep -s --timeout=3600 tests/chaos/test_replicas.py

``MYSCHEDULER_STORM_FAULTS`` and ``MYSCHEDULER_STORM_SEED`` make it shorter and another one. ``make
test`` has a slice of it: one fault of each kind.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from app.domain.clock import to_us
from tests.chaos.arrivals import (
    Row,
    ask_rows,
    duplicates,
    find_contradictions,
    find_gaps,
    whole,
)
from tests.chaos.storm import Client, Target, steady_job
from tests.e2e.world import CLOCK, instant
from tests.support.databases import DatabaseKind
from tests.support.raw_server import RawServer
from tests.support.replicas import Brood, Replica, Replicas, mortal_postgres, open_replicas
from tests.support.service import eventually

pytestmark = pytest.mark.only_on(DatabaseKind.POSTGRES, because="replicas share a server")

SECOND_US = 1_000_000
JOBS = 40
# A stopped leader is replaced within 15 seconds; only one that stays stopped longer shows it.
FROZEN_SECONDS = (3.0, 8.0, 14.0, 17.0)
TAKEOVER_SECONDS = {
    "kill": 5.0,
    "terminate": 2.0,
    "freeze": 15.0,
    "freeze_in_tick": 15.0,
    "stall": 15.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How hard it blows: faults (at least one of each kind), runs that arrived.

    ``fields`` is what all jobs have beside the rest.
    """

    faults: int
    runs: int
    seed: int
    fields: Mapping[str, object] = field(default_factory=dict)


FAULTS = int(os.environ.get("MYSCHEDULER_STORM_FAULTS", "100"))
SEED = int(os.environ.get("MYSCHEDULER_STORM_SEED", "1"))
# Three leaders that hang are most of its time, eleven seconds each. An attempt is lost when its
# lease is over, and that begins with its timeout.
SLICE = pytest.param(
    Size(faults=0, runs=300, seed=1, fields={"timeout_sec": 3}),
    marks=[pytest.mark.slow, pytest.mark.timeout(300)],
    id="slice",
)
WHOLE = pytest.param(
    Size(faults=FAULTS, runs=200 * FAULTS, seed=SEED), marks=pytest.mark.sweep, id="whole"
)


class AnyReplica(httpx.AsyncBaseTransport):
    """Sends each request to one of the replicas, by chance."""

    def __init__(self, replicas: Replicas, chance: random.Random) -> None:
        self._ports = [replica.port for replica in replicas.all]
        self._chance = chance
        self._transport = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it."""
        request.url = request.url.copy_with(port=self._chance.choice(self._ports))
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._transport.aclose()


class CarefulClient(Client):
    """A client that makes only changes which repeat under an Idempotency-Key.

    A stopped replica takes in a request that its client has given up, and does it when it goes on.
    """

    async def _change(self, job_id: str, known: object) -> None:
        if self.chance.random() < 0.5:
            await self._post(job_id)
            self.answers["edit"] += 1
            return
        answer = await self._ask("POST", f"/api/v1/jobs/{job_id}/trigger", key=self._key())
        self._expect(answer, 200)
        self.triggered[answer.json()["execution_id"]] = job_id
        self.answers["trigger"] += 1


@dataclass(slots=True, kw_only=True)
class Storm:
    """One fault at a time, by chance: first one of each kind, those at a process at the leader.

    Of those that follow, every second one at a process is at the leader.
    """

    replicas: Replicas
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    takeovers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    aims: bool = True

    async def blow(self, *, faults: int, enough: Callable[[], bool]) -> None:
        """Do at least so many, and on until there is enough; leave all running."""
        kinds = {
            "kill": self._kill, "freeze": self._freeze, "freeze_in_tick": self._freeze_in_tick,
            "terminate": self._terminate, "cut": self._cut, "stall": self._stall,
            "restart": self._restart, "crash": self._crash,
        }  # fmt: skip
        for kind in self.chance.sample(list(kinds), len(kinds)):
            await asyncio.sleep(self.chance.uniform(0, 1.0))
            self.faults[kind] += 1
            await kinds[kind]()
        self.aims = False
        while self.faults.total() < faults or not enough():
            await asyncio.sleep(self.chance.uniform(0.5, 3.0))
            kind = self.chance.choice(list(kinds))
            self.faults[kind] += 1
            await kinds[kind]()
        await self.replicas.start()

    async def _victim(self) -> tuple[Replica, bool]:
        """Choose a replica; tell whether it leads."""
        if self.aims:
            return await self.replicas.new_leader(), True
        leader = await self.replicas.leader()
        if leader is not None and self.chance.random() < 0.5:
            return leader, True
        victim = self.chance.choice(self.replicas.all)
        return victim, victim is leader

    def _frozen_seconds(self) -> float:
        return FROZEN_SECONDS[-1] if self.aims else self.chance.choice(FROZEN_SECONDS)

    async def _watch(self, kind: str, victim: Replica, *, leads: bool, seconds: float) -> None:
        """Wait for a victim's successor, if it led; note how long that took."""
        if not leads:
            await asyncio.sleep(self.chance.uniform(0, seconds))
            return
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            leader = await self.replicas.leader()
            if leader is not None and leader is not victim:
                self.takeovers[kind].append(time.monotonic() - began)
                return
            await asyncio.sleep(0.02)
        if seconds > TAKEOVER_SECONDS[kind]:
            self.takeovers[kind].append(float("inf"))

    async def _kill(self) -> None:
        victim, leads = await self._victim()
        await victim.kill()
        await self._watch("kill", victim, leads=leads, seconds=6)
        await victim.start()

    async def _terminate(self) -> None:
        victim, leads = await self._victim()
        os.kill(victim.pid, signal.SIGTERM)
        await self._watch("terminate", victim, leads=leads, seconds=6)
        assert await victim.ended() == 0
        await victim.start()

    async def _freeze(self) -> None:
        victim, leads = await self._victim()
        victim.freeze()
        seconds = self._frozen_seconds()
        await self._watch("freeze", victim, leads=leads, seconds=seconds)
        victim.thaw()

    async def _freeze_in_tick(self) -> None:
        leader = await self.replicas.new_leader()
        if await self.replicas.freeze_in_tick(leader):
            await self._watch("freeze_in_tick", leader, leads=True, seconds=FROZEN_SECONDS[-1])
            leader.thaw()

    async def _cut(self) -> None:
        for victim in self.chance.sample(self.replicas.all, self.chance.randint(1, 3)):
            victim.proxy.cut()

    async def _stall(self) -> None:
        victim, leads = await self._victim()
        victim.proxy.stall()
        seconds = self._frozen_seconds()
        await self._watch("stall", victim, leads=leads, seconds=seconds)
        victim.proxy.resume()
        if self.chance.random() < 0.5:
            victim.proxy.cut()

    async def _restart(self) -> None:
        await self._end_database(signal.SIGINT)

    async def _crash(self) -> None:
        await self._end_database(signal.SIGKILL)

    async def _end_database(self, number: int) -> None:
        postgres = self.replicas.postgres
        await asyncio.to_thread(postgres.end, number)
        await asyncio.sleep(self.chance.uniform(0, 3))
        await postgres.revive()


@pytest.mark.parametrize("size", [SLICE, WHOLE])
async def test_a_storm_over_replicas_loses_and_doubles_nothing(tmp_path: Path, size: Size):
    """Every due instant has one row, every arrival a row; takeovers keep their times."""
    chance = random.Random(size.seed)
    folder = tmp_path / f"storm_{size.seed}"
    folder.mkdir()
    with mortal_postgres() as postgres, Brood(tmp_path) as brood:
        async with (
            RawServer((Target(size.seed),)) as target,
            open_replicas(folder, postgres, brood, {}, {}, {}) as replicas,
            httpx.AsyncClient(
                transport=AnyReplica(replicas, chance), base_url="http://127.0.0.1", timeout=3
            ) as http,
        ):
            await replicas.start()
            first = await _create_steady(replicas, target, size)
            client = CarefulClient(http=http, target=target, chance=chance, fields=size.fields)
            storm = Storm(replicas=replicas, chance=chance)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(client.run(stop))
                await storm.blow(
                    faults=size.faults,
                    enough=lambda: len(target.requests) >= size.runs and bool(client.triggered),
                )
                stop.set()
            try:
                present = await _calm_down(replicas, client, [*first, *client.jobs])
            finally:
                rows = await ask_rows(replicas.rows)
                _print_figures(storm, client, rows, target)
            _judge(rows, target, client, first)
            assert find_gaps(rows, first, period_us=SECOND_US, until_us=to_us(present)) == []
            _judge_takeovers(storm)
            proof = (await replicas.all[0].client.get("/api/v1/ledger/verify")).json()
            assert proof["proven"], proof


async def _create_steady(replicas: Replicas, target: RawServer, size: Size) -> dict[str, int]:
    """Create the jobs that nobody changes, through all replicas; tell when each begins."""
    first = {}
    for number in range(JOBS):
        job = {**steady_job(number, target), **size.fields}
        answer = await replicas.all[number % 3].client.post("/api/v1/jobs", json=job)
        assert answer.status_code == 200, answer.text
        first[job["job_id"]] = to_us(instant(answer.json()["next_run_time"]))
    return first


async def _calm_down(replicas: Replicas, client: Client, job_ids: Iterable[str]) -> datetime:
    """Wait until all are ready and at the present, let no job go on, and all runs end.

    Returns the moment up to which every due instant must have its row.
    """
    present = CLOCK.now()
    for replica in replicas.all:
        await eventually(replica.is_ready, seconds=60)
    http = replicas.all[0].client

    async def came_to_the_present() -> bool:
        since = (await http.get("/api/v1/ledger/verify")).json()["overdue_since"]
        return since is None or instant(since) > present

    await eventually(came_to_the_present, seconds=120, every=0.5)
    await client.check()
    for job_id in job_ids:
        answer = await http.post(f"/api/v1/jobs/{job_id}/pause")
        assert answer.status_code == 200, answer.text

    async def all_ended() -> bool:
        unended = "SELECT 1 FROM executions WHERE status IN ('queued', 'running', 'retrying')"
        return not await replicas.rows(unended)

    await eventually(all_ended, seconds=120, every=0.5)
    return present


def _judge(rows: list[Row], target: RawServer, client: Client, first: dict[str, int]) -> None:
    """Hold the tables against the arrivals and the client's memory."""
    assert find_contradictions(rows, whole(target.requests)) == []

    # A claim that is given back unsent is an attempt too, so what arrived is counted.
    arrived = Counter(execution_id for execution_id, _ in whole(target.requests).elements())
    once = [row for row in rows if row.job_id in first and _at_most_once(row.job_id)]
    assert [row for row in once if arrived[row.id] > 1] == []
    manual = {row.id: row.job_id for row in rows if row.cause == "manual"}
    assert manual == client.triggered
    assert manual != {}


def _at_most_once(job_id: str) -> bool:
    return int(job_id.partition("-")[2]) % 5 == 4


def _judge_takeovers(storm: Storm) -> None:
    """Each kind of fault at the leader was there, and its successor came in time."""
    assert set(storm.takeovers) == set(TAKEOVER_SECONDS)
    late = {
        kind: [one for one in taken if one > TAKEOVER_SECONDS[kind]]
        for kind, taken in storm.takeovers.items()
    }
    assert not any(late.values()), late


def _print_figures(storm: Storm, client: Client, rows: list[Row], target: RawServer) -> None:
    sent = whole(target.requests)
    figures = {
        "faults": dict(storm.faults),
        "takeovers (s)": {
            kind: [round(one, 2) for one in sorted(taken)]
            for kind, taken in storm.takeovers.items()
        },
        "rows": len(rows),
        "instants": sum(row.instant_count for row in rows),
        "ends": dict(Counter(f"{row.status}/{row.reason or '-'}" for row in rows)),
        "attempts": dict(Counter(outcome for row in rows for outcome, _ in row.outcomes)),
        "arrivals": sum(sent.values()),
        "arrivals beyond the first of an execution": duplicates(sent),
        "requests answered": dict(client.answers),
        "requests unanswered": client.unanswered,
        "deadlocks": _deadlocks(storm.replicas.postgres.log_text()),
    }
    sys.stdout.writelines(f"\n{name}: {value}" for name, value in figures.items())
    sys.stdout.write("\n")


def _deadlocks(log: str) -> str:
    """Give what the server said of each deadlock: who waited for whom, with which statement."""
    _, *told = log.split("deadlock detected")
    return f"{len(told)}{''.join(one[:1500] for one in told[:3])}"
