"""Spreads the starts of what an outage made late, so that its end is not a storm."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.clock import Clock
from app.domain.execution import NewExecution
from app.engine.presence import Presence


@dataclass(frozen=True, slots=True, kw_only=True)
class PacerOptions:
    """What counts as late here, and how fast it may start."""

    # Late starts per second over all jobs; None: as fast as they come.
    starts_per_second: float | None = 50.0
    # A run found less late than this starts at once.
    late_after: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Check the rate."""
        if self.starts_per_second is not None and self.starts_per_second <= 0:
            raise ValueError("starts_per_second must be positive")


class Pacer:
    """Gives late runs the next free start; not thread-safe, used by one writer at a time."""

    def __init__(self, *, clock: Clock, presence: Presence, options: PacerOptions) -> None:
        self._clock = clock
        self._presence = presence
        self._late_after = options.late_after
        rate = options.starts_per_second
        self._gap_seconds = None if rate is None else 1 / rate
        self.free_at = clock.monotonic()

    def place(self, rows: list[NewExecution], *, now: datetime) -> list[NewExecution]:
        """Return the rows, those an outage made late with a start of their own from ``now``.

        What is late because much was due at once goes as fast as it can.
        """
        gap = self._gap_seconds
        if gap is None:
            return rows
        cut = now - self._late_after
        return [
            self._start(row, now, gap)
            if row.next_attempt_at is not None
            and row.next_attempt_at < cut
            and self._presence.was_away(row.next_attempt_at)
            else row
            for row in rows
        ]

    def _start(self, row: NewExecution, now: datetime, gap_seconds: float) -> NewExecution:
        monotonic = self._clock.monotonic()
        start = max(self.free_at, monotonic)
        self.free_at = start + gap_seconds
        return replace(row, next_attempt_at=now + timedelta(seconds=start - monotonic))
