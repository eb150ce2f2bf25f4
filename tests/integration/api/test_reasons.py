"""The catalogue over HTTP, and the explanation that an execution carries."""

import pytest

from app.domain.catalogue import reason_entry
from app.domain.execution import ExecutionStatus, Reason

pytestmark = pytest.mark.asyncio(loop_scope="module")

REASONS = "/api/v1/reasons"
PUBLIC = "public, max-age=3600"


async def test_all_reasons_and_codes_are_listed(api):
    """The list has each reason and each error code once, with texts in both languages."""
    answer = await api.http.get(REASONS)
    listed = answer.json()

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == PUBLIC
    assert sorted(entry["code"] for entry in listed["reasons"]) == sorted(Reason)
    assert len({entry["code"] for entry in listed["errors"]}) == len(listed["errors"])
    for entry in [*listed["reasons"], *listed["errors"]]:
        for part in ("title", "cause", "fix"):
            assert entry[part]["en"]
            assert entry[part]["ja"]


async def test_a_reason_is_read(api):
    """A reason says its group, its statuses and whether it is in use."""
    answer = await api.http.get(f"{REASONS}/timeout")
    entry = reason_entry(Reason.TIMEOUT)

    assert answer.headers["Cache-Control"] == PUBLIC
    assert answer.json() == {
        "code": "timeout",
        "reason": {
            "code": "timeout",
            "group": "attempt_failed",
            "statuses": ["retrying", "failed"],
            "in_use": True,
            "title": {"en": "Timed out", "ja": "タイムアウト"},
            "cause": {"en": entry.cause.en, "ja": entry.cause.ja},
            "fix": {"en": entry.fix.en, "ja": entry.fix.ja},
        },
        "error": None,
    }


@pytest.mark.parametrize(
    ("code", "http_status"),
    [
        ("malformed_request", 422),
        ("invalid_job", 400),
        ("job_not_found", 404),
        ("path_not_found", 404),
        ("method_not_allowed", 405),
        ("job_exists", 409),
        ("request_too_large", 413),
        ("internal_error", 500),
        ("shutting_down", 503),
        ("storage_in_use", None),
    ],
)
async def test_an_error_code_is_read(api, code, http_status):
    """An error code says which HTTP status it comes with; null if it only stops a start."""
    answer = (await api.http.get(f"{REASONS}/{code}")).json()

    assert answer["reason"] is None
    assert answer["error"]["code"] == code
    assert answer["error"]["http_status"] == http_status


async def test_a_name_that_is_both_is_answered_as_both(api):
    """A reason that is an error code too is explained as each of them."""
    answer = (await api.http.get(f"{REASONS}/egress_denied")).json()

    assert answer["reason"]["statuses"] == [ExecutionStatus.FAILED]
    assert answer["error"]["http_status"] == 400


async def test_an_unused_reason_says_so(api):
    """A reason that nothing gives has no statuses and is not in use."""
    answer = (await api.http.get(f"{REASONS}/blackout")).json()

    assert (answer["reason"]["in_use"], answer["reason"]["statuses"]) == (False, [])


@pytest.mark.parametrize(("code", "hint"), [("time_out", "did you mean timeout? "), ("xyzzy", "")])
async def test_an_unknown_code_is_refused_with_a_guess(api, code, hint):
    """An unknown name is a 404 that offers a name spelled alike, and is not to be cached."""
    answer = await api.http.get(f"{REASONS}/{code}")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Cache-Control" not in answer.headers
    assert answer.json()["code"] == "reason_not_found"
    assert answer.json()["detail"] == (
        f"There is no reason or error code of this name; {hint}GET /api/v1/reasons lists all"
    )


async def test_an_execution_explains_its_reason(api):
    """One execution carries title, cause and fix of its reason; lists stay small."""
    execution = await api.run(target_url="http://127.0.0.1:9/")
    detail = (await api.http.get(f"/api/v1/executions/{execution['execution_id']}")).json()
    listed = (await api.http.get(f"{REASONS}/{detail['reason']}")).json()["reason"]

    assert detail["reason"] == "connect"
    assert detail["explanation"] == {part: listed[part] for part in ("title", "cause", "fix")}
    assert "explanation" not in execution
