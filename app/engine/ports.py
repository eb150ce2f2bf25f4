"""What the engine needs from elsewhere; implementations satisfy these structurally."""

from typing import Protocol

from app.db.unit_of_work import WriteConnection
from app.domain.events import Event
from app.domain.execution import Attempt, Outcome


class Runner(Protocol):
    """Makes one attempt."""

    async def run(self, attempt: Attempt) -> Outcome:
        """Make the attempt and say what it came to.

        Ends by ``attempt.timeout`` whatever the target does. Raises nothing but
        ``asyncio.CancelledError``; what goes wrong outside is an outcome.
        """
        ...

    async def close(self) -> None:
        """Free connections; safe to call twice."""
        ...


class Leader(Protocol):
    """Says who ticks, and fences off who no longer does."""

    @property
    def owner(self) -> str:
        """Name this process in the rows it claims."""
        ...

    @property
    def term(self) -> int:
        """Tell the term this process leads under; also the fence of its claims."""
        ...

    def guard(self, connection: WriteConnection) -> None:
        """Refuse the open transaction if this process no longer leads."""
        ...


class Subscriber(Protocol):
    """Hears of committed facts. Must return at once; what it raises is logged and dropped."""

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        ...
