"""The proof of the ledger through the API, over the real engine."""

import time
from typing import Any

import pytest

from tests.integration.api.conftest import Client
from tests.support.homes import Home
from tests.support.service import eventually, open_api, settings_for

VERIFY = "/api/v1/ledger/verify"
EVERY_SECOND = {"schedule_type": "interval", "interval": {"seconds": 1}}


async def verify(client: Client, **query: str) -> dict[str, Any]:
    answer = await client.http.get(VERIFY, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def has_rows(client: Client, job_id: str, number: int) -> None:
    async def enough() -> bool:
        accounted: int = (await verify(client, job_id=job_id))["accounted"]
        return accounted >= number

    await eventually(enough, every=0.1)


async def live_a_life(client: Client, job_id: str) -> None:
    """Create a job, let it run, pause, edit, resume, delete and create it again."""
    assert (await client.create(job_id=job_id, **EVERY_SECOND)).status_code == 200
    await has_rows(client, job_id, 2)
    assert (await client.act(job_id, "pause")).status_code == 200
    paused = (await verify(client, job_id=job_id))["accounted"]
    later: Any = {"schedule_type": "cron", "cron": {"second": "*"}, "replace_existing": True}
    await stay_paused(1.5)
    assert (await client.create(job_id=job_id, **later)).status_code == 200
    assert (await client.act(job_id, "resume")).status_code == 200
    await has_rows(client, job_id, paused + 3)
    assert (await client.http.delete(f"/api/v1/jobs/{job_id}")).status_code == 200
    assert (await client.create(job_id=job_id, **EVERY_SECOND)).status_code == 200
    await has_rows(client, job_id, paused + 4)
    assert (await client.act(job_id, "pause")).status_code == 200


async def stay_paused(seconds: float) -> None:
    """Let a pause last, so that instants fall into it."""
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > seconds)


async def test_a_job_s_whole_life_is_accounted_for(home: Home):
    """Run, paused, edited, resumed, deleted, created anew: every instant has its one row."""
    async with open_api(settings_for(home)) as http:
        client = Client(http)
        await live_a_life(client, "job")
        answer = await verify(client)
    assert answer["proven"] is True
    assert answer["expected"] == answer["accounted"] >= 6
    assert (answer["unaccounted"], answer["duplicates"]) == ([], [])
    assert (answer["jobs"], answer["complete"], answer["next_after"]) == (1, True, None)
    assert answer["revisions"] >= 6
    with home.open_sql() as database:
        ((instants,),) = database.rows("SELECT sum(instant_count) FROM executions")
        ((removed,),) = database.rows(
            "SELECT id FROM executions WHERE instant_count = 1 ORDER BY seq LIMIT 1"
        )
        assert answer["expected"] == instants
        database.rows("DELETE FROM attempts WHERE execution_id = ?", removed)
        database.rows("DELETE FROM executions WHERE id = ?", removed)
    async with open_api(settings_for(home)) as http:
        answer = await verify(Client(http))
    assert (answer["proven"], answer["unaccounted_count"]) == (False, 1)
    (missing,) = answer["unaccounted"]
    assert (missing["job_id"], missing["revision"], missing["count"]) == ("job", 1, 1)
    assert missing["scheduled_for"].endswith("+09:00")


async def test_the_background_proof_is_in_the_readiness(home: Home):
    """The readiness tells the latest proof; one that fails leaves the service ready."""
    async with open_api(settings_for(home, verify_every_seconds=0)) as http:

        async def leads() -> dict[str, Any] | None:
            checks = (await http.get("/health/ready")).json()["checks"]
            found = {check["name"]: check for check in checks}
            return found if "ledger" in found else None

        found = await eventually(leads)
    assert found["ledger"]["required"] is False
    assert found["database"]["required"] is True


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-06-02T00:00:00Z", "to": "2026-06-01T00:00:00Z"}, "to"),
        ({"from": "2026-06-01", "to": "2026-06-01"}, "to"),
        ({"job_id": "x" * 256}, "job_id"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_malformed_span_is_refused(api: Client, query: dict[str, str], parameter: str):
    """A time that cannot be read, and a span that ends before it begins, are named in a 422."""
    answer = await api.http.get(VERIFY, params=query)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", parameter]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unknown_job_is_not_found(api: Client):
    """A job that never was is a 404; a deleted one is proven."""
    answer = await api.http.get(VERIFY, params={"job_id": "none"})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    job_id = await api.stored()
    await api.http.delete(f"/api/v1/jobs/{job_id}")
    assert (await verify(api, job_id=job_id))["proven"] is True


@pytest.mark.asyncio(loop_scope="module")
async def test_the_span_is_told_as_it_was_asked_for(api: Client):
    """The answer repeats the span in the service's zone, and the job to go on behind."""
    answer = await verify(api, **{"from": "2026-06-01T00:00:00Z", "to": "2026-06-02"})
    assert answer["from"] == "2026-06-01T09:00:00+09:00"
    assert answer["to"] == "2026-06-02T00:00:00+09:00"
    assert (await verify(api))["from"] is None
