"""How a loop fares: since when it fails, without a good stretch between.

A loop fails by raising, which ``tasks.py`` notes, or by having to repeat what it does, which its
station notes. It is well again when a round of it was completed after the last failure and nothing
failed for ``_QUIET``: what fails in every other round is not well in between.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

# Longer than a loop's wait before it is started again and its own before its first round.
_QUIET = timedelta(seconds=2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A loop that fails: for how long, and why the last time."""

    seconds: float
    why: str


class Course:
    """Notes of one loop, on the event loop's clock, which a suspended machine stops."""

    __slots__ = ("_failed_at", "_since", "_went_on", "_why")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew: the loop is started for the first time, or again on purpose."""
        self._since: float | None = None
        self._failed_at = 0.0
        self._went_on = False
        self._why = ""

    def go_on(self) -> None:
        """Note a round that did what it was to do."""
        self._went_on = True

    def fail(self, why: str) -> None:
        """Note a failure; ``why`` is shown to whoever asks."""
        now = asyncio.get_running_loop().time()
        if self._since is None or self._is_well(now):
            self._since = now
        self._failed_at, self._went_on, self._why = now, False, why

    def failing(self) -> Failing | None:
        """Tell how it fails; None if it is well."""
        now = asyncio.get_running_loop().time()
        if self._since is None or self._is_well(now):
            return None
        return Failing(seconds=now - self._since, why=self._why)

    def _is_well(self, now: float) -> bool:
        return self._went_on and now - self._failed_at >= _QUIET.total_seconds()
