"""What single callbacks of the event loop cost in CPU time, which no other load changes.

For asyncio's own loop, whose callbacks pass through ``Handle._run``; uvloop's do not.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# asyncio's own method, and not ours, to put a measure around.
_RUN = "_run"


@dataclass
class LoopCost:
    """The dearest callback since it was made: its seconds of this thread's CPU, and what it was."""

    seconds: float = 0.0
    callback: str = ""
    callbacks: int = 0

    def note(self, seconds: float, handle: asyncio.Handle) -> None:
        """Note a callback."""
        self.callbacks += 1
        if seconds > self.seconds:
            self.seconds, self.callback = seconds, _name_of(handle)

    def forget(self) -> None:
        """Begin anew: what came before is not meant."""
        self.seconds, self.callback, self.callbacks = 0.0, "", 0


def _name_of(handle: Any) -> str:
    """Name a task whose step it was, or the callback."""
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return owner.get_name() if isinstance(owner, asyncio.Task) else repr(handle)


@contextlib.contextmanager
def measured_callbacks() -> Iterator[LoopCost]:
    """Measure every callback of this thread's loops within the block."""
    cost = LoopCost()
    run = getattr(asyncio.Handle, _RUN)

    def measured(handle: asyncio.Handle) -> None:
        begin = time.thread_time()
        run(handle)
        cost.note(time.thread_time() - begin, handle)

    setattr(asyncio.Handle, _RUN, measured)
    try:
        yield cost
    finally:
        setattr(asyncio.Handle, _RUN, run)
