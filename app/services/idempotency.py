"""Requests that may be sent twice and count once.

The first answer is stored in the transaction of the change itself; the same key with the same
request gets it again for 24 hours, with another request it is a conflict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from app.db.unit_of_work import ReadConnection, WriteConnection
from app.domain.errors import IdempotencyKeyReusedError
from app.repositories import idempotency_repository
from app.repositories.idempotency_repository import Answered


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A client's Idempotency-Key and a digest of the request it came with."""

    key: str
    request_hash: str


def answer_once(
    connection: WriteConnection,
    request_key: RequestKey | None,
    make: Callable[[], str],
    *,
    now: datetime,
) -> str:
    """Return the stored answer of a repeated request, else ``make`` the change and its answer.

    Raises ``IdempotencyKeyReusedError`` if the key belongs to another request.
    """
    if request_key is None:
        return make()
    idempotency_repository.take_turn(connection, request_key.key)
    known = find_answer(connection, request_key, now=now)
    if known is not None:
        return known
    answer = make()
    answered = Answered(request_key.request_hash, answer)
    idempotency_repository.remember(connection, request_key.key, answered, now=now)
    return answer


def find_answer(
    connection: ReadConnection, request_key: RequestKey, *, now: datetime
) -> str | None:
    """Return what this request was answered before; None if it is new.

    Raises ``IdempotencyKeyReusedError`` if the key belongs to another request.
    """
    known = idempotency_repository.find_answered(connection, request_key.key, now=now)
    if known is None:
        return None
    if known.request_hash != request_key.request_hash:
        raise IdempotencyKeyReusedError
    return known.answer
