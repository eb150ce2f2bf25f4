"""The short way of plain requests: nobody can tell it from FastAPI's own."""

import json
from typing import Any

import pytest

from tests.integration.api.conftest import JOB, JOBS

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A parameter that no endpoint knows is ignored, and sends a request the long way.
LONG_WAY = {"nobody_knows_this": "1"}
VOLATILE = {"x-request-id", "date"}


async def ask_twice(api: Any, path: str, **query: Any) -> tuple[Any, Any]:
    """Ask plainly and the long way; return both answers without what differs at every request."""
    answers = [await api.http.get(path, params={**query, **more}) for more in ({}, LONG_WAY)]
    return tuple(
        (
            answer.status_code,
            {name: value for name, value in answer.headers.items() if name not in VOLATILE},
            answer.content,
        )
        for answer in answers
    )  # type: ignore[return-value]  # two answers, of two requests


@pytest.mark.parametrize("query", [{}, {"limit": 1}, {"limit": 0}, {"limit": "x"}, {"cursor": "x"}])
@pytest.mark.parametrize("path", ["", "/executions/recent", "/{id}/executions", "/{id}", "/no-job"])
async def test_both_ways_answer_alike(api, path: str, query: dict[str, Any]):
    """Status, headers and body of a page are the same, refusals included."""
    job_id = await api.stored()
    await api.act(job_id, "pause")
    short, long = await ask_twice(api, JOBS + path.format(id=job_id), **query)
    if "link" in long[1]:
        long[1]["link"] = long[1]["link"].replace("nobody_knows_this=1&", "")
    assert short == long


async def test_a_key_does_not_change_the_answer(api):
    """A creation with a key, and one whose type is spelled differently, answer like a plain one."""
    answers = []
    for content_type in ("application/json", "application/problem+json; charset=utf-8"):
        document = {**JOB, "job_id": api.new_id(), "timeot_sec": 1}
        answer = await api.http.post(
            JOBS,
            content=json.dumps(document).encode(),
            headers={"Content-Type": content_type, "Idempotency-Key": document["job_id"]},
        )
        assert answer.status_code == 200
        found = answer.json()
        assert found.pop("job_id") == document["job_id"]
        answers.append(found)
    assert answers[0] == answers[1]


async def test_a_body_that_is_refused_is_judged_once_more(api):
    """What the short way does not take is worded by FastAPI, which reads the same body again."""
    answer = await api.send({**JOB, "timeout_sec": -1})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "timeout_sec"]
