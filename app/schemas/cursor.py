"""Cursors: where a page of a list ended, as text that says nothing to a client.

A cursor carries a digest of the filters it was made under: with others it would lead somewhere
else, so it is refused.
"""

import base64
import binascii
import hashlib
import json
from typing import Any

_DIGEST_CHARACTERS = 12
_TEXT_MAX = 2_000
_INTEGER_MAX = 2**63 - 1


class CursorError(ValueError):
    """A text is no cursor, or not one of this list; ``str`` says what to do."""


def write_cursor(position: list[Any], filters: object) -> str:
    """Write a position of numbers, texts and nulls."""
    document = json.dumps([_digest(filters), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(document.encode()).decode("ascii").rstrip("=")


def read_cursor(text: str, filters: object) -> list[Any]:
    """Read the position back. Raises ``CursorError``."""
    digest, *position = _load(text)
    if digest != _digest(filters):
        raise CursorError(
            "belongs to a request with other filters; repeat those, or begin without a cursor"
        )
    return position


def is_number(value: object) -> bool:
    """Tell whether a part of a position is an integer that databases hold."""
    return type(value) is int and 0 <= value <= _INTEGER_MAX


def is_text(value: str) -> bool:
    """Tell whether a part of a position is text that databases hold."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _load(text: str) -> list[Any]:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw) if len(text) <= _TEXT_MAX else None
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found:
        raise CursorError("is not a cursor; send next_cursor of the page before, or none")
    return found


def _digest(filters: object) -> str:
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:_DIGEST_CHARACTERS]
