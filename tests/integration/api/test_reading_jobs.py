"""What jobs look like: the list, one job, triggers, times, masks."""

import asyncio
from datetime import datetime

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFO = {
    "job_id",
    "id",
    "name",
    "next_run_time",
    "trigger",
    "status",
    "target_url",
    "method",
    "execution_count",
}
DETAIL = (INFO - {"id"}) | {
    "func",
    "trigger_info",
    "headers",
    "body",
    "timeout_sec",
    "max_retries",
    "retry_backoff_sec",
    "executions",
}


async def test_the_list_is_complete_and_in_order(api):
    """The list holds all jobs by next run time ascending, those without one last."""
    ids = [await api.stored(cron={"year": str(year)}) for year in (2092, 2091, 2093)]
    paused = await api.stored(cron={"year": "2090"})
    await api.act(paused, "pause")
    finished = await api.stored(schedule_type="interval", interval={"days": 400})
    jobs = (await api.get(""))["jobs"]
    assert [job["id"] for job in jobs] == [finished, ids[1], ids[0], ids[2], paused]
    times = [job["next_run_time"] for job in jobs]
    assert times[-1] is None
    assert times[:-1] == sorted(times[:-1])


async def test_the_list_has_no_hidden_limit(api):
    """All jobs are listed when no paging is asked for."""
    before = await api.count()
    await asyncio.gather(*(api.create() for _ in range(250)))
    assert await api.count() == before + 250


async def test_fields_of_a_list(api):
    """A job in a list has the frozen fields, and its texts are never null."""
    await api.stored(name="", schedule_type="crontab", crontab="@daily")
    for job in (await api.get(""))["jobs"]:
        assert set(job) >= INFO
        for name in ("job_id", "id", "name", "status", "trigger", "target_url", "method"):
            assert isinstance(job[name], str)
            assert job[name]
        assert isinstance(job["execution_count"], int)
        assert job["id"] == job["job_id"]
        assert job["status"] in {"running", "paused", "completed"}


async def test_fields_of_a_job(api):
    """One job has the frozen fields with their types."""
    job = await api.get("/" + await api.stored(headers={"X-A": "1"}, body={"a": 1}))
    assert set(job) >= DETAIL
    assert job["func"] == "execute_http_job"
    assert isinstance(job["timeout_sec"], float)
    assert isinstance(job["retry_backoff_sec"], float)
    assert isinstance(job["max_retries"], int)
    assert job["headers"] == {"X-A": "1"}
    assert job["body"] == {"a": 1}
    assert job["executions"] == []


@pytest.mark.parametrize(
    ("fields", "trigger", "trigger_info"),
    [
        (
            {"cron": {"minute": "30", "hour": "10"}},
            "cron[hour='10', minute='30', second='0']",
            {"type": "cron", "cron": {"hour": "10", "minute": "30", "second": "0"}},
        ),
        (
            {"cron": {"second": "*/5", "day_of_week": "1"}},
            "cron[day_of_week='mon', second='*/5']",
            {"type": "cron", "cron": {"day_of_week": "mon", "second": "*/5"}},
        ),
        (
            {"schedule_type": "crontab", "crontab": "0 9 * * 1-5"},
            "cron[0 9 * * 1-5]",
            {"type": "cron", "cron": {}, "crontab": "0 9 * * 1-5"},
        ),
        (
            {"schedule_type": "interval", "interval": {"minutes": 10}},
            "interval[0:10:00]",
            {"type": "interval", "interval_seconds": 600.0, "minutes": 10},
        ),
        (
            {"schedule_type": "interval", "interval": {"weeks": 1, "days": 0, "seconds": 5}},
            "interval[7 days, 0:00:05]",
            {"type": "interval", "interval_seconds": 604805.0, "weeks": 1, "seconds": 5},
        ),
        (
            {"schedule_type": "date", "run_at": "2035-01-01"},
            "date[2035-01-01 00:00:00 JST]",
            {"type": "date", "run_date": "2035-01-01T00:00:00+09:00"},
        ),
        (
            {"schedule_type": "date", "run_at": "2035-07-01T12:00Z", "timezone": "Europe/Berlin"},
            "date[2035-07-01 14:00:00 CEST]",
            {"type": "date", "run_date": "2035-07-01T14:00:00+02:00"},
        ),
    ],
)
async def test_triggers(api, fields, trigger, trigger_info):
    """A trigger reads as clients know it, up to the bracket and in its parts."""
    job = await api.get("/" + await api.stored(**fields))
    assert job["trigger"] == trigger
    assert job["trigger_info"] == trigger_info


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("Asia/Tokyo", "+09:00"), ("UTC", "+00:00"), ("America/St_Johns", "-03:30")],
)
async def test_times_are_in_the_jobs_zone(api, zone, offset):
    """Times are ISO 8601 with an offset, in the job's zone."""
    job = await api.get("/" + await api.stored(timezone=zone, start_at="2098-01-01"))
    assert job["next_run_time"] == f"2099-01-01T00:00:00{offset}"
    assert job["start_at"] == f"2098-01-01T00:00:00{offset}"
    assert job["timezone"] == zone
    for name in ("created_at", "updated_at"):
        assert datetime.fromisoformat(job[name]).utcoffset() is not None


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "X-Token",
        "X-Client-Secret",
        "X-API-Key",
        "ApiKey",
        "Accesskey",
        "X-Password",
        "X-Hub-Signature",
        "X-Auth",
    ],
)
async def test_sensitive_headers_are_masked(api, name):
    """Values of headers that prove who calls are masked."""
    job = await api.get("/" + await api.stored(headers={name: "s3cr3t", "X-Plain": "seen"}))
    assert job["headers"] == {name: "********", "X-Plain": "seen"}


async def test_no_answer_shows_a_secret(api):
    """A masked value is in no answer: not at creation, in the list, in detail or on refusal."""
    job_id = await api.stored(headers={"Authorization": "Bearer s3cr3t"})
    answers = [
        await api.create(job_id=job_id, headers={"Authorization": "Bearer s3cr3t"}),
        await api.http.get("/api/v1/jobs"),
        await api.http.get(f"/api/v1/jobs/{job_id}"),
        await api.act(job_id, "pause"),
    ]
    assert all("s3cr3t" not in answer.text for answer in answers)


async def test_reading_one_job_shows_its_newest_executions(api):
    """A job shows its executions, newest first and at most 50."""
    job_id = await api.stored(target_url="http://127.0.0.1:9/refused")
    for _ in range(51):
        await api.act(job_id, "trigger")
    await api.finished(job_id, 50)
    shown = (await api.get(f"/{job_id}"))["executions"]
    assert len(shown) == 50
    times = [datetime.fromisoformat(execution["scheduled_for"]) for execution in shown]
    assert times == sorted(times, reverse=True)
