"""When the scheduler was at work: what came due while it was not, an outage made late.

What is late because much is due at once is not an outage's: the scheduler saw it come. The window
and the ledger note that they work (``note``), and a time longer than ``PresenceOptions.gap``
between two notes is an absence: the process was stopped or suspended, the clock was set forward,
or the database could not be read or written.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.clock import Clock

# Absences remembered; what came due in older ones has its row, or is one of few.
_ABSENCES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceOptions:
    """What counts as an absence."""

    # Twice the pause between two readings of the window.
    gap: timedelta = timedelta(seconds=5)


class Presence:
    """Notes of the event loop, asked by the writer's thread."""

    def __init__(self, *, clock: Clock, options: PresenceOptions) -> None:
        self._clock = clock
        self._gap = options.gap
        self._began = self._last = clock.now()
        self._failing = False
        self._absences: deque[tuple[datetime, datetime]] = deque(maxlen=_ABSENCES_MAX)

    def begin(self) -> None:
        """Begin anew: whatever came due before now did so without this process."""
        self._began = self._last = self._clock.now()
        self._failing = False
        self._absences.clear()

    def note(self) -> None:
        """Say that what is due now is seen; means nothing while commits fail."""
        if self._failing:
            return
        now = self._clock.now()
        if now - self._last > self._gap:
            self._absences.append((self._last, now))
        self._last = now

    def fail(self) -> None:
        """Say that what is due cannot be written, until ``recover``."""
        self._failing = True

    def recover(self) -> None:
        """Say that what is due is written."""
        self._failing = False
        self.note()

    def was_away(self, instant: datetime) -> bool:
        """Tell whether an instant came due while nobody was at work, by more than the gap."""
        if self._began - instant > self._gap:
            return True
        absences = list(self._absences)
        if self._failing:
            absences.append((self._last, self._clock.now()))
        return any(since < instant and until - instant > self._gap for since, until in absences)
