"""Due instants that wait to be written, a pure data structure: hosts take turns.

A herd of jobs that call one host holds up its own kind; a job of another host that comes due behind
it is in the next transaction. Within a host the first to come goes first.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import datetime

from app.engine.tick import DueInstants


class Backlog:
    """Holds what was found due until it is taken."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, deque[DueInstants]] = OrderedDict()

    def __bool__(self) -> bool:
        """Tell whether anything waits."""
        return bool(self._turns)

    def clear(self) -> None:
        """Let go of all."""
        self._turns.clear()

    def add(self, found: Sequence[DueInstants]) -> None:
        """Take in what was found due, behind what waits of the same host."""
        for one in found:
            self._turns.setdefault(one.job.host, deque()).append(one)

    def put_back(self, taken: Sequence[DueInstants]) -> None:
        """Take in again what was taken, before what waits of the same host."""
        for one in reversed(taken):
            self._turns.setdefault(one.job.host, deque()).appendleft(one)

    def take(self, limit: int) -> list[DueInstants]:
        """Take up to ``limit``, one of each host in turn."""
        taken: list[DueInstants] = []
        while self._turns and len(taken) < limit:
            host, waiting = self._turns.popitem(last=False)
            taken.append(waiting.popleft())
            if waiting:
                self._turns[host] = waiting
        return taken

    def oldest(self) -> datetime | None:
        """Tell the earliest instant among the first of each host; None: nothing waits."""
        return min((found[0].job.next_run_time for found in self._turns.values()), default=None)
