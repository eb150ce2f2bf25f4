"""Paths, methods, slashes and request ids."""

import uuid

import pytest

from app import __version__
from tests.support.raw_server import RawServer, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = "/api/v1/jobs"


async def test_health(api):
    """GET /health answers the frozen sentence, the default zone and the package's version."""
    answer = await api.http.get("/health")
    assert answer.status_code == 200
    # Of replicas on one database this one need not have begun to lead.
    assert isinstance(answer.json()["leading"], bool)
    found = answer.json()
    leadership = found.pop("leadership")
    assert leadership.keys() == {
        "terms_won", "terms_lost", "takeovers", "cut_offs", "leading_since"
    }  # fmt: skip
    assert {**found, "leading": True} == {
        "message": "MyScheduler API is running",
        "timezone": "Asia/Tokyo",
        "version": __version__,
        "status": "ok",
        "service": "myscheduler",
        "leading": True,
    }


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probes(api, path):
    """Both probes answer 200 while the service is well."""
    assert (await api.http.get(path)).status_code == 200


async def test_both_spellings_of_every_collection(api):
    """With and without a trailing slash a path is answered directly, without a redirect."""
    job_id = await api.stored()
    for path in (JOBS, f"{JOBS}/executions/recent", f"{JOBS}/{job_id}/executions"):
        plain, slashed = await api.http.get(path), await api.http.get(f"{path}/")
        assert (plain.status_code, slashed.status_code) == (200, 200)
        assert plain.json() == slashed.json()
    for path in (f"{JOBS}/{job_id}/pause/", f"{JOBS}/{job_id}/resume/"):
        assert (await api.http.post(path)).status_code == 200


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/"])
async def test_creation_under_both_spellings(api, path):
    """POST works under both spellings of the collection and answers 200."""
    body = {
        "schedule_type": "cron",
        "cron": {"minute": "*"},
        "target_url": "http://127.0.0.1:9/",
    }
    answer = await api.http.post(path, json=body)
    assert answer.status_code == 200
    assert answer.json()["status"] == "scheduled"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", JOBS, "GET, POST"),
        ("PUT", JOBS, "GET, POST"),
        ("DELETE", f"{JOBS}/", "GET, POST"),
        ("TRACE", JOBS, "GET, POST"),
        ("BREW", JOBS, "GET, POST"),
        ("PATCH", f"{JOBS}/any", "DELETE, GET"),
        ("POST", f"{JOBS}/any", "DELETE, GET"),
        ("GET", f"{JOBS}/any/pause", "POST"),
        ("GET", f"{JOBS}/any/trigger", "POST"),
        ("DELETE", f"{JOBS}/any/executions", "GET"),
        ("POST", f"{JOBS}/executions/recent", "GET"),
        ("DELETE", "/health", "GET"),
        ("HEAD", f"{JOBS}/any/pause", "POST"),
        ("POST", "/docs/files/swagger-ui.css", "GET, HEAD"),
    ],
)
async def test_other_methods(api, method, path, allowed):
    """A method that a path does not know is 405, and Allow lists all that it knows."""
    answer = await api.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Allow"] == allowed
    if method != "HEAD":
        assert answer.json()["detail"] == f"{method} is not possible here; use {allowed}"
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/api/v1", "/api/v1/", "/api/v2/jobs", f"{JOBS}//", f"{JOBS}/a/b", "//"]
)
async def test_unknown_paths(api, path):
    """A path that does not exist is a problem that says where the paths are listed."""
    answer = await api.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing at this path; the paths are listed at /docs",
        "code": "path_not_found",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/trigger"),
        ("GET", "/executions"),
    ],
)
@pytest.mark.parametrize("job_id", ["ghost", "日本語", "executions", "%2e%2e"])
async def test_unknown_jobs(api, method, path, job_id):
    """A missing job is 404 with the frozen wording, whatever is asked of it."""
    answer = await api.http.request(method, f"{JOBS}/{job_id}{path}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    shown = ".." if job_id.startswith("%") else job_id
    assert answer.json()["detail"] == f"Job {shown} not found"
    assert answer.json()["code"] == "job_not_found"


async def test_unknown_execution(api):
    """A missing execution is 404."""
    answer = await api.http.get("/api/v1/executions/exe_none")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Execution exe_none not found"


async def test_recent_executions_is_not_a_job(api):
    """/jobs/executions/recent is the history of all jobs, even beside a job called executions."""
    await api.stored(job_id="executions")
    assert set(await api.get("/executions/recent")) >= {"executions", "count", "next_cursor"}
    assert (await api.get("/executions"))["job_id"] == "executions"
    assert (await api.get("/executions/executions"))["job_id"] == "executions"


@pytest.mark.parametrize("given", ["abc-1.2_3", "0" * 64])
async def test_a_harmless_request_id_comes_back(api, given):
    """A client's own X-Request-ID is answered."""
    answer = await api.http.get("/nope", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", "a b", "0" * 65, "é", "<script>"])
async def test_other_requests_get_an_id(api, given):
    """Without a harmless id a request gets a new one."""
    headers = {} if given is None else {"X-Request-ID": given.encode("latin-1")}
    answer = await api.http.get("/health", headers=headers)
    assert uuid.UUID(answer.headers["X-Request-ID"]).version == 7


async def test_authorization_of_clients_is_no_obstacle(api):
    """Clients send a bearer token when they have one; a service without authentication answers."""
    answer = await api.http.get(JOBS, headers={"Authorization": "Bearer token"})
    assert answer.status_code == 200


async def test_the_old_quick_start(api):
    """A cron job of every minute with GET is stored, and calls its target when triggered."""
    async with RawServer((reply('{"message": "MyScheduler API is running"}'),)) as target:
        execution = await api.run(cron={"minute": "*"}, target_url=target.url("/health"))
    assert execution["http_status_code"] == 200
    assert target.requests[0].line == b"GET /health HTTP/1.1"
