"""MYSCHEDULER_EGRESS_SCHEMES in force: jobs that are stored, and jobs that were."""

from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import eventually, open_api, settings_for

JOBS = "/api/v1/jobs"
JOB = {"schedule_type": "cron", "cron": {"year": "2099"}}


async def test_a_target_of_another_scheme_is_refused(home: Home):
    """With https alone an http target is 400 in words, and one stored before is not called."""
    async with RawServer((reply(),)) as server:
        old = {**JOB, "job_id": "old", "target_url": server.url()}
        async with open_api(settings_for(home)) as api:
            assert (await api.post(JOBS, json=old)).status_code == 200
        async with open_api(settings_for(home, egress_schemes=("https",))) as api:
            refused = await api.post(JOBS, json={**old, "job_id": "new"})
            replaced = await api.post(JOBS, json={**old, "replace_existing": True})
            secure = {**JOB, "job_id": "secure", "target_url": "https://a.test/"}
            assert (await api.post(JOBS, json=secure)).status_code == 200
            await api.post(f"{JOBS}/old/trigger")

            async def over():
                history = (await api.get(f"{JOBS}/old/executions")).json()["executions"]
                return [execution for execution in history if execution["completed_at"]]

            (execution,) = await eventually(over)
            listed = (await api.get(JOBS)).json()["jobs"]
        assert server.connection_count == 0
    for answer in (refused, replaced):
        assert (answer.status_code, answer.json()["code"]) == (400, "egress_denied")
        assert answer.json()["detail"] == (
            "The target must not be called: MYSCHEDULER_EGRESS_SCHEMES allows https, not http; "
            "choose another target, or let an operator change the MYSCHEDULER_EGRESS settings"
        )
    assert {job["job_id"] for job in listed} == {"old", "secure"}
    assert (execution["status"], execution["reason"]) == ("failed", "egress_denied")
