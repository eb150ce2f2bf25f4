"""The OpenAPI document and its page: complete, true, and nobody else's servers."""

import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no annotations are published
import pytest
import pytest_asyncio

from app import __version__

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = "/api/v1/jobs"
# What each operation can answer besides success and what belongs to all.
ERRORS = {
    ("get", JOBS): {"422"},
    ("post", JOBS): {"400", "409", "413", "422"},
    ("get", f"{JOBS}/{{job_id}}"): {"404", "422"},
    ("delete", f"{JOBS}/{{job_id}}"): {"404", "422"},
    ("post", f"{JOBS}/{{job_id}}/pause"): {"404", "422"},
    ("post", f"{JOBS}/{{job_id}}/resume"): {"404", "422"},
    ("post", f"{JOBS}/{{job_id}}/trigger"): {"404", "409", "413", "422"},
    ("get", f"{JOBS}/{{job_id}}/executions"): {"404", "422"},
    ("get", f"{JOBS}/executions/recent"): {"422"},
    ("get", "/api/v1/executions"): {"404", "422"},
    ("get", "/api/v1/executions/{execution_id}"): {"404", "422"},
    ("post", "/api/v1/executions/{execution_id}/cancel"): {"404", "409", "422"},
    ("get", f"{JOBS}/{{job_id}}/next"): {"404", "409", "422"},
    ("get", f"{JOBS}/{{job_id}}/explain"): {"404", "422"},
    ("post", "/api/v1/schedules/preview"): {"400", "413", "422"},
    ("post", "/api/v1/schedules/simulate"): {"400", "413", "422"},
    ("get", "/api/v1/ledger/verify"): {"404", "422"},
    ("get", "/api/v1/reasons"): set(),
    ("get", "/api/v1/reasons/{code}"): {"404", "422"},
}
FOREIGN = re.compile(
    r"(?:https?:)?//(?!example\.com|service\b)[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(api):
    """Read the document as a client does."""
    answer = await api.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document):
    """List (method, path, operation)."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Check a value against a schema of the document."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


async def test_every_operation_documents_its_answers(document):
    """Each operation names every status it can answer, with a description."""
    found = {(method, path): operation for method, path, operation in operations(document)}
    for key, errors in ERRORS.items():
        slow = {"408"} if "413" in errors else set()
        assert set(found.pop(key)["responses"]) == {"200", "500", "503"} | errors | slow, key
    assert {path for _, path in found} == {"/health", "/health/live", "/health/ready"}
    for _, _, operation in operations(document):
        assert all(answer["description"] for answer in operation["responses"].values())


async def test_problems_have_their_media_type(document):
    """Error answers are documented under application/problem+json alone, with a schema."""
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if path.startswith("/health"):
                continue
            media_type = "application/json" if status == "200" else "application/problem+json"
            assert list(answer["content"]) == [media_type], (path, status)
            assert answer["content"][media_type]["schema"]
            if status == "503":
                assert "Retry-After" in answer["headers"]


async def test_every_operation_says_what_it_is(document):
    """Each operation has a summary, a description, a tag and an id of its own."""
    for _, path, operation in operations(document):
        for name in ("summary", "description", "tags", "operationId"):
            assert operation[name], (path, name)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert document["info"]["version"] == __version__


def examples(node: Any) -> list[tuple[dict[str, Any], Any]]:
    """Find each schema that has examples, with each example."""
    if isinstance(node, list):
        return [found for item in node for found in examples(item)]
    if not isinstance(node, dict):
        return []
    here = [(node, example) for example in node.get("examples", [])]
    return here + [
        found for name, item in node.items() if name != "examples" for found in examples(item)
    ]


async def test_examples_are_valid(document):
    """Every example is valid against the schema it stands in."""
    found = examples(document)
    assert len(found) > 15
    for schema, example in found:
        inner = schema.get("schema", schema)
        check(document, inner, example)


async def test_the_example_of_a_job_works(api, document):
    """The documented job can be created as it stands."""
    example = document["components"]["schemas"]["JobRequest"]["examples"][0]
    answer = await api.send(example)
    assert answer.status_code == 200
    assert answer.json()["warnings"] == []


async def test_answers_are_as_documented(api, document):
    """What the service answers is valid against what it documents, for successes and errors."""
    job_id = await api.stored(target_url="http://127.0.0.1:9/")
    triggered = await api.act(job_id, "trigger")
    execution_id = triggered.json()["execution_id"]
    await api.finished(job_id)
    new = {"schedule_type": "cron", "cron": {"minute": 5}, "target_url": "http://example.com/"}
    calls: list[tuple[str, str, str, Any]] = [
        ("get", JOBS, JOBS, None),
        ("post", JOBS, JOBS, new),
        ("post", JOBS, JOBS, {**new, "cron": {}}),
        ("post", JOBS, JOBS, {**new, "job_id": job_id}),
        ("post", JOBS, JOBS, {**new, "cron": {"minute": []}}),
        ("post", JOBS, JOBS, {**new, "body": "x" * 300_000}),
        ("get", f"{JOBS}/{{job_id}}", f"{JOBS}/{job_id}", None),
        ("get", f"{JOBS}/{{job_id}}", f"{JOBS}/none", None),
        ("post", f"{JOBS}/{{job_id}}/pause", f"{JOBS}/{job_id}/pause", None),
        ("post", f"{JOBS}/{{job_id}}/resume", f"{JOBS}/{job_id}/resume", None),
        ("post", f"{JOBS}/{{job_id}}/trigger", f"{JOBS}/{job_id}/trigger", None),
        ("post", f"{JOBS}/{{job_id}}/trigger", f"{JOBS}/none/trigger", None),
        ("get", f"{JOBS}/{{job_id}}/executions", f"{JOBS}/{job_id}/executions", None),
        ("get", f"{JOBS}/{{job_id}}/executions", f"{JOBS}/{job_id}/executions?limit=0", None),
        ("get", f"{JOBS}/executions/recent", f"{JOBS}/executions/recent", None),
        (
            "get",
            "/api/v1/executions/{execution_id}",
            f"/api/v1/executions/{execution_id}",
            None,
        ),
        ("get", f"{JOBS}/{{job_id}}/explain", f"{JOBS}/{job_id}/explain", None),
        ("get", f"{JOBS}/{{job_id}}/explain", f"{JOBS}/none/explain", None),
        ("get", f"{JOBS}/{{job_id}}/explain", f"{JOBS}/{job_id}/explain?at=soon", None),
        ("get", "/api/v1/ledger/verify", "/api/v1/ledger/verify", None),
        ("get", "/api/v1/ledger/verify", "/api/v1/ledger/verify?job_id=none", None),
        ("get", "/api/v1/ledger/verify", "/api/v1/ledger/verify?from=soon", None),
        ("get", "/api/v1/executions", "/api/v1/executions?limit=1", None),
        ("get", JOBS, f"{JOBS}?limit=1", None),
        (
            "post",
            "/api/v1/executions/{execution_id}/cancel",
            f"/api/v1/executions/{execution_id}/cancel",
            None,
        ),
        ("get", "/api/v1/reasons", "/api/v1/reasons", None),
        ("get", "/api/v1/reasons/{code}", "/api/v1/reasons/timeout", None),
        ("get", "/api/v1/reasons/{code}", "/api/v1/reasons/none", None),
        ("delete", f"{JOBS}/{{job_id}}", f"{JOBS}/{job_id}", None),
        ("get", "/health", "/health", None),
        ("get", "/health/ready", "/health/ready", None),
    ]
    statuses = set()
    for method, template, path, body in calls:
        answer = await api.http.request(method, path, json=body)
        statuses.add(answer.status_code)
        described = document["paths"][template][method]["responses"][str(answer.status_code)]
        media_type = answer.headers["Content-Type"]
        check(document, described["content"][media_type]["schema"], answer.json())
    assert statuses == {200, 400, 404, 409, 413, 422}


async def test_the_page_loads_from_here_alone(api):
    """/docs and everything it loads come from this service."""
    page = await api.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert not FOREIGN.search(page.text)
    assert '"validatorUrl": null' in page.text
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 3
    for path in files:
        answer = await api.http.get(path)
        assert answer.status_code == 200
        assert len(answer.content) > 500
    assert "'/openapi.json'" in page.text


async def test_the_document_names_no_foreign_server(document):
    """The document points to no other host, but for examples."""
    assert not FOREIGN.search(json.dumps(document))


@pytest.mark.parametrize(
    "path", ["/docs/files/none.js", "/docs/files/../docs.py", "/docs/files/%2e%2e/docs.py"]
)
async def test_no_other_files(api, path):
    """Nothing beside the page's files is served."""
    answer = await api.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
