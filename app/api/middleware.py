"""Pure ASGI middleware: trailing slashes, HEAD, and request ids."""

import re

import structlog
import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a client may choose as a request id: it is logged and sent back.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class TrailingSlashMiddleware:
    """Serves ``/path/`` as ``/path``, since clients follow no redirects; and NUL as U+FFFD.

    No name of ours has either, and PostgreSQL takes no text with NUL: it would seem to be away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under the path without its slash."""
        path = scope.get("path", "")
        if scope["type"] == "http" and ("\x00" in path or b"%00" in scope.get("query_string", b"")):
            path = path.replace("\x00", "\ufffd")
            query = scope.get("query_string", b"").replace(b"%00", b"%EF%BF%BD")
            scope = {**scope, "path": path, "query_string": query}
        if scope["type"] == "http" and path.startswith("/api/") and path.endswith("/"):
            scope = {**scope, "path": path[:-1]}
        await self._app(scope, receive, send)


class HeadMiddleware:
    """Answers HEAD as GET without the body, which monitors rely on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD on as a GET and keep back what its body would be."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


class RequestIdMiddleware:
    """Binds a request id to the log lines of a request and answers it as ``X-Request-ID``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the client's id if it is harmless, else make one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(scope) or str(uuid_utils.uuid7())
        header = (b"x-request-id", request_id.encode())
        # For the answer to an unforeseen error, which is made outside of this middleware.
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            structlog.contextvars.reset_contextvars(**bound)


def _given(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None
