"""The API foretells schedules: previews, a job's next times, simulations."""

import jsonschema  # type: ignore[import-untyped]  # no annotations are published
import pytest
import pytest_asyncio

from app.schemas.job_request import JobRequest
from app.schemas.schedule_request import ScheduleRequest
from tests.support.service import open_api, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREVIEW = "/api/v1/schedules/preview"
SIMULATE = "/api/v1/schedules/simulate"
JOBS = "/api/v1/jobs"
NIGHTLY = {
    "schedule_type": "crontab",
    "crontab": "30 2 * * *",
    "timezone": "America/New_York",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(module_home):
    """Serve this module's tests."""
    async with open_api(settings_for(module_home)) as client:
        yield client


async def stored(http, **fields):
    """Store a job and return its id."""
    job = {**NIGHTLY, "target_url": "http://127.0.0.1:9/", **fields}
    answer = await http.post(JOBS, json=job)
    assert answer.status_code == 200, answer.text
    return answer.json()["job_id"]


async def test_a_preview_says_what_and_when(http):
    """A preview has words in both languages, instants in UTC and in the zone, and notes."""
    answer = await http.post(PREVIEW, json={**NIGHTLY, "count": 2, "from": "2026-03-08T00:00:00"})
    assert answer.status_code == 200
    found = answer.json()
    assert found["schedule"] == {
        "en": "At 02:30 every day (America/New_York)",
        "ja": "毎日2時30分（America/New_York）",
    }
    assert found["timezone"] == "America/New_York"
    moved, plain = found["occurrences"]
    assert moved["scheduled_for_utc"] == "2026-03-08T07:00:00+00:00"
    assert moved["scheduled_for_local"] == "2026-03-08T03:00:00-04:00"
    assert moved["notes"] == ["gap_run_after"]
    assert moved["note"]["en"].startswith("Meant for 8 March 2026, 02:30")
    assert (plain["note"], plain["notes"]) == (None, [])
    assert found["first_fires_in"] == {"en": "in 2 hours", "ja": "2時間後"}
    assert (found["dropped"], found["warnings"]) == ([], [])


async def test_a_preview_lists_dropped_times(http):
    """A time that dst_gap=skip drops stands beside the occurrences."""
    body = {**NIGHTLY, "dst_gap": "skip", "from": "2026-03-08T00:00:00", "count": 1}
    found = (await http.post(PREVIEW, json=body)).json()
    (dropped,) = found["dropped"]
    assert dropped["local"] == "2026-03-08T02:30:00"
    assert dropped["transition_utc"] == "2026-03-08T07:00:00+00:00"
    assert dropped["code"] == "gap_skip"


async def test_the_default_is_five_from_now(http):
    """Without count and from, the next five times in the service's zone are answered."""
    body = {"schedule_type": "cron", "cron": {"hour": 10}}
    found = (await http.post(PREVIEW, json=body)).json()
    assert len(found["occurrences"]) == 5
    assert found["timezone"] == "Asia/Tokyo"
    assert found["schedule"]["en"] == "Every minute from 10:00 to 10:59, every day (Asia/Tokyo)"


async def test_a_distant_first_time_is_said(http):
    """A schedule that first fires in years says in how many."""
    body = {"schedule_type": "crontab", "crontab": "0 0 29 2 *", "from": "2026-03-01"}
    found = (await http.post(PREVIEW, json=body)).json()
    assert found["first_fires_in"] == {"en": "in 2 years", "ja": "2年後"}


async def test_a_whole_job_may_be_previewed(http):
    """Fields of a job beside its schedule are let pass; unknown ones are named."""
    body = {**NIGHTLY, "target_url": "http://example.com/", "form": "x", "crontb": "y"}
    found = (await http.post(PREVIEW, json=body)).json()
    assert found["warnings"] == [
        "unknown field 'form' ignored; did you mean 'from'?",
        "unknown field 'crontb' ignored; did you mean 'crontab'?",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crontab": "0 0 31 2 *"}, "never fires"),
        ({"crontab": None}, "needs the field crontab"),
        ({"timezone": "Asia/Tokio"}, "Asia/Tokyo"),
        ({"from": "2300-01-01"}, "1970 and 2199"),
        ({"end_at": "2026-01-01", "from": "2026-02-01"}, "end_at"),
    ],
)
async def test_what_no_job_could_have_is_refused(http, changes, words):
    """An impossible schedule is refused as when a job is created, with the same code."""
    answer = await http.post(PREVIEW, json={**NIGHTLY, **changes})
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_schedule"
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "changes", "field"),
    [
        (PREVIEW, {"count": 0}, "count"),
        (PREVIEW, {"count": 1001}, "count"),
        (PREVIEW, {"count": True}, "count"),
        (PREVIEW, {"from": 5}, "from"),
        (PREVIEW, {"schedule_type": "hourly"}, "schedule_type"),
        (PREVIEW, {"jitter_sec": True}, "jitter_sec"),
        (SIMULATE, {"from": "2026-01-01"}, "until"),
    ],
)
async def test_malformed_fields(http, path, changes, field):
    """A malformed field is named in a 422."""
    answer = await http.post(path, json={**NIGHTLY, **changes})
    assert answer.status_code == 422
    assert [item["loc"][1] for item in answer.json()["detail"]][-1] == field


async def test_next_times_of_a_job(http):
    """A stored job's next times are those of its schedule, the first one its next run time."""
    job_id = await stored(http)
    found = (await http.get(f"{JOBS}/{job_id}/next", params={"count": 3})).json()
    job = (await http.get(f"{JOBS}/{job_id}")).json()
    assert len(found["occurrences"]) == 3
    assert found["occurrences"][0]["scheduled_for_local"] == job["next_run_time"]
    assert (found["job_id"], found["status"], found["status_note"]) == (job_id, "running", None)


async def test_next_times_of_a_paused_job(http):
    """A paused job says that it is, and still shows when it would run."""
    job_id = await stored(http)
    assert (await http.post(f"{JOBS}/{job_id}/pause")).status_code == 200
    found = (await http.get(f"{JOBS}/{job_id}/next")).json()
    assert (found["status"], len(found["occurrences"])) == ("paused", 5)
    assert found["status_note"]["en"].startswith("The job is paused")


@pytest.mark.parametrize(
    ("path", "status"), [("none/next", 404), ("none/next?count=0", 422), ("none/next?count=x", 422)]
)
async def test_next_times_refused(http, path, status):
    """An unknown job is a 404, a malformed count a 422."""
    assert (await http.get(f"{JOBS}/{path}")).status_code == status


async def test_a_simulation_tells_every_transition(http):
    """Each transition has its offsets, its kind and what becomes of the schedule's times in it."""
    body = {**NIGHTLY, "crontab": "30 1,2 * * *", "from": "2026-01-01", "until": "2027-01-01"}
    answer = await http.post(SIMULATE, json=body)
    assert answer.status_code == 200
    gap, fold = answer.json()["transitions"]
    assert (gap["kind"], gap["at_utc"]) == ("gap", "2026-03-08T07:00:00+00:00")
    assert (gap["offset_before"], gap["offset_after"]) == ("-05:00", "-04:00")
    assert gap["walls"] == [
        {
            "local": "2026-03-08T02:30:00",
            "outcome": "run_after",
            "note": {"en": "runs right after the jump", "ja": "進んだ直後に実行"},
            "runs_at_utc": ["2026-03-08T07:00:00+00:00"],
            "runs_at_local": ["2026-03-08T03:00:00-04:00"],
        }
    ]
    assert (fold["kind"], fold["first_local"]) == ("fold", "2026-11-01T01:00:00")
    assert [wall["outcome"] for wall in fold["walls"]] == ["once_first"]


@pytest.mark.parametrize(
    ("begin", "until", "words"),
    [
        ("2026-01-01", "2036-02-01", "ten years"),
        ("2026-01-02", "2026-01-01", "before from"),
        ("1960-01-01", "1961-01-01", "1970"),
    ],
)
async def test_spans_are_bounded(http, begin, until, words):
    """A span that is too long, empty or beyond the known years is refused."""
    answer = await http.post(SIMULATE, json={**NIGHTLY, "from": begin, "until": until})
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


async def test_the_fields_are_those_of_a_job():
    """Each field of a schedule is defined as in the request that creates a job."""
    ours = ScheduleRequest.model_json_schema()["properties"]
    theirs = JobRequest.model_json_schema()["properties"]
    assert ours == {name: theirs[name] for name in ours}


async def test_answers_are_as_documented(http):
    """Examples work, and what is answered is valid against what is documented."""
    document = (await http.get("/openapi.json")).json()
    job_id = await stored(http)
    schemas = document["components"]["schemas"]
    calls = [
        ("post", PREVIEW, PREVIEW, schemas["PreviewRequest"]["examples"][0]),
        ("post", SIMULATE, SIMULATE, schemas["SimulationRequest"]["examples"][0]),
        ("get", f"{JOBS}/{{job_id}}/next", f"{JOBS}/{job_id}/next", None),
    ]
    for method, template, path, body in calls:
        answer = await http.request(method, path, json=body)
        assert answer.status_code == 200
        described = document["paths"][template][method]["responses"]["200"]
        schema = described["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(answer.json())
