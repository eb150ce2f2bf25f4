"""A storm of kills over a working service, and a client that remembers what it was told.

``Storm`` kills and restarts; ``Client`` changes jobs meanwhile and repeats each request until it is
answered, under one Idempotency-Key where the API takes one, as its documentation advises.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.nursery import CrashingService
from tests.support.raw_server import Exchange, RawServer, reply
from tests.support.service import eventually

_OK = reply("ok")
_UNWELL = reply(status="503 Service Unavailable")
# What a run may wait for when the process is killed: its answer, its retry, its turn.
KINDS: tuple[dict[str, Any], ...] = (
    {"catch_up": "all", "overlap_policy": "allow"},
    {"catch_up": "all", "max_retries": 5, "retry_backoff_sec": 0.3, "overlap_policy": "allow"},
    {"catch_up": "latest"},
    {"catch_up": "none"},
    {"catch_up": "all", "on_crash": "fail", "overlap_policy": "allow"},
)
PATHS = ("quick", "flaky", "slow", "quick", "once")


class Target:
    """Answers by path: at once, after a while, or with a failure one time in four."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    async def __call__(self, exchange: Exchange) -> None:
        path = exchange.request.line.split()[1]
        if path == b"/flaky" and self._chance.random() < 0.25:
            await _UNWELL(exchange)
            return
        if path in (b"/slow", b"/once") and await exchange.pause(0.1):
            return
        await _OK(exchange)


def steady_job(number: int, target: RawServer) -> dict[str, Any]:
    """Describe a job that runs every second and that nobody changes."""
    kind = number % len(KINDS)
    return {
        "job_id": f"steady-{number}",
        "target_url": target.url(f"/{PATHS[kind]}"),
        "schedule_type": "interval",
        "interval": {"seconds": 1},
        "misfire_grace_time": 0.5,
        **KINDS[kind],
    }


@dataclass(slots=True)
class Known:
    """What the last answer about a job said."""

    name: str
    paused: bool = False


@dataclass(slots=True, kw_only=True)
class Client:
    """Changes jobs of its own at random, one request at a time."""

    http: httpx.AsyncClient
    target: RawServer
    chance: random.Random
    jobs: dict[str, Known] = field(default_factory=dict)
    triggered: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    # What its jobs have beside the rest.
    fields: Mapping[str, object] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        while not stop.is_set():
            await self._look(f"wild-{self.chance.randrange(20)}")
            await asyncio.sleep(0.01)

    async def check(self) -> None:
        """Compare all that was acknowledged with what is there."""
        listed = (await self.http.get("/api/v1/jobs", params={"limit": 1000})).json()["jobs"]
        found = {
            job["job_id"]: Known(job["name"], job["next_run_time"] is None)
            for job in listed
            if job["job_id"].startswith("wild-")
        }
        assert found == self.jobs

    async def _look(self, job_id: str) -> None:
        """Compare a job with what was acknowledged, then change it."""
        answer = await self._ask("GET", f"/api/v1/jobs/{job_id}")
        known = self.jobs.get(job_id)
        if known is None:
            assert answer.status_code == 404, answer.text
            await self._post(job_id)
            self.answers["create"] += 1
            return
        assert answer.status_code == 200, answer.text
        job = answer.json()
        assert Known(job["name"], job["next_run_time"] is None) == known
        await self._change(job_id, known)

    async def _change(self, job_id: str, known: Known) -> None:
        action = self.chance.choice(("edit", "pause", "resume", "trigger", "trigger", "delete"))
        path = f"/api/v1/jobs/{job_id}"
        match action:
            case "edit":
                await self._post(job_id)
            case "pause" | "resume":
                self._expect(await self._ask("POST", f"{path}/{action}"), 200)
                known.paused = action == "pause"
            case "delete":
                # Found gone: a request that was not answered had been heard.
                self._expect(await self._ask("DELETE", path), 200, 404)
                del self.jobs[job_id]
            case _:
                key = self._key()
                answer = await self._ask("POST", f"{path}/trigger", key=key)
                self._expect(answer, 200)
                self.triggered[answer.json()["execution_id"]] = job_id
        self.answers[action] += 1

    async def _post(self, job_id: str) -> None:
        """Create a job, or replace it with another period; a paused one stays paused."""
        name = f"revision {sum(self.answers.values())}"
        seconds = self.chance.choice((1, 1, 2, 3))
        job = {
            "job_id": job_id, "name": name, "target_url": self.target.url("/quick"),
            "schedule_type": "interval", "interval": {"seconds": seconds},
            "replace_existing": job_id in self.jobs, **self.fields,
        }  # fmt: skip
        answer = await self._ask("POST", "/api/v1/jobs", key=self._key(), json=job)
        self._expect(answer, 200)
        self.jobs.setdefault(job_id, Known(name)).name = name

    def _key(self) -> str:
        return f"{self.chance.getrandbits(64):x}"

    def _expect(self, answer: httpx.Response, *statuses: int) -> None:
        assert answer.status_code in statuses, answer.text

    async def _ask(
        self, method: str, path: str, *, key: str | None = None, json: object = None
    ) -> httpx.Response:
        """Ask until there is an answer; a service that stops or starts is asked again."""
        headers = {} if key is None else {"Idempotency-Key": key}
        while True:
            try:
                answer = await self.http.request(method, path, json=json, headers=headers)
            except httpx.TransportError:
                self.unanswered += 1
                await asyncio.sleep(0.02)
                continue
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.02)


@dataclass(slots=True, kw_only=True)
class Storm:
    """Kills and starts again.

    One kill in five meets a start that is not finished; after one in four nothing runs for a while.
    """

    service: CrashingService
    chance: random.Random
    kills: int = 0

    async def blow(self, *, kills: int, enough: Any) -> None:
        """Kill at least so often, and on until there is enough; leave the service running."""
        while self.kills < kills or not enough():
            await asyncio.sleep(self.chance.uniform(0.2, 2.0))
            await self.service.kill()
            self.kills += 1
            if self.kills % 4 == 0:
                await asyncio.sleep(2.5)
            while self.chance.random() < 0.2:
                self.service.begin()
                await asyncio.sleep(self.chance.uniform(0.0, 0.4))
                await self.service.kill()
                self.kills += 1
            self.service.begin()
            await eventually(self.service.is_ready)
            assert _left_running(self.service.home) == 0


def _left_running(home: Home) -> int:
    """Count the rows that are running in the name of a process that is gone.

    On PostgreSQL they go on until their leases are over, and the storm blows on.
    """
    if home.kind is DatabaseKind.POSTGRES:
        return 0
    ((count,),) = home.rows(
        "SELECT count(*) FROM executions WHERE status = 'running'"
        " AND fence < (SELECT term FROM leadership)"
    )
    return int(count)
