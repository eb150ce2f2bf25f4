"""The log of the running service: lines for machines, one per execution, without secrets."""

import json
from datetime import datetime

from tests.e2e.world import Row, create, read_execution, soon, trigger, wait_for_end
from tests.support.homes import Home
from tests.support.raw_server import RawServer, reply
from tests.support.service import Service, eventually

SECRETS = {"Authorization": "Bearer sesame-9f31", "X-Api-Key": "sesame-77c0"}
FAR = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00+09:00"}


def lines_of(service: Service) -> list[Row]:
    """Read every line of the log; each must be an object with the leading keys."""
    text = service.log_path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    return lines


async def test_an_execution_is_one_line(home: Home):
    """At INFO each execution is one line, retries included, that says how it ended."""
    async with (
        RawServer((reply(), reply(status="500 Internal Server Error"))) as target,
        Service(home) as service,
    ):
        client = service.client
        for job_id in ("fine", "broken"):
            retries = {"max_retries": 2, "retry_backoff_sec": 0.01}
            await create(client, job_id, target.url(f"/{job_id}"), **FAR, **retries)
            await trigger(client, job_id)
            await wait_for_end(client, job_id)
        assert await service.stop() == 0

    ended = [line for line in lines_of(service) if line["event"] == "execution.finished"]
    told = [(e["job_id"], e["level"], e["status"], e["reason"], e["attempts"]) for e in ended]
    assert told == [
        ("fine", "info", "completed", None, 1),
        ("broken", "info", "failed", "retries_exhausted", 3),
    ]
    assert [(e["http_status"], bool(e["error"])) for e in ended] == [(200, False), (500, True)]
    assert {e["replica"].split(":")[1] for e in ended} == {str(service.pid)}


async def test_a_start_is_told_with_its_jobs(home: Home):
    """A start says how many jobs there are, and lists each with its next time."""
    async with Service(home) as service:
        for number in range(3):
            await create(service.client, f"job-{number}", "http://localhost:9/", **FAR)
        assert await service.stop() == 0
        await service.start()
        assert await service.stop() == 0

    first, second = (line for line in lines_of(service) if line["event"] == "scheduler.started")
    assert [first["message"], second["message"]] == ["Scheduler started"] * 2
    assert [first["jobs"], second["jobs"]] == [0, 3]
    listed = [line for line in lines_of(service) if line["event"] == "job.registered"]
    assert [line["job_id"] for line in listed] == ["job-0", "job-1", "job-2"]
    assert {line["next_run_time"] for line in listed} == {FAR["run_at"]}


async def test_secrets_stay_secret(home: Home):
    """Secret header values reach the target, and neither the log nor any answer of the API."""
    async with (
        RawServer((reply("thanks"),)) as target,
        Service(home, LOG_LEVEL="DEBUG") as service,
    ):
        client = service.client
        await create(
            client,
            "secret",
            target.url("/secret"),
            schedule_type="date",
            run_at=soon(0.2),
            headers=SECRETS,
        )
        execution_id = (await wait_for_end(client, "secret"))["execution_id"]
        # A target that is not there, and requests that are refused with the secrets in them.
        await create(client, "gone", "http://localhost:9/", headers=SECRETS, **FAR)
        await trigger(client, "gone")
        gone = await wait_for_end(client, "gone")
        refused = [
            await client.post("/api/v1/jobs", json={"headers": SECRETS, **fields})
            for fields in (
                {"job_id": "secret", "target_url": target.url(), **FAR},
                {"job_id": "x", "target_url": target.url(), "schedule_type": "cron"},
                {"job_id": "y", "target_url": "ftp://host/", **FAR},
                {"job_id": "z", "schedule_type": "cron", "headers": [SECRETS]},
            )
        ]
        assert [answer.status_code for answer in refused] == [409, 400, 422, 422]
        answers = refused + [
            await client.get(path)
            for path in (
                "/api/v1/jobs",
                "/api/v1/jobs/secret",
                "/api/v1/jobs/gone",
                "/api/v1/jobs/secret/executions",
                "/api/v1/jobs/executions/recent",
                f"/api/v1/executions/{execution_id}",
                f"/api/v1/executions/{gone['execution_id']}",
            )
        ]
        detail = (await client.get("/api/v1/jobs/secret")).json()
        assert (await read_execution(client, execution_id))["status"] == "completed"
        assert await service.stop() == 0
        await eventually(lambda: service.log_path.stat().st_size)

    (request,) = target.requests
    assert {name: request.headers[name.lower()] for name in SECRETS} == SECRETS
    assert detail["headers"] == dict.fromkeys(SECRETS, "********")
    assert lines_of(service)
    told = [answer.text for answer in answers] + [service.log_path.read_text(encoding="utf-8")]
    assert [text for text in told if "sesame" in text] == []
