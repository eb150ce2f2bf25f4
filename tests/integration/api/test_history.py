"""History as clients ask for it: filters, pages, totals, and what is refused."""

import asyncio
from datetime import datetime

import pytest
import pytest_asyncio

from tests.support.raw_server import RawServer, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = "/api/v1/executions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target():
    """Answer every request with 200."""
    async with RawServer((reply(),)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def job_id(api, target):
    """Give a job with five completed and three failed executions, oldest completed."""
    job_id = await api.stored(target_url=target.url(), max_instances=1)
    for _ in range(5):
        await api.act(job_id, "trigger")
    await api.finished(job_id, 5)
    job = {"job_id": job_id, "target_url": "http://127.0.0.1:9/", "replace_existing": True}
    assert (await api.create(**job)).status_code == 200
    for _ in range(3):
        await api.act(job_id, "trigger")
    await api.finished(job_id, 8)
    return job_id


async def pages(api, path, **parameters):
    """Follow cursors to the end; return the pages."""
    found = []
    while True:
        answer = await api.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        parameters["cursor"] = answer.json()["next_cursor"]
        if parameters["cursor"] is None:
            return found


def joined(found, name):
    """Put the items of pages together."""
    return [item for page in found for item in page[name]]


def paths(job_id):
    """List both ways to a job's history, each with the parameters that say whose."""
    return [(f"/api/v1/jobs/{job_id}/executions", {}), (ALL, {"job_id": job_id})]


async def test_a_filter_by_status(api, job_id):
    """Repeated or separated by commas, statuses choose; the total counts what matches."""
    for path, whose in paths(job_id):
        cases = ((["failed"], 3), (["failed", "completed"], 8), (["unknown,failed"], 3))
        for asked, count in cases:
            answer = await api.http.get(path, params={"status": asked, **whose})
            found = answer.json()
            assert (found["count"], found["total"], found["total_at_least"]) == (count, count, None)
            words = {word for item in asked for word in item.split(",")}
            assert {execution["status"] for execution in found["executions"]} <= words


async def test_a_filter_by_reason_and_cause(api, job_id):
    """Reasons and causes choose among executions, alone and together."""
    path = f"/api/v1/jobs/{job_id}/executions"
    for parameters, count in (
        ({"reason": "connect"}, 3),
        ({"reason": "connect", "cause": "manual"}, 3),
        ({"reason": "timeout"}, 0),
        ({"cause": "schedule"}, 0),
        ({"cause": "manual,schedule"}, 8),
    ):
        found = (await api.http.get(path, params=parameters)).json()
        assert (found["count"], found["total"]) == (count, count), parameters


async def test_a_filter_by_time(api, job_id):
    """A range holds what was due from its start up to, but not at, its end."""
    executions = (await api.get(f"/{job_id}/executions"))["executions"]
    times = sorted(datetime.fromisoformat(one["scheduled_for"]) for one in executions)
    for path, whose in paths(job_id):
        parameters = {"from": times[2].isoformat(), "to": times[5].isoformat(), **whose}
        found = (await api.http.get(path, params=parameters)).json()
        due = [datetime.fromisoformat(one["scheduled_for"]) for one in found["executions"]]
        assert due == times[4:1:-1]
        assert found["total"] == 3


async def test_an_offset_may_arrive_unquoted(api, job_id):
    """A plus sign that a client did not quote is read as one."""
    now = datetime.fromisoformat((await api.get(f"/{job_id}"))["created_at"])
    answer = await api.http.get(f"{ALL}?job_id={job_id}&from={now:%Y-%m-%dT%H:%M:%S}+09:00")
    assert answer.json()["count"] == 8


async def test_pages_follow_each_other(api, job_id):
    """Pages hold everything once, newest first; the last one has no cursor."""
    whole = (await api.get(f"/{job_id}/executions"))["executions"]
    for path, whose in paths(job_id):
        found = await pages(api, path, limit=3, **whose)
        assert [page["count"] for page in found] == [3, 3, 2]
        assert joined(found, "executions") == whole
        assert {page["total"] for page in found} == {8}
    failed = await pages(api, f"/api/v1/jobs/{job_id}/executions", limit=2, status="failed")
    assert [page["count"] for page in failed] == [2, 1]


async def test_pages_over_all_jobs(api, job_id):
    """All jobs' history is paged by birth, and by due instant when a time is asked for."""
    start = (await api.get(f"/{job_id}"))["created_at"]
    for path in (ALL, "/api/v1/jobs/executions/recent"):
        for parameters in ({}, {"from": start}, {"status": "failed,completed"}):
            found = await pages(api, path, limit=3, **parameters)
            ids = [one["execution_id"] for page in found for one in page["executions"]]
            assert len(ids) == len(set(ids)) >= 8


async def test_new_executions_do_not_move_a_page(api, target):
    """What is written between two pages is on neither of the following ones."""
    job_id = await api.stored(target_url=target.url())
    for _ in range(3):
        await api.act(job_id, "trigger")
    await api.finished(job_id, 3)
    path = f"/api/v1/jobs/{job_id}/executions"
    whole = (await api.http.get(path)).json()["executions"]
    first = (await api.http.get(path, params={"limit": 2})).json()
    await api.act(job_id, "trigger")
    await api.finished(job_id, 4)
    second = (await api.http.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert first["executions"] + second["executions"] == whole


async def test_the_link_leads_to_the_next_page(api, job_id):
    """The Link header holds the same request with the next cursor; the last page has none."""
    path = f"/api/v1/jobs/{job_id}/executions"
    answer = await api.http.get(path, params={"limit": 2, "status": "failed"})
    link = answer.headers["Link"]
    assert link.startswith("<?")
    assert link.endswith('>; rel="next"')
    following = await api.http.get(path + link[1 : link.index(">")])
    assert following.json()["count"] == 1
    assert "Link" not in following.headers


async def test_an_execution_tells_when_it_was_queued(api, job_id):
    """Each entry says when it was written, its attempts when they began and ended."""
    (execution, *_) = (await api.get(f"/{job_id}/executions?status=completed"))["executions"]
    detail = (await api.http.get(f"{ALL}/{execution['execution_id']}")).json()
    queued, started, ended = (
        datetime.fromisoformat(detail[name]) for name in ("queued_at", "started_at", "completed_at")
    )
    assert queued <= started <= ended
    (attempt,) = detail["attempt_list"]
    assert attempt["started_at"] == detail["started_at"]
    assert attempt["ended_at"] == detail["completed_at"]
    assert (attempt["outcome"], attempt["http_status_code"]) == ("response", 200)
    assert (attempt["reason"], attempt["error_message"]) == (None, None)
    assert detail["next_attempt_at"] is None


async def test_a_job_has_its_totals(api, job_id):
    """A job's detail counts every end there is."""
    totals = (await api.get(f"/{job_id}"))["totals"]
    expected = dict.fromkeys(("cancelled", "unknown", "skipped", "missed"), 0)
    assert totals == {**expected, "completed": 5, "failed": 3}


@pytest.mark.parametrize(
    ("parameters", "field", "words"),
    [
        ({"status": "faild"}, "status", ["failed", "completed", "did you mean failed?"]),
        ({"status": "nonsense"}, "status", ["queued", "missed"]),
        ({"reason": "time_out"}, "reason", ["did you mean timeout?", "retries_exhausted"]),
        ({"cause": "scheduled"}, "cause", ["did you mean schedule?", "backfill"]),
        ({"from": "yesterday"}, "from", ["2035-01-01T09:00:00+09:00"]),
        ({"to": "1"}, "to", ["must be a time"]),
        ({"from": "2030-01-02", "to": "2030-01-01"}, "to", ["later than from"]),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from", ["calendar"]),
        ({"cursor": "17"}, "cursor", ["next_cursor"]),
        ({"cursor": "x" * 3000}, "cursor", ["next_cursor"]),
        ({"cursor": "é"}, "cursor", ["next_cursor"]),
        ({"limit": "0"}, "limit", ["1"]),
        ({"limit": "1001"}, "limit", ["1000"]),
    ],
)
async def test_what_cannot_be_asked(api, parameters, field, words):
    """A malformed parameter is 422, in the list that clients parse, and says what is possible."""
    for path in (ALL, "/api/v1/jobs/executions/recent", "/api/v1/jobs/x/executions"):
        answer = await api.http.get(path, params=parameters)
        assert answer.status_code == 422, answer.text
        (problem,) = answer.json()["detail"]
        assert problem["loc"] == ["query", field]
        for word in words:
            assert word in problem["msg"]
        assert "nonsense" not in answer.text


async def test_a_cursor_belongs_to_its_filters(api, job_id):
    """With other filters, or for another job, a cursor is refused; with another limit it is not."""
    path = f"/api/v1/jobs/{job_id}/executions"
    cursor = (await api.http.get(path, params={"limit": 1})).json()["next_cursor"]
    assert (await api.http.get(path, params={"limit": 5, "cursor": cursor})).status_code == 200
    refused = [
        await api.http.get(path, params={"status": "failed", "cursor": cursor}),
        await api.http.get(ALL, params={"cursor": cursor}),
        await api.http.get("/api/v1/jobs/other/executions", params={"cursor": cursor}),
    ]
    for answer in refused:
        assert answer.status_code == 422
        assert "other filters" in answer.json()["title"]


async def test_an_unknown_job_has_no_history(api):
    """A job that never was is 404, also where it is a filter."""
    for path, whose in paths("never-was"):
        answer = await api.http.get(path, params=whose)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_jobs_in_pages(api):
    """Pages of jobs follow each other in the order of the whole list, which stays whole."""
    await asyncio.gather(*(api.stored(cron={"year": str(2070 + n)}) for n in range(7)))
    for _ in range(3):
        await api.act(await api.stored(), "pause")
    whole = await api.get("")
    assert whole["next_cursor"] is None
    assert whole["total"] == len(whole["jobs"])
    found = await pages(api, "/api/v1/jobs", limit=4)
    assert joined(found, "jobs") == whole["jobs"]
    assert {page["total"] for page in found} == {whole["total"]}
    assert {len(page["jobs"]) for page in found[:-1]} == {4}


async def test_jobs_by_status(api):
    """A status chooses jobs as the list names it; several go together."""
    whole = (await api.get(""))["jobs"]
    for words in ("paused", "running", "paused,running", "completed,broken"):
        found = await pages(api, "/api/v1/jobs", limit=3, status=words)
        expected = [job for job in whole if job["status"] in words.split(",")]
        assert joined(found, "jobs") == expected
        assert found[0]["total"] == len(expected)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"status": "active"}, "status"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "bm8"}, "cursor"),
    ],
)
async def test_what_cannot_be_asked_of_the_list(api, parameters, field):
    """A malformed parameter of the list of jobs is 422 and named."""
    answer = await api.http.get("/api/v1/jobs", params=parameters)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", field]


async def test_a_cursor_of_jobs_belongs_to_its_filter(api):
    """A cursor of one status leads nowhere under another."""
    cursor = (await api.get("?limit=1&status=running"))["next_cursor"]
    answer = await api.http.get("/api/v1/jobs", params={"status": "paused", "cursor": cursor})
    assert answer.status_code == 422


@pytest.mark.usefixtures("job_id")
async def test_a_range_that_holds_nothing(api):
    """A range in the far future is empty, and is told to be so exactly."""
    found = (await api.http.get(ALL, params={"from": "2090-01-01"})).json()
    assert (found["executions"], found["total"], found["next_cursor"]) == ([], 0, None)
