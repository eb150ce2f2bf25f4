"""Runs that wait for a slot, in memory: who goes next under the host and job limits.

A pure data structure; the rows in the database stay the truth, and what does not fit here is read
from there later. Hosts take turns; within a host the longest waiting goes first, by and large
(``host_queue.py``). A run whose job
has no free slot steps aside until one is released, so it blocks nobody behind it. A host that had
its start for now rests until the next is allowed. What other processes on the database leave of a
host's limits is known from their refusals (``host_shares.py``).
"""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any

from app.domain.execution import WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.engine.host_queue import HostQueue, Rivals
from app.engine.host_shares import HostShares
from app.repositories.host_repository import Refusal, Why

# A host's backlog that gives way to others is at least such a part of a full queue.
CROWD_PART = 8


class ReadyQueue:
    """Orders waiting runs; ``take`` reserves host and job slots that must be released again."""

    def __init__(
        self,
        *,
        host_slots: int,
        size_max: int,
        job_size_max: int,
        host_gap: timedelta = timedelta(0),
    ) -> None:
        self._shares = HostShares(host_slots)
        self._rivals = Rivals()
        self._size_max = size_max
        self._job_size_max = job_size_max
        self._held: Counter[JobId] = Counter()
        self._held_of: Counter[str] = Counter()
        # A host that holds most, or did when it last got one more.
        self._crowd = ""
        self._known: dict[ExecutionId, WaitingRun] = {}
        self._later: list[tuple[datetime, int, WaitingRun]] = []
        self._arrivals = 0
        # Hosts with ready runs: those with a free slot in the order of their turns, and the others.
        self._turns: OrderedDict[str, HostQueue] = OrderedDict()
        self._full: dict[str, HostQueue] = {}
        self._aside: dict[JobId, deque[WaitingRun]] = {}
        # Hosts whose next start is not allowed yet, and when it is.
        self._pace = _HostPace(host_gap)
        self._resting: dict[str, HostQueue] = {}
        self._rest_ends: list[tuple[datetime, str]] = []
        self._busy_hosts: Counter[str] = Counter()
        self._busy_jobs: Counter[JobId] = Counter()

    def __len__(self) -> int:
        """Count the runs held."""
        return len(self._known)

    @property
    def held(self) -> Mapping[ExecutionId, WaitingRun]:
        """Tell which runs are held now."""
        return dict(self._known)

    @property
    def has_room(self) -> bool:
        """Tell whether another run fits."""
        return len(self._known) < self._size_max

    def add(self, runs: Iterable[WaitingRun]) -> bool:
        """Hold runs that are not held yet; False if some did not fit and must be read again."""
        all_fit = True
        for run in runs:
            if run.id in self._known:
                continue
            if not self.has_room:
                all_fit = False
                self._make_room(run.host)
            if not self.has_room or self._held[run.job_id] >= self._job_size_max:
                all_fit = False
                continue
            self._hold(run)
            self._arrivals += 1
            heapq.heappush(self._later, (run.next_attempt_at, self._arrivals, run))
        return all_fit

    def forget(self, gone: AbstractSet[ExecutionId]) -> None:
        """Let go of runs that do not wait any more: others claimed them, or they were ended."""
        gone = self._known.keys() & gone
        if not gone:
            return
        for run_id in gone:
            self._let_go(self._known[run_id])
        self._later = [entry for entry in self._later if entry[2].id not in gone]
        heapq.heapify(self._later)
        for place in (self._turns, self._full, self._resting):
            for host, queue in list(place.items()):
                queue.forget(gone)
                if not queue:
                    del place[host]
        for job_id, aside in list(self._aside.items()):
            left = deque(run for run in aside if run.id not in gone)
            if left:
                self._aside[job_id] = left
            else:
                del self._aside[job_id]

    def drop_later(self) -> None:
        """Let go of the runs that are not ready yet, and of hosts' rests; the clock has changed."""
        for host in self._shares.clear():
            self._place_again(host)
        for _, _, run in self._later:
            self._let_go(run)
        self._later.clear()
        self._rest_ends.clear()
        while self._resting:
            self._place(*self._resting.popitem())

    def next_time(self) -> datetime | None:
        """Tell when the next run that is not ready yet becomes so, or the next host."""
        times = [
            *(run[0] for run in self._later[:1]),
            *(rest[0] for rest in self._rest_ends[:1]),
        ]
        again = self._shares.next_time()
        return min(times if again is None else [*times, again], default=None)

    def may_start(self, now: datetime) -> bool:
        """Tell whether a look (``take``) might find something to start."""
        return bool(self._turns) or bool(self._later and self._later[0][0] <= now)

    def take(self, limit: int, now: datetime) -> list[WaitingRun]:
        """Take up to ``limit`` runs that may start, reserving their slots; hosts take turns."""
        self._promote(now)
        taken: list[WaitingRun] = []
        while len(taken) < limit and self._turns:
            host, queue = self._turns.popitem(last=False)
            if not self._pace.allows(host, now):
                self._resting[host] = queue
                heapq.heappush(self._rest_ends, (self._pace.free_at(host), host))
                continue
            run = self._next_of(queue)
            if run is None:
                continue
            self._let_go(run)
            self._pace.took(host, now)
            self._busy_hosts[host] += 1
            self._busy_jobs[run.job_id] += 1
            taken.append(run)
            if queue:
                self._place(host, queue)
        return taken

    def under_way(self, taken: Iterable[WaitingRun]) -> Mapping[str, int]:
        """Count the attempts to the hosts of what was taken just now, beside these."""
        ours = Counter(run.host for run in taken)
        return {host: self._busy_hosts[host] - count for host, count in ours.items()}

    def give_back(self, run: WaitingRun) -> None:
        """Give back both slots of a run that was taken and does not start."""
        self.release_host(run.host)
        self.release_job(run.job_id)
        self._pace.rest(run.host, None)
        self._place_again(run.host)

    def put_back(self, refusal: Refusal, now: datetime) -> None:
        """Hold runs again that were taken and may not start yet: the first of their host."""
        host = refusal.host
        for run in reversed(refusal.runs):
            _decrease(self._busy_hosts, host)
            _decrease(self._busy_jobs, run.job_id)
            if run.id not in self._known:
                self._hold(run)
                self._queue_of(host).appendleft(run)
        if refusal.why is Why.PACED:
            self._pace.rest(host, now + refusal.wait)
        else:
            self._pace.rest(host, None)
            self._shares.refuse(host, refusal.why, busy=self._busy_hosts[host], now=now)
        self._place_again(host)

    def granted(self, host: str) -> None:
        """Note that a run of a host may start as far as other processes are concerned."""
        self._shares.grant(host)

    def meet(self, rivals: Mapping[str, Collection[str]], *, me: str, now: datetime) -> None:
        """Note which other processes have attempts under way, by host: each takes its part."""
        for host, owners in rivals.items():
            part = self._rivals.meet(host, owners, me=me, now=now)
            queue = self._found(host)
            if queue is not None:
                queue.divide(part)

    def release_host(self, host: str) -> None:
        """Give back a host slot: the attempt's connection is done with."""
        _decrease(self._busy_hosts, host)
        queue = self._full.pop(host, None)
        if queue is not None:
            self._place(host, queue)

    def release_job(self, job_id: JobId) -> None:
        """Give back a job slot: the attempt's outcome is recorded."""
        _decrease(self._busy_jobs, job_id)
        aside = self._aside.get(job_id)
        if aside:
            run = aside.popleft()
            if not aside:
                del self._aside[job_id]
            self._queue_of(run.host).appendleft(run)

    def _hold(self, run: WaitingRun) -> None:
        self._known[run.id] = run
        self._held[run.job_id] += 1
        self._held_of[run.host] += 1
        if self._held_of[run.host] > self._held_of[self._crowd]:
            self._crowd = run.host

    def _let_go(self, run: WaitingRun) -> None:
        self._known.pop(run.id, None)
        _decrease(self._held, run.job_id)
        _decrease(self._held_of, run.host)

    def _make_room(self, host: str) -> None:
        """Let go of the later half of a backlog that fills the queue, for a host with far less.

        It is still in the database. A backlog is a good part of the queue, for this looks at all.
        """
        count = self._held_of[self._crowd]
        if count >= max(self._size_max // CROWD_PART, 2 * self._held_of[host] + 2):
            for run in self._remove_last(self._crowd, count // 2):
                self._let_go(run)

    def _remove_last(self, host: str, count: int) -> list[WaitingRun]:
        """Take a host's runs away: those that are not ready yet, then those that step aside."""
        later = sorted(entry for entry in self._later if entry[2].host == host)[-count:]
        gone = {number for _, number, _ in later}
        self._later = [entry for entry in self._later if entry[1] not in gone]
        heapq.heapify(self._later)
        removed = [run for _, _, run in later]
        for aside in self._aside.values():
            # One stays, so that no queue is empty.
            while len(aside) > 1 and len(removed) < count and aside[-1].host == host:
                removed.append(aside.pop())
        queue = self._found(host)
        while queue is not None and len(queue) > 1 and len(removed) < count:
            removed.append(queue.pop())
        return removed

    def _promote(self, now: datetime) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, run = heapq.heappop(self._later)
            self._queue_of(run.host).append(run)
        while self._rest_ends and self._rest_ends[0][0] <= now:
            _, host = heapq.heappop(self._rest_ends)
            if host in self._resting:
                self._place(host, self._resting.pop(host))
        for host in self._shares.pop_rested(now):
            if not self._place_again(host):
                self._shares.forget(host)

    def _queue_of(self, host: str) -> HostQueue:
        queue = self._found(host)
        if queue is None:
            queue = HostQueue(self._rivals.part(host))
            self._place(host, queue)
        return queue

    def _found(self, host: str) -> HostQueue | None:
        queue = self._turns.get(host)
        if queue is None:
            queue = self._full.get(host)
        return self._resting.get(host) if queue is None else queue

    def _place(self, host: str, queue: HostQueue) -> None:
        """Put a host at the end of the turns, or aside while all its slots are taken."""
        if self._busy_hosts[host] >= self._shares.slots(host):
            self._full[host] = queue
        else:
            self._turns[host] = queue

    def _place_again(self, host: str) -> bool:
        """Place a host of which more is known now; False if no run of it is ready."""
        for place in (self._turns, self._full, self._resting):
            queue = place.pop(host, None)
            if queue is not None:
                self._place(host, queue)
                return True
        return False

    def _next_of(self, queue: HostQueue) -> WaitingRun | None:
        """Take a host's first run whose job has a free slot; the others step aside."""
        while queue:
            run = queue.popleft()
            if run.job_slots is None or self._busy_jobs[run.job_id] < run.job_slots:
                return run
            self._aside.setdefault(run.job_id, deque()).append(run)
        return None


def _decrease(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


class _HostPace:
    """Keeps starts to one host at least a gap apart; no gap: no pace."""

    def __init__(self, gap: timedelta) -> None:
        self._gap = gap
        self._free_at: OrderedDict[str, datetime] = OrderedDict()

    def allows(self, host: str, now: datetime) -> bool:
        """Tell whether a host may have a start; a time beyond one gap is an older clock's."""
        free_at = self._free_at.get(host)
        return free_at is None or not now < free_at <= now + self._gap

    def free_at(self, host: str) -> datetime:
        """Tell when a host that may not may."""
        return self._free_at[host]

    def rest(self, host: str, until: datetime | None) -> None:
        """Correct what is known: no start before ``until``, at most one gap away; None: now."""
        if until is None:
            self._free_at.pop(host, None)
        else:
            self._free_at[host] = until

    def took(self, host: str, now: datetime) -> None:
        """Note a start; forget the hosts that may have one again."""
        if not self._gap:
            return
        self._free_at[host] = now + self._gap
        self._free_at.move_to_end(host)
        while next(iter(self._free_at.values())) <= now:
            self._free_at.popitem(last=False)
