"""The ready runs of one host, in the order in which this process takes them.

Processes that take runs of one host hold the same ones in memory. If each took the longest waiting
first, all would claim the same runs, and all but one in vain. So each has a part by the runs' ids
and takes that first, and the others' only when nothing of its own is left, or once they are late:
due more than a second before its own next one, so that nothing waits for what is due much later.
"""

from collections import OrderedDict, deque
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from zlib import crc32

from app.domain.execution import WaitingRun
from app.domain.ids import ExecutionId

# A run of another's part that has waited so much longer than the next of ours goes first: whoever
# should have taken it may be slow, or gone.
_HEAD_START = timedelta(seconds=1)
# A process that was not seen for so long takes no part: between two batches it may have none.
_SEEN_FOR = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Part:
    """One of ``count`` parts of all runs; ``place`` counts from zero."""

    place: int
    count: int

    def holds(self, run_id: ExecutionId) -> bool:
        """Tell whether a run is in this part; of the parts of a whole exactly one says so."""
        return self.count == 1 or crc32(run_id.encode()) % self.count == self.place


WHOLE = Part(0, 1)


class HostQueue:
    """Runs of one host: those of this process's part first, the longest waiting before others."""

    def __init__(self, part: Part = WHOLE) -> None:
        self._part = part
        # Not looked at yet, and passed over because they are of others' parts.
        self._next: deque[WaitingRun] = deque()
        self._others: deque[WaitingRun] = deque()

    def __len__(self) -> int:
        """Count the runs."""
        return len(self._next) + len(self._others)

    def append(self, run: WaitingRun) -> None:
        """Add a run behind those that are ready."""
        self._next.append(run)

    def appendleft(self, run: WaitingRun) -> None:
        """Put back a run that was first: of its part it is so again."""
        (self._next if self._part.holds(run.id) else self._others).appendleft(run)

    def popleft(self) -> WaitingRun:
        """Take the run whose turn it is; IndexError if there is none."""
        while self._next and not self._is_late(self._next[0]):
            run = self._next.popleft()
            if self._part.holds(run.id):
                return run
            self._others.append(run)
        return (self._others or self._next).popleft()

    def pop(self) -> WaitingRun:
        """Take the run whose turn would come last."""
        return (self._others or self._next).pop()

    def divide(self, part: Part) -> None:
        """Go on with another part."""
        if part != self._part:
            self._part = part
            self._next.extendleft(reversed(self._others))
            self._others.clear()

    def forget(self, gone: AbstractSet[ExecutionId]) -> None:
        """Let go of runs that are not to be had any more."""
        self._next = deque(run for run in self._next if run.id not in gone)
        self._others = deque(run for run in self._others if run.id not in gone)

    def _is_late(self, run: WaitingRun) -> bool:
        """Tell whether the first of others' parts has waited long enough to go before a run."""
        return bool(self._others) and (
            self._others[0].next_attempt_at + _HEAD_START < run.next_attempt_at
        )


class Rivals:
    """Which processes take runs of which hosts beside this one, as its own claims saw them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[str, datetime]] = OrderedDict()
        self._parts: dict[str, Part] = {}

    def part(self, host: str) -> Part:
        """Tell which part of a host's runs this process takes first."""
        return self._parts.get(host, WHOLE)

    def meet(self, host: str, owners: Collection[str], *, me: str, now: datetime) -> Part:
        """Note who else has attempts to a host under way; tell the part from now on."""
        seen = self._seen.pop(host, {})
        seen = {who: at for who, at in seen.items() if abs(now - at) < _SEEN_FOR}
        seen |= dict.fromkeys(owners, now)
        self._parts.pop(host, None)
        if seen:
            self._seen[host] = seen
            members = sorted({me, *seen})
            self._parts[host] = Part(members.index(me), len(members))
        self._forget_old(now)
        return self.part(host)

    def _forget_old(self, now: datetime) -> None:
        """Forget the hosts met least lately, so that there is no trace of those that are over."""
        while self._seen:
            host, seen = next(iter(self._seen.items()))
            if abs(now - max(seen.values())) < _SEEN_FOR:
                return
            del self._seen[host]
            self._parts.pop(host, None)
