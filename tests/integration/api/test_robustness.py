"""No JSON object makes the service fail."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.schemas.job_request import CronFields, IntervalParts, JobRequest
from tests.support.homes import Home
from tests.support.service import open_api, settings_for

# Hypothesis drives the loop itself, one request per example, so that the service lives on.

HOSTILE_TEXTS = st.sampled_from(
    [
        *("", " ", "\x00", "\ud800", "\r\n", "*", "*/5", "1-5", "mon", "@daily", "0 0 * * 1"),
        *("2035-01-01", "9999-12-31", "0001-01-01", "2035-01-01T00:00:00Z", "UTC", "Asia/Tokyo"),
        *("http://h/", "https://[::1]:1/", "http://h:0/", "http://999.1.1.1/", "http://９.9.9.9/"),
        *("cron", "crontab", "interval", "date", "GET", "post", "form", "raw", "all", "none"),
        *("skip", "allow", "first", "both", "shift", "retry", "fail", "true", "1e999", "x" * 300),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.sampled_from([0, 1, -1, 10**400, 2**63, 1e308, 5e-324, -0.0, 0.5])
    | st.floats(allow_nan=False, allow_infinity=False)
    | HOSTILE_TEXTS
    | st.text(max_size=20)
    | st.text(st.characters(), max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(HOSTILE_TEXTS | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
TARGETS = st.sampled_from(["http://127.0.0.1:9/", "https://example.com/x?y", "http://日本.jp/"])


def parts_of(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Make objects of some of a model's fields."""
    names = st.sampled_from([*model.model_fields, "typo"])
    texts = st.sampled_from(["*", "0", "1", "5-3", "last", "2nd fri", "59"])
    return st.dictionaries(names, texts | st.integers(-5, 10**13) | SCALARS, max_size=3)


DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        name: VALUES
        | {
            "schedule_type": st.sampled_from(["cron", "interval", "date", "crontab"]),
            "target_url": TARGETS,
            "cron": parts_of(CronFields),
            "interval": parts_of(IntervalParts),
        }.get(name, SCALARS)
        for name in [*JobRequest.model_fields, "unknown"]
    },
)
# Most random documents fail early; these are whole but for a few fields.
NEARLY_VALID = st.builds(
    lambda base, changed: {**base, **changed},
    st.fixed_dictionaries(
        {
            "schedule_type": st.sampled_from(["cron", "interval", "date", "crontab"]),
            "target_url": TARGETS,
            "cron": parts_of(CronFields) | st.just({"minute": "0"}),
            "interval": parts_of(IntervalParts) | st.just({"hours": 1}),
            "run_at": st.sampled_from(["2035-01-01", "9999-12-31", "0001-01-01", "2020-01-01"]),
            "crontab": st.sampled_from(["0 0 * * *", "@daily", "0 0 31 2 *", "x"]),
        }
    ),
    st.dictionaries(st.sampled_from([*JobRequest.model_fields, "unknown"]), SCALARS, max_size=2),
)


@pytest.fixture(scope="module")
def loop_and_api(module_home: Home):
    """Serve on a loop that the examples borrow."""
    with asyncio.Runner() as runner:
        service = open_api(settings_for(module_home))
        client = runner.run(service.__aenter__())
        yield runner, client
        runner.run(service.__aexit__(None, None, None))


@settings(
    max_examples=1200,
    deadline=timedelta(seconds=2),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
@given(document=DOCUMENTS | NEARLY_VALID)
def test_any_object(loop_and_api, document):
    """Any object is stored or refused in JSON, never failed at; what is stored is readable."""
    runner, client = loop_and_api
    body = json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    answer = runner.run(client.post("/api/v1/jobs", content=body, headers=headers))
    assert answer.status_code in {200, 400, 409, 422}, answer.text
    if answer.status_code != 200:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        return
    job_id = answer.json()["job_id"]
    read = runner.run(client.get(f"/api/v1/jobs/{job_id.replace('%', '%25')}"))
    assert read.status_code == 200, read.text
    assert read.json()["id"] == job_id


@settings(max_examples=300, deadline=timedelta(seconds=2), derandomize=True, database=None)
@given(body=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(loop_and_api, body):
    """Any bytes as a body are refused in JSON."""
    runner, client = loop_and_api
    headers = {"Content-Type": "application/json"}
    answer = runner.run(client.post("/api/v1/jobs", content=body, headers=headers))
    assert answer.status_code in {400, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
