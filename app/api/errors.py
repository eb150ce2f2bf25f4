"""From errors to answers: the only place that knows which refusal is which HTTP status.

All are ``application/problem+json`` (RFC 9457). ``detail`` is a sentence that says what to change;
a 422 keeps the list of fields that clients of this API parse in ``detail`` and puts the sentence
into ``title``. The input is never repeated, and an unforeseen error shows nothing of itself.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.domain.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    SchedulerError,
    UnavailableError,
)
from app.schemas.problem import Problem, ValidationProblem

log = structlog.get_logger(__name__)

_STATUSES: tuple[tuple[type[SchedulerError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (InvalidError, HTTPStatus.BAD_REQUEST),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)
# The database is usually back, or a restart over, within this.
_RETRY_AFTER_SECONDS = "5"
_MEDIA_TYPE = "application/problem+json"
_HTTP_CODES = {
    404: "path_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    # main/connections.py refuses with these before there is a request.
    431: "head_too_large",
    503: "too_many_connections",
}
# The codes that no refusal of the domain has.
_OWN_CODES = {
    "malformed_request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_request": HTTPStatus.BAD_REQUEST,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    **{code: HTTPStatus(status) for status, code in _HTTP_CODES.items()},
}
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_MESSAGES_MAX = 3
_PROBLEMS_MAX = 100

_DESCRIPTIONS = {
    400: "The schedule is missing, impossible or never fires, or fields contradict each other.",
    404: "There is no such job, execution or reason.",
    408: "The body did not arrive in time.",
    409: "The job exists already or cannot run as it is, or the execution has ended.",
    413: "The request is larger than the limit.",
    422: "A field is malformed.",
    500: "The service failed; its log has the details.",
    503: "The database does not take changes right now; nothing was stored, except maybe where "
    "the code is storage_unanswered. See Retry-After; under storage_damaged an operator is needed.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the error answers of an endpoint; 500 and 503 belong to all, 408 goes with 413.

    The schemas stand in place: what FastAPI makes of a ``model`` it puts under
    ``application/json``.
    """
    answers: dict[int | str, dict[str, Any]] = {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {
                _MEDIA_TYPE: {
                    "schema": _inlined(
                        ValidationProblem if status == HTTPStatus.UNPROCESSABLE_ENTITY else Problem
                    )
                }
            },
        }
        for status in sorted({*statuses, *_reading_errors(statuses), 500, 503})
    }
    answers[503]["headers"] = {
        "Retry-After": {"description": "Whole seconds to wait.", "schema": {"type": "integer"}}
    }
    return answers


def _reading_errors(statuses: Sequence[int]) -> tuple[int, ...]:
    return (HTTPStatus.REQUEST_TIMEOUT,) if HTTPStatus.REQUEST_ENTITY_TOO_LARGE in statuses else ()


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Write a model's JSON schema without references, so that it can stand anywhere."""
    schema = model.model_json_schema()
    nested = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, definition in nested.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(definition))
    inlined: dict[str, Any] = json.loads(text)
    return inlined


def http_statuses() -> dict[str, HTTPStatus]:
    """Tell the HTTP status of each error code; of codes that only stop a start, the would-be one.

    ``bad_request`` stands for 400 and any status that has no code of its own.
    """
    refusals = {
        error.code: status for family, status in _STATUSES for error in family.__subclasses__()
    }
    return {**refusals, **_OWN_CODES}


def install_error_handlers(app: FastAPI, *, request_bytes_max: int, body_seconds: float) -> None:
    """Make every refusal a problem document, that of a body too large or too slow as well."""
    app.state.request_bytes_max = request_bytes_max
    app.state.body_seconds = body_seconds

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return _http_problem(request, error, request_bytes_max)

    app.add_exception_handler(SchedulerError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_refusal(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SchedulerError)
    status = next((s for family, s in _STATUSES if isinstance(error, family)), None)
    if status is None:
        raise error
    headers = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return _problem(status, str(error), error.code, headers)


async def _on_malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [_field_problem(item) for item in error.errors()[:_PROBLEMS_MAX]]
    content = {
        "type": "about:blank",
        "title": _sentence(request, found),
        "status": 422,
        "detail": found,
        "code": "malformed_request",
    }
    return JSONResponse(content, status_code=422, media_type=_MEDIA_TYPE)


async def _on_unforeseen(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", None)
    log.error(
        "request.failed",
        path=request.url.path,
        method=request.method,
        request_id=request_id,
        exc_info=error,
    )
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The service failed while it handled this request; its log has the details",
        "internal_error",
        {} if request_id is None else {"X-Request-ID": request_id},
    )


def _http_problem(request: Request, error: HTTPException, request_bytes_max: int) -> JSONResponse:
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    match status:
        case HTTPStatus.NOT_FOUND:
            detail = "There is nothing at this path; the paths are listed at /docs"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed_methods(request))
            detail = f"{request.method} is not possible here; use {headers['Allow']}"
        case HTTPStatus.REQUEST_TIMEOUT:
            headers["Connection"] = "close"
            detail = "The request did not arrive in time; send it again"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            detail = f"The request is too large; at most {request_bytes_max} bytes are accepted"
        case _:
            detail = "The request could not be read; send well-formed JSON over HTTP"
    code = _HTTP_CODES.get(error.status_code, "bad_request")
    return _problem(status, detail, code, headers)


def _allowed_methods(request: Request) -> list[str]:
    """List the methods of a path; the router's own answer knows only the first of its routes."""
    found = [method for method in _METHODS if _is_served(request, method)]
    return found or ["GET", "HEAD"]  # no route of ours: a folder of files


def _is_served(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def problem_bytes(status: HTTPStatus, *, code: str, detail: str) -> bytes:
    """Write the problem document of a refusal that is made before there is an application."""
    return bytes(_problem(status, detail, code, {}).body)


def _problem(status: HTTPStatus, detail: str, code: str, headers: dict[str, str]) -> JSONResponse:
    content = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
    }
    return JSONResponse(content, status_code=status.value, media_type=_MEDIA_TYPE, headers=headers)


def _field_problem(item: dict[str, Any]) -> dict[str, Any]:
    """Keep type, place and message of one problem; the input and its context may hold secrets."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "json_invalid":
        reason = str(item.get("ctx", {}).get("error", "it cannot be parsed"))
        message = f"The body is not valid JSON: {_printable(reason)}"
    elif item["type"] == "string_unicode":
        message = "must be text without lone surrogates"
    location = [_printable(part) if isinstance(part, str) else part for part in item["loc"]]
    return {"type": item["type"], "loc": location, "msg": message}


def _sentence(request: Request, found: Sequence[dict[str, Any]]) -> str:
    if _sent_json_as_something_else(request, found):
        return "The body was not read as JSON; send the header Content-Type: application/json"
    parts = [_clause(item) for item in found[:_MESSAGES_MAX]]
    more = len(found) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _clause(item: dict[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return f"{item['msg']} (at character {item['loc'][-1]})"
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"


def _sent_json_as_something_else(request: Request, found: Sequence[dict[str, Any]]) -> bool:
    """Recognise ``curl -d '{…}'`` without a header, which says it sends a form."""
    content_type = request.headers.get("content-type", "")
    return "json" not in content_type.lower() and any(
        item["loc"] == ["body"] and item["type"] in {"model_attributes_type", "dict_type"}
        for item in found
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])
