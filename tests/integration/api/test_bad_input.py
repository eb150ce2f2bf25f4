"""Bad input: refused in words, never repeated, nothing stored, and the service goes on."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = {
    "job_id": "bad",
    "schedule_type": "cron",
    "cron": {"year": "2099"},
    "target_url": "http://127.0.0.1:9/hook",
}
DATE = {"schedule_type": "date", "run_at": "2035-01-01"}
# Planted in the input; no answer may hold it.
SECRET = "hunter2s3cr3t"
HUGE = 10**400
NOT_A_TEXT: list[Any] = [True, 1, 1.5, HUGE, [SECRET], {"a": SECRET}]
NOT_A_NUMBER: list[Any] = [None, True, False, SECRET, "", [1], {"a": 1}, "\x00", "NaN", "1_0_0_s"]
NOT_AN_OBJECT: list[Any] = [True, 1, SECRET, [SECRET], ""]
CONTROLS = [f"{SECRET}\x00", f"{SECRET}\r\nX: y", f"{SECRET}\x7f", f"{SECRET}\ud800"]

CASES: list[tuple[str, list[Any]]] = [
    ("job_id", NOT_A_TEXT),
    ("job_id", CONTROLS),
    ("job_id", ["", "a" * 256, ".", "..", f"{SECRET}/x", f"{SECRET}?", f"{SECRET}#", "a\\b"]),
    ("job_id", [f"{SECRET}%2Fx", "%2e%2e", "%00", " a", "a ", "\u2028", "a\u2029b", "\x85", "\t"]),
    ("name", NOT_A_TEXT),
    ("name", CONTROLS),
    ("name", [SECRET * 20]),
    ("schedule_type", [None, "", SECRET, "CRON", "daily", *NOT_A_TEXT, *CONTROLS]),
    ("target_url", [None, *NOT_A_TEXT, *CONTROLS]),
    ("target_url", ["", "/x", "example.com", "//example.com", "http:/h", "http:h", "http://"]),
    ("target_url", ["http:///x", "https://?x", "http://:80/", "ftp://h/", "file:///etc/passwd"]),
    ("target_url", ["javascript:alert(1)", "HTTPX://h/", "ws://h/", f"data:,{SECRET}"]),
    ("target_url", [f"http://u:{SECRET}@h/", f"http://{SECRET}@h/", "http://@h/", "http://:@h/"]),
    ("target_url", [f"http://h\\@{SECRET}/", f"http://h/{SECRET}\r\nX: y", f"http://h/ {SECRET}"]),
    ("target_url", ["http://h:0/", "http://h:65536/", "http://h:-1/", "http://h:80x/"]),
    ("target_url", ["http://h:+80/", "http://h:８０/", "http://h:99999999999999999999/"]),
    ("target_url", ["http://[::1", "http://::1/", "http://[zz]/", "http://[::1%25eth0]/"]),
    ("target_url", ["http://%68/", "http://*/", "http://a,b/", "http://<h>/", "http://a|b/"]),
    (
        "target_url",
        ["http://999.1.1.1/", "http://1.2.3.4.5/", "http://９９９.1.1.1/", "http://08.1/"],
    ),
    ("target_url", [f"http://h/#{SECRET}", "http://h/#", f"http://h/{SECRET * 700}"]),
    ("method", [None, "", SECRET, "TRACE", "CONNECT", "GET ", *NOT_A_TEXT, *CONTROLS]),
    ("headers", [True, 1, SECRET, [SECRET], [["A", SECRET]], ""]),
    ("headers", [{"A": None}, {"A": 1}, {"A": [SECRET]}, {"A": {"b": SECRET}}, {"A": True}]),
    ("headers", [{"A": f"{SECRET}\r\nX: y"}, {"A": f"{SECRET}\n"}, {"A": f"{SECRET}\x00"}]),
    ("headers", [{"A": f"{SECRET}\ud800"}, {"A": f"{SECRET}\x7f"}, {"A": f"{SECRET}\x1b"}]),
    ("headers", [{"": SECRET}, {"A B": SECRET}, {"A:": SECRET}, {"A\r\nX": SECRET}, {"é": SECRET}]),
    ("headers", [{"\ud800": SECRET}, {"A\x00": SECRET}, {"A": "1", "a": SECRET}]),
    ("headers", [{"Host": SECRET}, {"content-LENGTH": "1"}, {"Transfer-Encoding": "chunked"}]),
    ("headers", [{"Connection": "x"}, {"Upgrade": "x"}, {"TE": "x"}, {"webhook-id": SECRET}]),
    ("headers", [{f"A{number}": SECRET for number in range(65)}, {"A": SECRET * 2000}]),
    ("body", [f"{SECRET}\ud800", {"a": f"{SECRET}\udfff"}, {"\ud800": SECRET}, [[["\ud8ff"]]]]),
    ("body_type", [None, SECRET, "xml", 1, ["json"]]),
    ("timeout_sec", [*NOT_A_NUMBER, 0, -1, -0.0, 3600.1, 1e308, HUGE, "inf", "-inf"]),
    ("max_retries", [*NOT_A_NUMBER, -1, 101, 1.5, 1e308, HUGE, -HUGE]),
    ("retry_backoff_sec", [*NOT_A_NUMBER, -0.1, 3600.1, 1e308, HUGE]),
    ("retry_max_backoff_sec", [*NOT_A_NUMBER, -1, 86_401, HUGE]),
    ("retry_statuses", [None, 429, [200], [600], [SECRET], [HUGE], [429.5], [429] * 101]),
    ("follow_redirects", [None, SECRET, 2, [True], HUGE]),
    ("replace_existing", [None, SECRET, 2, [True], HUGE]),
    ("cron", NOT_AN_OBJECT),
    ("interval", NOT_AN_OBJECT),
    ("crontab", [*NOT_A_TEXT, SECRET * 30, f"{SECRET}\ud800"]),
    ("run_at", [*NOT_A_TEXT, "", SECRET, "now", "2035", "20350101", "20350101090000", "P1D"]),
    ("run_at", [4102444800, 4102444800000, "4102444800", "2035-13-01", "2035-02-29"]),
    ("run_at", ["2035-01-01T25:00", "2035-01-01T00:00+25:00", "2035-1-1", " 2035-01-01", "\x00"]),
    ("run_at", [f"2035-01-01T00:00:00{SECRET}", "２０３５-01-01", "2035-W01-1", "2035-01-01T"]),
    ("start_at", [*NOT_A_TEXT, SECRET, "tomorrow", 4102444800]),
    ("end_at", [*NOT_A_TEXT, SECRET, "tomorrow", 4102444800]),
    ("timezone", [*NOT_A_TEXT, SECRET * 30, f"{SECRET}\ud800"]),
    ("jitter_sec", [*NOT_A_NUMBER, -1, 3601, HUGE]),
    ("dst_gap", [None, SECRET, 1]),
    ("dst_fold", [None, SECRET, 1]),
    ("misfire_grace_time", [*NOT_A_NUMBER[1:], -1, 1e10, HUGE]),
    ("coalesce", [SECRET, 2, HUGE]),
    ("catch_up", [SECRET, 1, ["all"]]),
    ("catch_up_window_sec", [*NOT_A_NUMBER[1:], 0, -1, HUGE]),
    ("catch_up_max_runs", [*NOT_A_NUMBER, 0, 1001, HUGE]),
    ("max_instances", [*NOT_A_NUMBER, 0, 1001, 1.5, HUGE]),
    ("overlap_policy", [None, SECRET, 1]),
    ("on_crash", [None, SECRET, 1]),
]
NESTED: list[tuple[str, str, list[Any]]] = [
    *[("cron", name, [True, 1.5, [SECRET], {}, SECRET * 30, HUGE, f"{SECRET}\ud800"])
      for name in ("year", "month", "day", "week", "day_of_week", "hour", "minute", "second")],
    *[("interval", name, [True, 1.5, SECRET, [1], {}, HUGE, -HUGE, "", 10**13])
      for name in ("weeks", "days", "hours", "minutes", "seconds")],
]  # fmt: skip


async def check_refusal(api, document, name):
    """Check that a document is refused as malformed for one field, and nothing else happens."""
    before = await api.count()
    answer = await api.send(document)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert (problem["status"], problem["code"]) == (422, "malformed_request")
    assert problem["detail"]
    for item in problem["detail"]:
        assert set(item) == {"type", "loc", "msg"}
        assert item["loc"][0] == "body"
    assert name in problem["title"]
    assert SECRET not in answer.text
    assert "codec" not in answer.text
    assert await api.count() == before


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in CASES for value in values]
)
async def test_malformed_fields(api, name, value):
    """A malformed field is 422, named, with what to change; the value is not repeated."""
    await check_refusal(api, {**JOB, name: value}, name)


@pytest.mark.parametrize(
    ("outer", "inner", "value"),
    [(outer, inner, value) for outer, inner, values in NESTED for value in values],
)
async def test_malformed_parts_of_a_schedule(api, outer, inner, value):
    """A malformed part of cron or interval is 422 and named with its path."""
    document = {**JOB, "schedule_type": outer, outer: {inner: value}}
    await check_refusal(api, document, f"{outer}.{inner}")


@pytest.mark.parametrize(
    ("body_type", "body"),
    [
        ("form", [SECRET]),
        ("form", SECRET),
        ("form", {"a": [SECRET]}),
        ("form", {"a": None}),
        ("raw", {"a": SECRET}),
        ("raw", 1),
    ],
)
async def test_a_body_that_does_not_fit_its_type(api, body_type, body):
    """A body that its body_type cannot carry is 422."""
    await check_refusal(api, {**JOB, "body_type": body_type, "body": body}, "body")


@pytest.mark.parametrize("name", ["schedule_type", "target_url"])
async def test_missing_fields(api, name):
    """A missing field is named."""
    document = {key: value for key, value in JOB.items() if key != name}
    await check_refusal(api, document, name)


async def test_surrogates_in_unknown_names(api):
    """A field whose name is no text is refused, at any depth."""
    await check_refusal(api, {**JOB, f"{SECRET}\ud800": 1}, "surrogates")
    await check_refusal(api, {**JOB, "cron": {"\ud800": SECRET}}, "surrogates")


async def test_deep_bodies(api):
    """A body nested deeper than what can be handled everywhere is 422."""
    nested: Any = SECRET
    for _ in range(65):
        nested = [nested]
    await check_refusal(api, {**JOB, "body": nested}, "body")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"1", b'"hunter2s3cr3t"', b"true", b"hunter2s3cr3t", b"\x00"),
        *(b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a": hunter2s3cr3t}', b"{'a': 1}", b'{"a": 1,}'),
        *(b'{"timeout_sec": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 01}'),
        *(b'{"job_id": "a", "job_id": "b"}', b'{"cron": {"hour": "1", "hour": "2"}}'),
        *(b"[" * 100_000, b'{"a":' * 40_000, b'{"a": 1' + b"0" * 5000 + b"}"),
        *(json.dumps(JOB).encode("utf-16"), b'{"a": "\xe3\x81"}', b"a=b&c=hunter2s3cr3t"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_malformed_bodies(api, body, slash):
    """What is not one JSON object, strictly read, is 422 with a sentence."""
    before = await api.count()
    answer = await api.http.post(
        f"/api/v1/jobs{slash}", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "malformed_request"
    assert problem["title"]
    assert SECRET not in answer.text
    assert "sys." not in answer.text
    assert await api.count() == before


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "too many digits"),
        (b"\xff", "UTF-8"),
        (b"{", "at character 1"),
    ],
)
async def test_sentences_on_bodies(api, body, word):
    """The sentence says what is wrong with the body."""
    assert word in (await api.send_bytes(body)).json()["title"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "x",
        ";",
    ],
)
async def test_curl_without_a_header(api, content_type):
    """JSON sent as something else, as ``curl -d`` does, is told which header is missing."""
    answer = await api.send_bytes(json.dumps(JOB).encode(), content_type)
    assert answer.status_code == 422
    sentence = "The body was not read as JSON; send the header Content-Type: application/json"
    assert answer.json()["title"] == sentence


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [262_145, 10_000_000])
async def test_large_requests(api, size, chunked):
    """A request above the limit is 413 in words, announced or not, and nothing is stored."""
    before = await api.count()
    body = json.dumps({**JOB, "body": SECRET + "x" * size}).encode()

    async def chunks():
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    answer = await api.http.post(
        "/api/v1/jobs",
        content=chunks() if chunked else body,
        headers={"Content-Type": "application/json", "X-Request-ID": "large"},
    )
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == "large"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (413, "request_too_large")
    assert "at most 262144 bytes" in problem["detail"]
    assert await api.count() == before


async def test_the_largest_request(api):
    """A request of exactly the limit is read; its body is then too large to store."""
    document = {**JOB, "body": ""}
    room = 262_144 - len(json.dumps(document))
    answer = await api.send({**document, "body": "x" * room})
    assert answer.status_code == 400
    assert "at most 65536 are stored" in answer.json()["detail"]


@pytest.mark.parametrize("content_length", ["-1", "abc", "1e3", "", "٣"])
async def test_odd_content_lengths(api, content_length):
    """A Content-Length that is no number does no harm."""
    answer = await api.http.post(
        "/api/v1/jobs",
        content=b"{}",
        headers={"Content-Length": content_length.encode(), "Content-Type": "application/json"},
    )
    assert answer.status_code == 422


@pytest.mark.parametrize("job_id", ["a" * 256, "日" * 256])
async def test_long_ids_in_paths(api, job_id):
    """An id in a path that no job can have is refused and not repeated."""
    answer = await api.http.get(f"/api/v1/jobs/{job_id}")
    assert answer.status_code == 422
    assert "job_id" in answer.json()["title"]
    assert job_id not in answer.text


@pytest.mark.parametrize("path", ["%00", "%ff", "%0d%0aX:%20y", "a%2Fb", "%ed%a0%80", "%u0041"])
@pytest.mark.parametrize("action", ["", "/executions"])
async def test_hostile_paths(api, path, action):
    """Whatever bytes stand in a path, the answer is a 404 problem."""
    answer = await api.http.get(f"/api/v1/jobs/{path}{action}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail", "code"}


@pytest.mark.parametrize("path", ["/executions", "/ledger/verify"])
async def test_hostile_queries(api, path):
    """NUL in a query names nothing, and is no fault of the database."""
    answer = await api.http.get(f"/api/v1{path}?job_id=%00")
    assert answer.status_code == 404


async def test_many_problems_are_summed_up(api):
    """The title names the first three problems and counts the rest; the list holds all."""
    document = {"timeout_sec": -1, "max_retries": -1, "method": "x", "name": 1}
    problem = (await api.send(document)).json()
    assert len(problem["detail"]) == 6
    assert problem["title"].endswith("; and 3 more")


async def test_the_service_goes_on(api):
    """After all of the above the service is ready and takes a job."""
    assert (await api.http.get("/health/ready")).json()["status"] == "ready"
    assert await api.stored()
