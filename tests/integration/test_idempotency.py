"""Requests that are sent twice count once."""

from tests.support.homes import Home
from tests.support.service import open_api, settings_for

JOB = {
    "schedule_type": "interval",
    "interval": {"hours": 1},
    "target_url": "http://127.0.0.1:9/hook",
}
KEY = {"Idempotency-Key": "order-4711"}


async def test_a_repeated_creation_gets_the_first_answer(home: Home):
    """The same key with the same request answers the same and stores one job."""
    async with open_api(settings_for(home)) as api:
        first = await api.post("/api/v1/jobs", json=JOB, headers=KEY)
        second = await api.post("/api/v1/jobs/", json=JOB, headers=KEY)
        jobs = (await api.get("/api/v1/jobs")).json()["jobs"]
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert [job["job_id"] for job in jobs] == [first.json()["job_id"]]


async def test_a_key_with_another_request_is_refused(home: Home):
    """The same key with another body is a conflict that says what to do."""
    async with open_api(settings_for(home)) as api:
        await api.post("/api/v1/jobs", json=JOB, headers=KEY)
        other = await api.post("/api/v1/jobs", json={**JOB, "name": "other"}, headers=KEY)
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_key_reused"
    assert "new key" in other.json()["detail"]


async def test_a_repeated_trigger_is_one_run(home: Home):
    """The same key triggers once and answers the same execution id."""
    async with open_api(settings_for(home)) as api:
        await api.post("/api/v1/jobs", json={**JOB, "job_id": "job"})
        answers = [
            (await api.post("/api/v1/jobs/job/trigger", headers=KEY)).json() for _ in range(3)
        ]
        page = (await api.get("/api/v1/jobs/job/executions")).json()
    assert len({answer["execution_id"] for answer in answers}) == 1
    assert page["count"] == 1


async def test_a_refused_request_is_not_remembered(home: Home):
    """A key whose request failed may be used again once the request is mended."""
    async with open_api(settings_for(home)) as api:
        refused = await api.post("/api/v1/jobs", json={**JOB, "interval": {}}, headers=KEY)
        mended = await api.post("/api/v1/jobs", json=JOB, headers=KEY)
    assert refused.status_code == 400
    assert mended.status_code == 200


async def test_a_hostile_key_is_refused(home: Home):
    """A key that is empty, too long or not printable is a malformed request."""
    async with open_api(settings_for(home)) as api:
        for key in ("", "x" * 256, "a b"):
            answer = await api.post("/api/v1/jobs", json=JOB, headers={"Idempotency-Key": key})
            assert answer.status_code == 422
