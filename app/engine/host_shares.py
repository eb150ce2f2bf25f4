"""How many slots of a host this process tries for, after it was refused more than it has.

A pure data structure of the ready queue, for replicas. The others hold the rest, and nobody tells
when they give some back. So a refused host keeps the slots it has here, each end followed by a
start at once, and more are tried for after a rest that doubles from one refusal to the next.
"""

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.repositories.host_repository import Why

# Between tries for slots that others hold: how long a free one may stay unused, against a short
# transaction for each try.
_REST_FIRST = timedelta(milliseconds=10)
_REST_MAX = timedelta(milliseconds=250)


@dataclass(slots=True)
class _Share:
    """What a refused host has; ``until`` is None when more is being tried for."""

    slots: int
    rest: timedelta
    until: datetime | None


class HostShares:
    """Tells how many slots of each host may be tried for."""

    def __init__(self, slots_max: int) -> None:
        self._slots_max = slots_max
        self._shares: dict[str, _Share] = {}
        self._ends: list[tuple[datetime, str]] = []

    def slots(self, host: str) -> int:
        """Tell how many attempts to a host may be under way here, as far as is known."""
        share = self._shares.get(host)
        return self._slots_max if share is None or share.until is None else share.slots

    def refuse(self, host: str, why: Why, *, busy: int, now: datetime) -> None:
        """Note that a host gets no more for now than the ``busy`` slots it has."""
        share = self._shares.setdefault(host, _Share(busy, _REST_FIRST, None))
        share.slots = busy
        if why is Why.CONTENDED:
            # Another process's claim lasts some milliseconds; of a full host it tells nothing new.
            share.until = now + share.rest / 2
        else:
            share.until = now + share.rest
            share.rest = min(share.rest * 2, _REST_MAX)
        heapq.heappush(self._ends, (share.until, host))

    def grant(self, host: str) -> None:
        """Note that a host got something; if more was being tried for, it counts as free again."""
        share = self._shares.get(host)
        if share is not None and share.until is None:
            del self._shares[host]

    def forget(self, host: str) -> None:
        """Know nothing of a host any more."""
        self._shares.pop(host, None)

    def next_time(self) -> datetime | None:
        """Tell when the next rest ends."""
        return self._ends[0][0] if self._ends else None

    def pop_rested(self, now: datetime) -> list[str]:
        """Let the rests end that are over; tell of which hosts."""
        rested: list[str] = []
        while self._ends and self._ends[0][0] <= now:
            until, host = heapq.heappop(self._ends)
            share = self._shares.get(host)
            if share is not None and share.until == until:
                share.until = None
                rested.append(host)
        return rested

    def clear(self) -> list[str]:
        """Forget everything: the clock has changed; tell of which hosts."""
        hosts = list(self._shares)
        self._shares.clear()
        self._ends.clear()
        return hosts
