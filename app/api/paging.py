"""What endpoints that answer in pages share: refusing parameters, and the link to the next page."""

import contextlib
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError

from app.schemas.history_request import QueryError


@contextlib.contextmanager
def refusing_query() -> Iterator[None]:
    """Refuse a parameter that cannot be as one that is malformed: 422, naming it."""
    try:
        yield
    except QueryError as error:
        location = ("query", error.parameter)
        problem = {"type": "value_error", "loc": location, "msg": str(error)}
        raise RequestValidationError([problem]) from error


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Add the link to the next page (RFC 8288), if there is one.

    It is relative, so that it holds behind any proxy.
    """
    if cursor is None:
        return
    kept = [(name, value) for name, value in parse_qsl(request.url.query) if name != "cursor"]
    response.headers["Link"] = f'<?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'
