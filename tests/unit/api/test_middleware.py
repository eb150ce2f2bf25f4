"""Middleware on scopes that are no HTTP requests."""

from typing import Any

from app.api.middleware import RequestIdMiddleware, TrailingSlashMiddleware


async def test_other_scopes_pass():
    """A lifespan or websocket scope passes through both, untouched."""
    seen = []

    async def app(scope, _receive, _send):
        seen.append(scope)

    async def unused(*_):
        raise AssertionError

    for kind in ("lifespan", "websocket"):
        scope: dict[str, Any] = {"type": kind, "path": "/api/x/", "headers": []}
        await RequestIdMiddleware(TrailingSlashMiddleware(app))(scope, unused, unused)
        assert seen.pop() == {"type": kind, "path": "/api/x/", "headers": []}


async def test_only_one_slash_goes():
    """One trailing slash is taken from API paths; others stay as they are."""
    paths = []

    async def app(scope, _receive, _send):
        paths.append(scope["path"])

    async def unused(*_):
        raise AssertionError

    for path in ("/api/v1/jobs/", "/api/v1/jobs//", "/docs/", "/"):
        await TrailingSlashMiddleware(app)({"type": "http", "path": path}, unused, unused)
    assert paths == ["/api/v1/jobs", "/api/v1/jobs/", "/docs/", "/"]
