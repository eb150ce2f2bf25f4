"""Request bodies are JSON as RFC 8259 has it: no NaN, no doubled keys, no bottomless nesting.

What Python's parser lets pass but cannot be sent on, stored or answered faithfully ends here as a
malformed request, before any model sees it. A body has a limit of bytes and one of time.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope


class StrictJsonRequest(Request):
    """A request whose ``json()`` is strict and whose body is limited.

    A body that is not whole ``app.state.body_seconds`` after its head is refused (408).
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._began = asyncio.get_running_loop().time()
        self._whole: bytes | None = None

    async def body(self) -> bytes:
        """Read the body; one larger than ``app.state.request_bytes_max`` is refused (413)."""
        if self._whole is None:
            state = self.app.state
            announced = self.headers.get("content-length", "")
            size = int(announced) if announced.isascii() and announced.isdigit() else 0
            if size > state.request_bytes_max:
                raise HTTPException(413)
            try:
                async with asyncio.timeout_at(self._began + state.body_seconds):
                    self._whole = await self._read(state.request_bytes_max)
            except TimeoutError as error:
                raise HTTPException(408) from error
        return self._whole

    async def _read(self, bytes_max: int) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise HTTPException(400)  # nobody is there to read it; as FastAPI does
            body += message.get("body", b"")
            if len(body) > bytes_max:
                raise HTTPException(413)
            more = message.get("more_body", False)
        return bytes(body)

    def receive_again(self) -> Receive:
        """Return what another reader of this request receives: the body once more, if it was read.

        What was read in part cannot be read again.
        """
        body = self._whole
        if body is None:
            return self.receive

        async def receive() -> Message:
            nonlocal body
            if body is None:
                return await self.receive()
            message = {"type": "http.request", "body": body, "more_body": False}
            body = None
            return message

        return receive

    async def json(self) -> Any:
        """Parse the body; raises ``json.JSONDecodeError`` for whatever is wrong with it."""
        body = await self.body()
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("the body is not UTF-8", "", error.start) from error
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("the body begins with a byte order mark", text, 0)
        try:
            return _decode(text)
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


_decode = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_read_integer, object_pairs_hook=_unique_keys
).decode
