"""Request bodies are JSON as RFC 8259 has it: no NaN, no doubled keys, no bottomless nesting.

What Python's parser lets pass but cannot be sent on, stored or answered faithfully ends here as a
malformed request, before any model sees it. A body has a limit of bytes and one of time.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

# Said to FastAPI: its own limit answers in plain text, so that ours stands alone.
NO_LIMIT = sys.maxsize


class StrictJsonRequest(Request):
    """A request whose ``json()`` is strict and whose body is limited.

    A body that is not whole ``app.state.body_seconds`` after its head is refused (408).
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, _in_time(receive, scope["app"].state.body_seconds))

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Read the body; one larger than ``app.state.request_bytes_max`` is refused (413)."""
        bytes_max: int = self.app.state.request_bytes_max
        announced = self.headers.get("content-length", "")
        size = int(announced) if announced.isascii() and announced.isdigit() else 0
        if size > bytes_max:
            raise HTTPException(413)
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > bytes_max:
                raise HTTPException(413)
            yield chunk

    async def json(self) -> Any:
        """Parse the body; raises ``json.JSONDecodeError`` for whatever is wrong with it."""
        body = await self.body()
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("the body is not UTF-8", "", error.start) from error
        try:
            return json.loads(
                text,
                parse_constant=_refuse_constant,
                parse_int=_read_integer,
                object_pairs_hook=_unique_keys,
            )
        except json.JSONDecodeError:
            raise
        except RecursionError as error:
            raise json.JSONDecodeError("the body is nested too deeply", "", 0) from error
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class StrictJsonRoute(APIRoute):
    """A route that reads its body through ``StrictJsonRequest``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the usual handler."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictJsonRequest(request.scope, request.receive))

        return handle_strictly


def _in_time(receive: Receive, seconds: float) -> Receive:
    deadline = asyncio.get_running_loop().time() + seconds
    is_whole = False

    async def receive_in_time() -> Message:
        nonlocal is_whole
        try:
            async with asyncio.timeout_at(None if is_whole else deadline):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408) from error
        is_whole = not message.get("more_body", False)
        return message

    return receive_in_time


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _read_integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError as error:
        raise ValueError("a number has too many digits") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same key twice")
    return found
