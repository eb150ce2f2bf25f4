"""POST /api/v1/jobs: what is accepted, what it means, and what the answer says."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.clock import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a real client sends: job_id, name and every field that the form has, "*" fields left out.
REAL_CLIENT = (
    b'{"job_id": "job_1a2b3c4d", "name": "\xe6\x9c\x9d\xe3\x81\xae\xe5\xa0\xb1\xe5\x91\x8a", '
    b'"schedule_type": "cron", "target_url": "https://example.com/hook", "method": "POST", '
    b'"body": null, "timeout_sec": 300.0, "max_retries": 3, "retry_backoff_sec": 2.0, '
    b'"replace_existing": false, "cron": {"minute": "0", "hour": "9", "second": "0"}}'
)


def now() -> datetime:
    """Tell the time."""
    return SystemClock().now()


async def test_a_real_client(api):
    """The request of a real client is stored as it is meant, byte for byte."""
    answer = await api.send_bytes(REAL_CLIENT)
    assert answer.status_code == 200
    assert answer.json()["job_id"] == "job_1a2b3c4d"
    assert answer.json()["status"] == "scheduled"
    assert answer.json()["warnings"] == []
    job = await api.get("/job_1a2b3c4d")
    assert job["name"] == "朝の報告"
    assert job["trigger"] == "cron[hour='9', minute='0', second='0']"
    assert job["next_run_time"][10:] == "T09:00:00+09:00"
    assert (job["timeout_sec"], job["max_retries"], job["retry_backoff_sec"]) == (300.0, 3, 2.0)
    assert (job["method"], job["body"], job["headers"]) == ("POST", None, None)


async def test_the_smallest_request(api):
    """What is left out has the frozen defaults, and the id is generated."""
    answer = await api.create()
    job_id = answer.json()["job_id"]
    job = await api.get(f"/{job_id}")
    assert {name: job[name] for name in DEFAULTS} == DEFAULTS
    assert job["name"] == job["id"] == job_id


DEFAULTS: dict[str, object] = {
    "method": "GET",
    "headers": None,
    "body": None,
    "body_type": "json",
    "timeout_sec": 30.0,
    "max_retries": 0,
    "retry_backoff_sec": 1.0,
    "follow_redirects": False,
    "timezone": "Asia/Tokyo",
    "start_at": None,
    "end_at": None,
    "jitter_sec": 0.0,
    "misfire_grace_time": 30.0,
    "catch_up": "latest",
    "coalesce": True,
    "max_instances": 1,
    "overlap_policy": "skip",
    "on_crash": "retry",
    "status": "running",
    "execution_count": 0,
    "executions": [],
    "func": "execute_http_job",
}


async def test_an_id_is_taken_once(api):
    """A second creation of an id is 409, and the first job stays as it is."""
    job_id = await api.stored(name="first")
    answer = await api.create(job_id=job_id, name="second")
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "job_exists"
    assert answer.json()["detail"].startswith(f"Job {job_id} already exists")
    assert (await api.get(f"/{job_id}"))["name"] == "first"


async def test_simultaneous_creations(api):
    """Of ten simultaneous creations of one id exactly one is answered 200, the others 409."""
    answers = await asyncio.gather(*(api.create(job_id="contested") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


async def test_simultaneous_replacements(api):
    """Ten that create or replace one id at the same time are all answered 200; one job is left."""
    wish = {"job_id": "shared", "replace_existing": True}
    answers = await asyncio.gather(*(api.create(name=f"n{n}", **wish) for n in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await api.info("shared"))["name"] in {f"n{n}" for n in range(10)}


@pytest.mark.parametrize("method", ["get", "Post", "PUT", "patch", "DELETE", "head", "options"])
async def test_methods(api, method):
    """Any case of a method is accepted and shown in capitals."""
    job_id = await api.stored(method=method)
    assert (await api.info(job_id))["method"] == method.upper()


@pytest.mark.parametrize(
    "job_id",
    [
        "a",
        "x" * 255,
        "日" * 255,
        "daily report",
        "a.b",
        "...",
        "ä",
        "😀",
        "a:b;c=d&e",
        "50%",
        "~",
        "<b>",
    ],
)
async def test_ids(api, job_id):
    """An id that a path can address is accepted, and the job is found under it."""
    assert (await api.create(job_id=job_id)).status_code == 200
    answer = await api.http.get("/api/v1/jobs/" + job_id.replace("50%", "50%25"))
    assert answer.json()["id"] == job_id


async def test_unaddressed_unicode_is_not_folded(api):
    """Two spellings of one letter are two ids."""
    assert (await api.create(job_id="caf\u00e9")).status_code == 200
    assert (await api.create(job_id="cafe\u0301")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"a": [1, None, True, "日本"]}, [], "text", "", 0, False, 0.1, 10**400, "\x00\u2028"],
)
async def test_bodies(api, body):
    """Any JSON is kept as body, and shown as it was sent."""
    job_id = await api.stored(method="POST", body=body)
    assert (await api.get(f"/{job_id}"))["body"] == body


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://Example.COM/Path",
        "http://127.0.0.1:65535/",
        "http://[::1]:8080/x?y=z",
        "http://日本語.jp/パス",
        "http://host:/",
        "http://host?query",
        "http://a_b.c-d/%zz/%2F",
        "http://example.com./",
    ],
)
async def test_urls(api, url):
    """Any absolute http(s) URL with a host is kept as it was sent."""
    job_id = await api.stored(target_url=url)
    assert (await api.info(job_id))["target_url"] == url


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        (
            {"timeot_sec": 5},
            ["unknown field 'timeot_sec' ignored; did you mean 'timeout_sec'?"],
        ),
        ({"func": "x"}, ["unknown field 'func' ignored"]),
        (
            {"cron": {"minut": "1", "hour": "1"}},
            ["unknown field 'cron.minut' ignored; did you mean 'cron.minute'?"],
        ),
        (
            {"schedule_type": "interval", "interval": {"minuts": 1, "hours": 1}},
            ["unknown field 'interval.minuts' ignored; did you mean 'interval.minutes'?"],
        ),
        ({"a\r\nb": 1}, ["unknown field 'a??b' ignored"]),
    ],
)
async def test_unknown_fields(api, fields, warnings):
    """An unknown field is no error but reported, with the name it may have meant."""
    answer = await api.create(**fields)
    assert answer.status_code == 200
    assert answer.json()["warnings"] == warnings


async def test_many_unknown_fields(api):
    """Of thousands of unknown fields the first are named and the rest is counted."""
    answer = await api.create(**{f"field{number}": 1 for number in range(5000)})
    warnings = answer.json()["warnings"]
    assert len(warnings) == 21
    assert warnings[-1] == "and 4980 more unknown fields ignored"


async def test_an_omitted_cron_field_means_every(api):
    """{"hour": "10"} fires in every minute of 10 o'clock, at second 0."""
    job = await api.get("/" + await api.stored(cron={"hour": "10"}))
    assert job["trigger"] == "cron[hour='10', second='0']"
    at = datetime.fromisoformat(job["next_run_time"])
    assert (at.hour, at.second) == (10, 0)
    assert at.minute == 0 or at.hour == now().astimezone(at.tzinfo).hour


@pytest.mark.parametrize(
    ("digits", "names"),
    [
        ("1", "mon"),
        (1, "mon"),
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon-fri"),
        ("0,6", "sun,sat"),
        ("MON", "mon"),
    ],
)
async def test_weekday_digits(api, digits, names):
    """Digits of day_of_week count as in crontab, and answers echo names."""
    cron = {"minute": "0", "hour": "0", "day_of_week": digits}
    job = await api.get("/" + await api.stored(cron=cron))
    assert f"day_of_week='{names}'" in job["trigger"]
    assert job["trigger_info"]["cron"]["day_of_week"] == names
    if names == "mon":
        assert datetime.fromisoformat(job["next_run_time"]).isoweekday() == 1


@pytest.mark.parametrize(
    ("run_at", "next_run_time"),
    [
        ("2035-01-01", "2035-01-01T00:00:00+09:00"),
        ("2035-01-01T10:30", "2035-01-01T10:30:00+09:00"),
        ("2035-01-01 10:30:00", "2035-01-01T10:30:00+09:00"),
        ("2035-01-01T10:30:00Z", "2035-01-01T19:30:00+09:00"),
        ("2035-01-01t10:30:00z", "2035-01-01T19:30:00+09:00"),
        ("2035-01-01T10:30:00.25-05:00", "2035-01-02T00:30:00.250000+09:00"),
    ],
)
async def test_run_at(api, run_at, next_run_time):
    """A time without an offset is in the job's zone, a bare date is midnight there."""
    answer = await api.create(schedule_type="date", run_at=run_at)
    assert answer.json()["next_run_time"] == next_run_time


async def test_run_at_in_another_zone(api):
    """The job's own timezone reads its times and writes its answers."""
    answer = await api.create(
        schedule_type="date", run_at="2035-07-01", timezone="America/New_York"
    )
    assert answer.json()["next_run_time"] == "2035-07-01T00:00:00-04:00"


async def test_the_first_run_of_an_interval(api):
    """An interval's first run is one interval after creation."""
    before = now()
    answer = await api.create(schedule_type="interval", interval={"hours": 1, "minutes": 30})
    first = datetime.fromisoformat(answer.json()["next_run_time"])
    assert before + timedelta(minutes=90) <= first <= now() + timedelta(minutes=90)


async def test_a_date_within_the_grace_still_runs(api):
    """A one-off a moment ago runs at once."""
    job_id = await api.stored(
        schedule_type="date", run_at=(now() - timedelta(seconds=5)).isoformat()
    )
    assert (await api.finished(job_id))[0]["cause"] == "schedule"
    assert (await api.info(job_id))["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"cron": None}, "cron"),
        ({"cron": {}}, "cron"),
        ({"schedule_type": "interval"}, "interval"),
        ({"schedule_type": "date"}, "run_at"),
        ({"schedule_type": "crontab"}, "crontab"),
        ({"schedule_type": "crontab", "crontab": ""}, "crontab"),
        ({"cron": {"minute": "60"}}, "cron.minute"),
        ({"cron": {"minute": ""}}, "cron.minute"),
        ({"cron": {"hour": "1-"}}, "cron.hour"),
        ({"cron": {"second": "*/0"}}, "cron.second"),
        ({"cron": {"day_of_week": "8"}}, "cron.day_of_week"),
        ({"cron": {"day_of_week": "funday"}}, "cron.day_of_week"),
        ({"cron": {"week": "54"}}, "cron.week"),
        ({"cron": {"minute": -1}}, "cron.minute"),
        ({"cron": {"minute": "\x00"}}, "cron.minute"),
        ({"cron": {"month": "2", "day": "30"}}, "day"),
        ({"cron": {"year": "2001"}}, "year"),
        ({"schedule_type": "crontab", "crontab": "0 0 31 2 *"}, "day of month"),
        ({"schedule_type": "crontab", "crontab": "* * * *"}, "five fields"),
        ({"schedule_type": "crontab", "crontab": "@reboot"}, "@reboot"),
        ({"schedule_type": "interval", "interval": {}}, "interval"),
        ({"schedule_type": "interval", "interval": {"seconds": 0}}, "interval"),
        ({"schedule_type": "interval", "interval": {"minutes": -5}}, "interval"),
        ({"schedule_type": "interval", "interval": {"hours": 1, "seconds": -1}}, "interval"),
        ({"schedule_type": "interval", "interval": {"weeks": 600}}, "interval"),
        ({"schedule_type": "interval", "interval": {"weeks": 10**12}}, "interval"),
        ({"schedule_type": "date", "run_at": "2020-01-01"}, "run_at"),
        ({"schedule_type": "date", "run_at": "0001-01-01"}, "run_at"),
        ({"schedule_type": "date", "run_at": "9999-12-31T23:59:59-12:00"}, "run_at"),
        ({"start_at": "2098-01-01", "end_at": "2097-01-01"}, "end_at"),
        ({"end_at": "2020-01-01"}, "end_at"),
        ({"end_at": "2098-01-01"}, "end_at"),
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"timezone": "../../etc/passwd"}, "time zone"),
        ({"target_url": "http://169.254.169.254/latest"}, "target"),
        ({"coalesce": True, "catch_up": "all"}, "coalesce"),
        ({"headers": {"Authorization": "********"}}, "Authorization"),
        ({"body": "x" * 70_000}, "body"),
    ],
)
async def test_what_cannot_work_is_400(api, fields, word):
    """A schedule missing for its type, impossible or never firing is 400 and named."""
    before = await api.count()
    answer = await api.create(**fields)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert word in problem["detail"]
    assert await api.count() == before


async def test_a_date_beyond_the_grace_is_refused(api):
    """A date a minute ago is 400, never accepted and lost."""
    at = datetime.now(tz=UTC) - timedelta(minutes=1)  # noqa: TID251 - a client's clock
    answer = await api.create(schedule_type="date", run_at=at.isoformat())
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_schedule"
    assert answer.json()["detail"].startswith("run_at lies in the past")


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.x+json", None])
async def test_content_types(api, content_type):
    """JSON is read as such under any JSON type, and without one."""
    body = json.dumps(
        {"schedule_type": "cron", "cron": {"minute": "0"}, "target_url": "http://example.com"}
    )
    assert (await api.send_bytes(body.encode(), content_type)).status_code == 200


async def test_replacing_changes_the_definition(api):
    """replace_existing=true replaces the definition as a whole and raises the revision."""
    job_id = await api.stored(name="old", max_retries=5, headers={"X-A": "1"})
    answer = await api.create(job_id=job_id, name="new", replace_existing=True)
    assert answer.status_code == 200
    job = await api.get(f"/{job_id}")
    assert (job["name"], job["max_retries"], job["headers"]) == ("new", 0, None)
    assert job["revision"] == 2


async def test_replacing_what_does_not_exist_creates_it(api):
    """replace_existing=true for an unknown id is a creation."""
    assert (await api.create(job_id="novel", replace_existing=True)).status_code == 200
    assert (await api.get("/novel"))["revision"] == 1


async def test_replacing_keeps_history_counters_and_creation_time(api):
    """A replaced job keeps its history, its counters and when it was created."""
    job_id = await api.stored()
    await api.act(job_id, "trigger")
    await api.finished(job_id)
    before = await api.get(f"/{job_id}")
    await api.create(job_id=job_id, cron={"year": "2098"}, replace_existing=True)
    after = await api.get(f"/{job_id}")
    for name in ("execution_count", "executions", "created_at"):
        assert after[name] == before[name]
    assert after["execution_count"] == 1


async def test_replacing_keeps_a_pause(api):
    """A paused job stays paused when it is replaced."""
    job_id = await api.stored()
    await api.act(job_id, "pause")
    answer = await api.create(job_id=job_id, cron={"year": "2098"}, replace_existing=True)
    assert answer.json()["next_run_time"] is None
    job = await api.get(f"/{job_id}")
    assert (job["status"], job["next_run_time"]) == ("paused", None)
    await api.act(job_id, "resume")
    assert (await api.info(job_id))["next_run_time"] == "2098-01-01T00:00:00+09:00"


async def test_an_unchanged_schedule_keeps_its_next_run(api):
    """Replacing with an unchanged schedule keeps the next run time, an interval's too."""
    interval = {"schedule_type": "interval", "interval": {"hours": 2}}
    job_id = await api.stored(**interval)
    before = (await api.info(job_id))["next_run_time"]
    await api.create(job_id=job_id, name="renamed", **interval, replace_existing=True)
    assert (await api.info(job_id))["next_run_time"] == before
    await api.create(
        job_id=job_id, schedule_type="interval", interval={"hours": 3}, replace_existing=True
    )
    assert (await api.info(job_id))["next_run_time"] > before


async def test_masked_headers_come_back(api):
    """A masked value that is sent back unchanged keeps the stored one; a new value replaces it."""
    headers = {"Authorization": "Bearer s3cr3t", "X-Plain": "seen"}
    job_id = await api.stored(headers=headers)
    shown = (await api.get(f"/{job_id}"))["headers"]
    assert shown == {"Authorization": "********", "X-Plain": "seen"}
    again = {**shown, "X-Plain": "changed"}
    answer = await api.create(job_id=job_id, headers=again, replace_existing=True)
    assert answer.status_code == 200
    assert (await api.get(f"/{job_id}"))["headers"] == again


@pytest.mark.parametrize(
    ("fields", "instant", "warning"),
    [
        (
            {"run_at": "2035-03-11T02:30:00"},
            "2035-03-11T03:00:00-04:00",
            (
                "run_at 2035-03-11T02:30:00 does not exist in America/New_York, whose clocks go "
                "forward over it; it is read as 2035-03-11T03:00:00-04:00 (dst_gap=run_after)"
            ),
        ),
        (
            {"run_at": "2035-03-11T02:30:00", "dst_gap": "shift"},
            "2035-03-11T03:30:00-04:00",
            (
                "run_at 2035-03-11T02:30:00 does not exist in America/New_York, whose clocks go "
                "forward over it; it is read as 2035-03-11T03:30:00-04:00 (dst_gap=shift)"
            ),
        ),
        (
            {"run_at": "2035-11-04T01:30:00"},
            "2035-11-04T01:30:00-04:00",
            (
                "run_at 2035-11-04T01:30:00 comes twice in America/New_York, whose clocks go back; "
                "it is read as the first, 2035-11-04T01:30:00-04:00 (dst_fold=first)"
            ),
        ),
        (
            {"run_at": "2035-11-04T01:30:00", "dst_fold": "second"},
            "2035-11-04T01:30:00-05:00",
            (
                "run_at 2035-11-04T01:30:00 comes twice in America/New_York, whose clocks go back; "
                "it is read as the second, 2035-11-04T01:30:00-05:00 (dst_fold=second)"
            ),
        ),
    ],
)
async def test_a_local_time_that_the_clock_makes_void_or_double(api, fields, instant, warning):
    """A run_at that does not exist, or exists twice, follows the job's rule, and is told."""
    answer = await api.create(
        schedule_type="date", interval=None, timezone="America/New_York", **fields
    )
    assert answer.status_code == 200
    assert answer.json()["warnings"] == [warning]
    assert answer.json()["next_run_time"] == instant


async def test_a_local_time_that_is_to_be_skipped(api):
    """A run_at that does not exist is refused under dst_gap=skip, since it would never run."""
    answer = await api.create(
        schedule_type="date",
        interval=None,
        timezone="America/New_York",
        run_at="2035-03-11T02:30:00",
        dst_gap="skip",
    )
    assert answer.status_code == 400
    assert "does not exist in America/New_York" in answer.json()["detail"]
