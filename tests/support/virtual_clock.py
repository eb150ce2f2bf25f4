"""A clock that only a test moves, and an event loop whose timers run fast beside it."""

import asyncio
import selectors
from datetime import datetime, timedelta
from typing import Any, Self

import time_machine


class VirtualClock:
    """Stands still until it is moved; inside its ``with`` block ``datetime.now`` agrees with it.

    The latter is for APScheduler, which asks the machine at every pass. The event loop's timers
    keep real time.
    """

    def __init__(self, start: datetime) -> None:
        self._wall = start
        self._monotonic = 1000.0
        self._travel = time_machine.travel(start, tick=False)
        self._machine: Any = None

    def __enter__(self) -> Self:
        self._machine = self._travel.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._travel.stop()

    def now(self) -> datetime:
        """Tell the wall clock's instant."""
        return self._wall

    def monotonic(self) -> float:
        """Tell the seconds that passed; steps of the wall clock are not among them."""
        return self._monotonic

    def advance(self, passed: timedelta) -> None:
        """Let time pass, for both clocks."""
        assert passed >= timedelta(0), "time does not run back; clocks are set back"
        self._monotonic += passed.total_seconds()
        self.step(passed)

    def step(self, by: timedelta) -> None:
        """Set the wall clock forward or back, in no time."""
        self._wall += by
        self._machine.move_to(self._wall, tick=False)


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop on which all waits take ``pace`` times less, so that repetitions cost little.

    What a wait ends early for (an answer, news) comes as fast as ever.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        super().__init__(_HurriedSelector(pace))

    def time(self) -> float:
        """Tell the loop's seconds."""
        return super().time() * self._pace


class _HurriedSelector(selectors.SelectSelector):
    def __init__(self, pace: float) -> None:
        super().__init__()
        self._pace = pace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / self._pace)
