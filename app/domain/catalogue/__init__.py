"""Cause and fix of everything that can go wrong, in English and Japanese: one text for all places.

API, pages, notifications and docs/errors.md show these texts; nothing else words them anew. One
module per group of reasons, and one for the error codes of the API. Standard library only.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from app.domain.catalogue.attempt_failures import ATTEMPT_FAILURES
from app.domain.catalogue.entry import (
    GROUP_TITLES,
    CatalogueEntry,
    ErrorEntry,
    Group,
    ReasonEntry,
    Text,
)
from app.domain.catalogue.error_codes import ERROR_CODES
from app.domain.catalogue.interruptions import INTERRUPTIONS
from app.domain.catalogue.misses import MISSES
from app.domain.catalogue.omissions import OMISSIONS
from app.domain.execution import Reason

__all__ = [
    "GROUP_TITLES",
    "CatalogueEntry",
    "ErrorEntry",
    "Group",
    "ReasonEntry",
    "Text",
    "all_errors",
    "all_reasons",
    "error_entry",
    "nearest_code",
    "reason_entry",
]

_REASONS: Mapping[Reason, ReasonEntry] = {
    **ATTEMPT_FAILURES,
    **OMISSIONS,
    **MISSES,
    **INTERRUPTIONS,
}
_LIKENESS_MIN = 0.6


def reason_entry(reason: Reason) -> ReasonEntry:
    """Explain a reason; every one has an entry."""
    return _REASONS[reason]


def error_entry(code: str) -> ErrorEntry | None:
    """Explain an error code of the API; None if there is no such code."""
    return ERROR_CODES.get(code)


def all_reasons() -> Mapping[Reason, ReasonEntry]:
    """List every reason with its entry, group by group."""
    return _REASONS


def all_errors() -> Mapping[str, ErrorEntry]:
    """List every error code with its entry, in the order of their HTTP statuses."""
    return ERROR_CODES


def nearest_code(word: str) -> str | None:
    """Guess which reason or error code was meant, whatever the case; None if none is close."""
    codes = dict.fromkeys([*_REASONS, *ERROR_CODES])
    close = get_close_matches(word.casefold(), codes, n=1, cutoff=_LIKENESS_MIN)
    return str(close[0]) if close else None
