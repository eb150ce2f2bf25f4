"""The main job on real input, in one process."""

from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import eventually, open_api, settings_for


async def test_an_interval_job_calls_its_target_every_second(home: Home):
    """A job POSTed with an interval fires at its times, and its executions are readable."""
    async with RawServer((reply("hello"),)) as target, open_api(settings_for(home)) as api:
        created = await api.post(
            "/api/v1/jobs",
            json={
                "job_id": "tick",
                "schedule_type": "interval",
                "interval": {"seconds": 1},
                "target_url": target.url("/hook"),
            },
        )
        assert created.status_code == 200

        async def two_done():
            page = (await api.get("/api/v1/jobs/tick/executions")).json()
            done = [e for e in page["executions"] if e["status"] == "completed"]
            return done if len(done) >= 2 else None

        newest, oldest = (await eventually(two_done))[:2]
        assert newest["scheduled_for"] > oldest["scheduled_for"]
        assert oldest["http_status_code"] == 200
        assert oldest["response_size"] == 5
        assert oldest["result"]["response_body"] == "hello"
