"""The ``Idempotency-Key`` header: a client's name for a request that it may have to send twice."""

import hashlib
from typing import Annotated

from fastapi import Header, Request
from pydantic import TypeAdapter, ValidationError

from app.services.idempotency import RequestKey

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again with the same request within 24 hours, the first answer is "
        "returned and nothing is done twice; with another request it is refused (409).",
    ),
]


_KEY = TypeAdapter[str | None](IdempotencyKey)


def has_plain_key(request: Request) -> bool:
    """Tell whether a request has no key, or one as it should be."""
    try:
        _KEY.validate_python(request.headers.get("idempotency-key"))
    except ValidationError:
        return False
    return True


async def request_key(request: Request) -> RequestKey | None:
    """Read the key and a digest of what it came with: method, path and body, byte for byte."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    digest.update(await request.body())
    return RequestKey(key, digest.hexdigest())
