"""The only place that reads the clock, and the two conversions of instants to integers.

Inside the program an instant is an aware UTC ``datetime``; in the database it is an integer of
microseconds since the epoch, which no driver can relabel. Imported by everyone.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where components get the time from; tests pass one they can move."""

    def now(self) -> datetime:
        """Tell the wall clock's instant, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Tell seconds since an arbitrary point; never goes back, whatever the wall clock does."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Tell the wall clock's instant, aware and in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place

    def monotonic(self) -> float:
        """Tell seconds since boot (suspended time included where the platform can say)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def to_us(instant: datetime) -> int:
    """Convert an aware instant to integer microseconds since 1970 UTC."""
    return (instant - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Convert integer microseconds since 1970 UTC to an aware UTC instant."""
    return EPOCH + timedelta(0, 0, us)
