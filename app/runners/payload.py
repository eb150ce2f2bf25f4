"""A job's body as bytes: JSON, form or raw. Built once per job revision. May import the domain."""

import json
import re
from urllib.parse import urlencode

from app.domain.job import BodyType
from app.runners.failures import config_error

# A JSON string, or white space outside of one.
_STRING_OR_SPACE = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|\s+')
_SPACE = re.compile(r"\s")
# Numbers are left as they are: Python's own refuse some that JSON allows.
_CHECK = json.JSONDecoder(parse_float=str, parse_int=str)
_CONTENT_TYPES = {
    BodyType.JSON: b"application/json",
    BodyType.FORM: b"application/x-www-form-urlencoded",
    BodyType.RAW: b"text/plain; charset=utf-8",
}


def content_type(body_type: BodyType) -> bytes:
    """Name the media type a body is sent under, unless the job names its own."""
    return _CONTENT_TYPES[body_type]


def encode_body(body_json: str, body_type: BodyType) -> bytes:
    """Make the bytes of a body. Raises ``DeliveryError`` (config_error).

    JSON keeps every number and escape as written; only white space between tokens goes. A form is
    made of an object: lists repeat their field, null is empty, nested values are JSON text. Raw
    sends a JSON string's characters, and any other value as JSON text.
    """
    try:
        if body_type is BodyType.JSON:
            _CHECK.decode(body_json)
            return _compact(body_json).encode()
        value = json.loads(body_json, parse_float=_Literal, parse_int=_Literal)
        match body_type:
            case BodyType.FORM:
                text = _form(value)
            case BodyType.RAW:
                plain = isinstance(value, str) and not isinstance(value, _Literal)
                text = value if plain else _compact(body_json)
        return text.encode()
    except UnicodeEncodeError as error:
        raise config_error("The body contains characters that UTF-8 cannot carry") from error
    except (ValueError, RecursionError) as error:
        raise config_error("The stored body is not valid JSON; save the job again") from error


class _Literal(str):
    """A number as written, so that 1.0 and 10**30 survive."""

    __slots__ = ()


def _compact(body_json: str) -> str:
    if not _SPACE.search(body_json):
        return body_json
    return _STRING_OR_SPACE.sub(lambda found: found[1] or "", body_json)


def _form(value: object) -> str:
    if not isinstance(value, dict):
        raise config_error("A form body must be a JSON object of fields")
    pairs: list[tuple[str, str]] = []
    for name, entry in value.items():
        entries = entry if isinstance(entry, list) else [entry]
        pairs += [(name, _field(one)) for one in entries]
    return urlencode(pairs)


def _field(value: object) -> str:
    match value:
        case str():
            return str(value)
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return _nested(value)


def _nested(value: object) -> str:
    """Write JSON with numbers as they were: ``json.dumps`` would quote a ``_Literal``."""
    if isinstance(value, dict):
        inner = (f"{json.dumps(key)}:{_nested(one)}" for key, one in value.items())
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_nested, value)) + "]"
    if isinstance(value, _Literal):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
