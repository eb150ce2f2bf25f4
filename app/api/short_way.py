"""The short way of a plain request: what its endpoint needs, and nothing else.

FastAPI's own way solves dependencies, validates parameter by parameter and validates the answer
again: 150 µs of each creation, more than the rest of the API together. An endpoint that is called
often may name a function that answers plain requests by itself. Whatever is out of the ordinary
(a parameter that the function does not know, a malformed field) goes FastAPI's way as if there were
no other, so that there is one place where refusals are worded.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.strict_json import StrictJsonRequest

Model = TypeVar("Model", bound=BaseModel)

# Answers a plain request; None, before anything is done: the request is not plain.
Answer = Callable[[StrictJsonRequest], Awaitable[Response | None]]

_JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8"})
# What lists are asked for most; filters go the long way.
_PAGE_PARAMETERS = frozenset({"limit", "cursor"})


def take_short_way(router: APIRouter, endpoint: Callable[..., Any], answer: Answer) -> None:
    """Let ``answer`` answer the plain requests for an endpoint of a router."""
    (route,) = [
        route
        for route in router.routes
        if isinstance(route, APIRoute) and route.endpoint is endpoint
    ]
    route.app = _short_way(answer, route.app)


def json_answer(model: BaseModel) -> Response:
    """Answer a model, as FastAPI does once it has validated it."""
    return Response(model.__pydantic_serializer__.to_json(model), media_type="application/json")


async def read_plain_body(request: StrictJsonRequest, model: type[Model]) -> Model | None:
    """Read the body of a request that is as it should be; None: it is not."""
    if request.headers.get("content-type") not in _JSON_TYPES:
        return None
    try:
        return model.model_validate(await request.json())
    except (json.JSONDecodeError, ValidationError):
        return None


def read_plain_page(request: StrictJsonRequest, model: type[Model]) -> Model | None:
    """Read a query that names a page, and nothing else; None: it is another."""
    query = request.scope["query_string"]
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else []
    fields = dict(given)
    if len(fields) < len(given) or not fields.keys() <= _PAGE_PARAMETERS:
        return None
    try:
        return model.model_validate(fields)
    except ValidationError:
        return None


def _short_way(answer: Answer, usual: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = StrictJsonRequest(scope, receive)
        response = await answer(request)
        if response is None:
            await usual(scope, request.receive_again(), send)
        else:
            await response(scope, receive, send)

    return app
