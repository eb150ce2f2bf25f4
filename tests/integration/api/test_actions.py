"""Pause, resume, trigger, delete, and the history they leave."""

import pytest
import pytest_asyncio

from app.domain.catalogue import reason_entry
from app.domain.execution import Reason
from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target():
    """Answer every request with 200."""
    async with RawServer((reply(),)) as server:
        yield server


async def test_pausing(api):
    """Pausing takes the next run away; pausing a paused job is 200 as well."""
    job_id = await api.stored()
    for _ in range(2):
        answer = await api.act(job_id, "pause")
        assert (answer.status_code, answer.json()) == (200, {"job_id": job_id, "status": "paused"})
    job = await api.info(job_id)
    assert (job["status"], job["next_run_time"]) == ("paused", None)


async def test_resuming(api):
    """Resuming gives the next run back; resuming a running job is 200 as well."""
    job_id = await api.stored()
    before = await api.info(job_id)
    await api.act(job_id, "pause")
    for _ in range(2):
        answer = await api.act(job_id, "resume")
        assert (answer.status_code, answer.json()) == (200, {"job_id": job_id, "status": "resumed"})
    assert await api.info(job_id) == before


async def test_idempotent_actions_change_nothing(api):
    """A second pause is no change: the revision stays."""
    job_id = await api.stored()
    await api.act(job_id, "pause")
    revision = (await api.get(f"/{job_id}"))["revision"]
    await api.act(job_id, "pause")
    assert (await api.get(f"/{job_id}"))["revision"] == revision


async def test_a_trigger_is_an_extra_run(api, target):
    """A trigger runs the job once, recorded like any run, and moves nothing in the schedule."""
    job_id = await api.stored(target_url=target.url())
    before = await api.info(job_id)
    answer = await api.act(job_id, "trigger")
    assert answer.status_code == 200
    assert answer.json()["status"] == "triggered"
    execution = (await api.finished(job_id))[0]
    assert execution["execution_id"] == answer.json()["execution_id"]
    assert (execution["cause"], execution["status"]) == ("manual", "completed")
    assert await api.info(job_id) == {**before, "execution_count": 1}


async def test_three_triggers_are_three_runs(api, target):
    """Three triggers are three runs, though one instance runs at a time."""
    job_id = await api.stored(target_url=target.url())
    ids = {(await api.act(job_id, "trigger")).json()["execution_id"] for _ in range(3)}
    history = await api.finished(job_id, 3)
    assert {execution["execution_id"] for execution in history} == ids
    assert [execution["status"] for execution in history] == ["completed"] * 3
    assert (await api.info(job_id))["execution_count"] == 3


async def test_a_trigger_on_a_paused_job(api, target):
    """A paused job runs when triggered, and stays paused."""
    job_id = await api.stored(target_url=target.url())
    await api.act(job_id, "pause")
    assert (await api.act(job_id, "trigger")).status_code == 200
    assert (await api.finished(job_id))[0]["status"] == "completed"
    job = await api.info(job_id)
    assert (job["status"], job["next_run_time"]) == ("paused", None)


async def test_a_completed_job(api, target):
    """A date job that has fired is kept and listed as completed, and runs again when triggered."""
    run_at = (await api.get("/" + await api.stored()))["created_at"]
    job_id = await api.stored(schedule_type="date", run_at=run_at, target_url=target.url())
    await api.finished(job_id)
    job = await api.info(job_id)
    assert (job["status"], job["next_run_time"]) == ("completed", None)
    assert (await api.act(job_id, "trigger")).status_code == 200
    assert len(await api.finished(job_id, 2)) == 2
    assert await api.info(job_id) == {**job, "execution_count": 2}
    for action in ("pause", "resume"):
        assert (await api.act(job_id, action)).status_code == 200
    assert (await api.info(job_id))["status"] == "completed"


async def test_actions_on_a_deleted_job(api):
    """A deleted job is 404 for every action, and for a second deletion."""
    job_id = await api.stored()
    answer = await api.http.delete(f"/api/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"job_id": job_id, "status": "deleted"})
    assert (await api.http.delete(f"/api/v1/jobs/{job_id}")).status_code == 404
    assert (await api.http.get(f"/api/v1/jobs/{job_id}")).status_code == 404
    for action in ("pause", "resume", "trigger"):
        assert (await api.act(job_id, action)).status_code == 404
    assert all(job["id"] != job_id for job in (await api.get(""))["jobs"])


async def test_history_outlives_its_job(api, target):
    """A deleted job's history stays readable under its id."""
    job_id = await api.stored(target_url=target.url())
    await api.act(job_id, "trigger")
    before = await api.finished(job_id)
    await api.http.delete(f"/api/v1/jobs/{job_id}")
    page = await api.get(f"/{job_id}/executions")
    assert page["executions"] == before
    assert (page["job_id"], page["count"]) == (job_id, 1)


async def test_a_deleted_id_without_history(api):
    """History that never was is 404, as for any unknown id."""
    job_id = await api.stored()
    assert (await api.get(f"/{job_id}/executions"))["executions"] == []
    await api.http.delete(f"/api/v1/jobs/{job_id}")
    answer = await api.http.get(f"/api/v1/jobs/{job_id}/executions")
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Job {job_id} not found"


async def test_a_recreated_id_starts_at_zero(api, target):
    """A deleted and re-created id counts from zero, and the old history stays below it."""
    job_id = await api.stored(target_url=target.url())
    await api.act(job_id, "trigger")
    await api.finished(job_id)
    await api.act(job_id, "pause")
    await api.http.delete(f"/api/v1/jobs/{job_id}")
    await api.stored(job_id=job_id, target_url=target.url())
    job = await api.get(f"/{job_id}")
    assert (job["execution_count"], job["status"]) == (0, "running")
    assert len(job["executions"]) == 1


async def test_pausing_cancels_what_waits(api):
    """A run that waits for its turn is cancelled by a pause; the one under way ends."""
    async with RawServer((hang,)) as server:
        job_id = await api.stored(target_url=server.url(), timeout_sec=0.5)
        for _ in range(2):
            await api.act(job_id, "trigger")
        await server.wait_for(lambda: len(server.requests) == 1)
        await api.act(job_id, "pause")
        newest, oldest = await api.finished(job_id, 2)
    assert (newest["status"], newest["reason"]) == ("cancelled", "paused")
    assert newest["error_message"]
    assert (oldest["status"], oldest["reason"]) == ("failed", "timeout")
    assert (await api.info(job_id))["execution_count"] == 1


async def test_pages_of_a_history(api, target):
    """Limit cuts, count is the number in this answer, next_cursor continues; newest first."""
    job_id = await api.stored(target_url=target.url())
    ids = [(await api.act(job_id, "trigger")).json()["execution_id"] for _ in range(3)]
    await api.finished(job_id, 3)
    first = await api.get(f"/{job_id}/executions?limit=2")
    assert first["count"] == len(first["executions"]) == 2
    rest = await api.get(f"/{job_id}/executions?limit=2&cursor={first['next_cursor']}")
    assert (rest["count"], rest["next_cursor"]) == (1, None)
    shown = [execution["execution_id"] for execution in first["executions"] + rest["executions"]]
    assert shown == ids[::-1]


async def test_recent_executions_of_all_jobs(api, target):
    """The recent history holds all jobs' executions, newest first."""
    jobs = [await api.stored(target_url=target.url()) for _ in range(2)]
    for job_id in jobs:
        await api.act(job_id, "trigger")
        await api.finished(job_id)
    page = await api.get("/executions/recent?limit=2")
    assert [execution["job_id"] for execution in page["executions"]] == jobs[::-1]
    assert page["count"] == 2


@pytest.mark.parametrize("path", ["/{}/executions", "/executions/recent"])
@pytest.mark.parametrize("limit", ["1", "1000"])
async def test_limits_within_bounds(api, path, limit):
    """A limit of 1 to 1000 is accepted."""
    job_id = await api.stored()
    await api.get(f"{path.format(job_id)}?limit={limit}")


@pytest.mark.parametrize("path", ["/{}/executions", "/executions/recent"])
@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=1001", "limit=abc", "limit=", "limit=1.5", "limit=%00"),
        *(
            "limit=" + "9" * 5000,
            "limit=1&limit=1001",
            "cursor=0",
            "cursor=x",
            "cursor=" + "9" * 99,
        ),
    ],
)
async def test_limits_out_of_bounds(api, path, query):
    """A limit outside 1 to 1000, or a cursor that is none, is 422 and named."""
    job_id = await api.stored()
    answer = await api.http.get(f"/api/v1/jobs{path.format(job_id)}?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    name = query.partition("=")[0]
    assert answer.json()["detail"][0]["loc"] == ["query", name]
    assert name in answer.json()["title"]


async def test_counting_only_what_started(api):
    """Skipped instants are listed under their own status but not counted."""
    async with RawServer((hang,)) as server:
        job_id = await api.stored(
            schedule_type="interval",
            interval={"seconds": 1},
            target_url=server.url(),
            timeout_sec=60,
        )
        await server.wait_for(lambda: len(server.requests) == 1)

        async def skipped():
            history = (await api.get(f"/{job_id}/executions"))["executions"]
            return next((e for e in history if e["status"] == "skipped"), None)

        execution = await eventually(skipped)
        assert (await api.info(job_id))["execution_count"] == 1
        await api.http.delete(f"/api/v1/jobs/{job_id}")
    assert (execution["reason"], execution["attempts"]) == ("overlap", 0)
    assert execution["started_at"] is None
    assert execution["error_message"] == reason_entry(Reason.OVERLAP).cause.en
