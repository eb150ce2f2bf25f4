"""Masks secrets in what is shown or logged. Pure; used by the logs and by ``config``.

A value is masked because of its key's name, or because it stands where a URL carries credentials.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "***"

_MASKED_NAMES = r"authorization|cookie|token|secret|passw(?:or)?d|api[_-]?key|credential"
_MASKED_KEY = re.compile(_MASKED_NAMES, re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")
# Lengths are bounded, so that no hostile text makes a search quadratic.
# A database password may hold / ? and #, anybody else's credentials end before them.
_USERINFO = re.compile(
    r"(?P<scheme>\bpostgres[a-z+]{0,20}://)[^@\s]{0,1000}@|(?P<other>[a-z0-9+.-]://)[^/?#\s]*@",
    re.IGNORECASE,
)
_MASKED_QUERY = re.compile(
    rf"([?&;][^=&;?\s]{{0,60}}(?:{_MASKED_NAMES}|signature|\bsig\b)[^=&;?\s]{{0,60}}=)[^&#\s]+",
    re.IGNORECASE,
)
# Most values of a log line; they are told apart before the slower questions below.
_PLAIN_TYPES = frozenset({int, float, bool, type(None)})
# Deeper than any value we log; a value that contains itself ends here too.
_DEPTH_MAX = 8


def mask_password(url: str) -> str:
    """Return a database address with ``***`` in place of its password; the user stays readable."""
    return _mask_query(_PASSWORD.sub(rf"\1:{MASK}@", url))


def mask_urls(text: str) -> str:
    """Return ``text`` with the credentials of every URL in it masked."""
    if "://" not in text:
        return text
    return _mask_query(_USERINFO.sub(_mask_userinfo, text))


def mask_secrets(value: Any, *, depth: int = 0) -> Any:
    """Return a copy of ``value`` in which what secret keys hold, at any depth, is ``***``.

    Strings lose the credentials of the URLs in them; everything else stays as it is.
    """
    if is_harmless(value):
        return value
    if isinstance(value, str | bytes):
        return mask_urls(value if isinstance(value, str) else value.decode("utf-8", "replace"))
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return value
    if depth >= _DEPTH_MAX:
        return MASK
    if isinstance(value, Mapping):
        return {
            key: MASK if is_secret_key(key) else mask_secrets(held, depth=depth + 1)
            for key, held in value.items()
        }
    return [_mask_item(item, depth=depth + 1) for item in value]


def is_harmless(value: Any) -> bool:
    """Tell at once of most values that ``mask_secrets`` would leave them as they are."""
    kind = type(value)
    return kind in _PLAIN_TYPES or (kind is str and "://" not in value)


@lru_cache(maxsize=1024)
def is_secret_key(key: Any) -> bool:
    """Tell whether a value under ``key`` is to be masked; remembered, since keys repeat."""
    text = key.decode("latin-1") if isinstance(key, bytes) else str(key)
    return _MASKED_KEY.search(text) is not None


def _mask_item(item: Any, *, depth: int) -> Any:
    """Mask one member of a sequence; a pair such as a header is judged by its name."""
    is_pair = isinstance(item, tuple | list) and len(item) == 2  # noqa: PLR2004 - name and value
    if is_pair and isinstance(item[0], str | bytes) and is_secret_key(item[0]):
        return [item[0], MASK]
    return mask_secrets(item, depth=depth)


def _mask_userinfo(found: re.Match[str]) -> str:
    return f"{found['scheme'] or found['other']}{MASK}@"


def _mask_query(text: str) -> str:
    return _MASKED_QUERY.sub(rf"\1{MASK}", text) if "=" in text else text
