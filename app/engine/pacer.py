"""Spreads the starts of what is found late, so that the end of an outage is not a storm."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.clock import Clock
from app.domain.execution import NewExecution


@dataclass(frozen=True, slots=True, kw_only=True)
class PacerOptions:
    """What counts as late here, and how fast it may start."""

    # Late starts per second over all jobs; None: as fast as they come.
    starts_per_second: float | None = 50.0
    # A run found less late than this starts at once: a herd due in one second is not an outage.
    late_after: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Check the rate."""
        if self.starts_per_second is not None and self.starts_per_second <= 0:
            raise ValueError("starts_per_second must be positive")


class Pacer:
    """Gives late runs the next free start; not thread-safe, used by one writer at a time."""

    def __init__(self, *, clock: Clock, options: PacerOptions) -> None:
        self._clock = clock
        self._late_after = options.late_after
        rate = options.starts_per_second
        self._gap_seconds = None if rate is None else 1 / rate
        self.free_at = clock.monotonic()

    def place(self, rows: list[NewExecution], *, now: datetime) -> list[NewExecution]:
        """Return the rows, those that wait and are late with a start of their own from ``now``."""
        gap = self._gap_seconds
        if gap is None:
            return rows
        cut = now - self._late_after
        return [
            self._start(row, now, gap)
            if row.next_attempt_at is not None and row.next_attempt_at < cut
            else row
            for row in rows
        ]

    def _start(self, row: NewExecution, now: datetime, gap_seconds: float) -> NewExecution:
        monotonic = self._clock.monotonic()
        start = max(self.free_at, monotonic)
        self.free_at = start + gap_seconds
        return replace(row, next_attempt_at=now + timedelta(seconds=start - monotonic))
