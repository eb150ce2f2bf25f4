"""One gentle client that asks the API at a fixed rate, and how long it waits for answers.

Open loop: a call begins at its time whether or not the one before was answered, and waits from
then on; so a stall of the service is seen as long as it was, by every call that fell into it.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Spread
from benchmarks.load import Client, RefusedError, prepare

_EVERY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it began (wall clock is not needed, only order), and how long it took."""

    began: float
    milliseconds: float
    is_refused: bool


@dataclass(slots=True)
class Calls:
    """All calls so far."""

    made: list[Call] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Tell how many were not answered with success."""
        return sum(call.is_refused for call in self.made)

    def spread(self, since: float = 0.0, until: float = float("inf")) -> Spread:
        """Tell the latency of the calls that began in a time of the monotonic clock."""
        return Spread.of(call.milliseconds for call in self.made if since <= call.began < until)


@contextlib.asynccontextmanager
async def probing(port: int, *paths: str, every: float = _EVERY_SECONDS) -> AsyncIterator[Calls]:
    """GET ``paths`` in turn every ``every`` seconds as long as the block lasts."""
    async with calling(port, [prepare("GET", path) for path in paths], every=every) as calls:
        yield calls


@contextlib.asynccontextmanager
async def calling(port: int, requests: Sequence[bytes], *, every: float) -> AsyncIterator[Calls]:
    """Send prepared requests in turn, over and over; waits for the last answer at the end."""
    calls = Calls()
    idle: list[Client] = []
    over = asyncio.Event()

    async def call(request: bytes, began: float) -> None:
        client = idle.pop() if idle else Client(port)
        is_refused = False
        try:
            await client.call(request)
        except (OSError, RefusedError):
            is_refused = True
        took = time.perf_counter() - began
        calls.made.append(Call(began, took * 1000, is_refused))
        idle.append(client)

    async def keep_calling(group: asyncio.TaskGroup) -> None:
        began = time.perf_counter()
        for number, request in enumerate(itertools.cycle(requests)):
            at = began + number * every
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), max(at - time.perf_counter(), 0))
            if over.is_set():
                return
            group.create_task(call(request, at))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_calling(group))
            try:
                yield calls
            finally:
                over.set()
    finally:
        for client in idle:
            client.close()
