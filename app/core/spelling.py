"""Guesses which name was meant. Pure; used by the configuration and by the command line."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name most like ``word``, whatever the case, or None if none is close."""
    by_folded = {name.casefold(): name for name in names}
    close = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def is_one_slip_away(word: str, name: str) -> bool:
    """Tell whether one slip of the hand made ``word`` of ``name``.

    A slip is one letter too many, too few, wrong, or swapped with its neighbour, or another case.
    """
    left, right = word.casefold(), name.casefold()
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    swapped = len(left) == 2 and left == right[::-1]  # noqa: PLR2004 - a pair of letters
    return swapped or max(len(left), len(right)) <= 1
