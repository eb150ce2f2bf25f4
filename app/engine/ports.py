"""What the engine needs from elsewhere; implementations satisfy these structurally."""

from typing import Protocol

from app.db.unit_of_work import WriteConnection
from app.domain.events import Event
from app.domain.execution import Attempt, Outcome
from app.domain.ids import ExecutionId, JobId
from app.domain.tenure import Tenure


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
    def fence(self) -> int:
        """Tell the fence of this process's claims: with its name it is no other process's."""
        ...

    @property
    def in_touch_since(self) -> float:
        """Tell since when its database has answered it, on the monotonic clock."""
        ...

    @property
    def tenure(self) -> Tenure:
        """Tell how often the lead came and went."""
        ...

    def guard(self, connection: WriteConnection) -> None:
        """Refuse the open transaction if this process no longer leads."""
        ...


class Subscriber(Protocol):
    """Hears of committed facts. Must return at once; what it raises is logged and dropped."""

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        ...


class Wakeups(Protocol):
    """Tells the other processes on this database what they would otherwise find out by looking.

    Hints only: each returns at once, and may be lost.
    """

    def job_changed(self, job_id: JobId) -> None:
        """A job was created, changed, deleted or triggered."""
        ...

    def runs_waiting(self) -> None:
        """Runs wait for a worker."""
        ...

    def cancel_job(self, job_id: JobId) -> None:
        """A job's attempts under way are to end, wherever they run; their rows say why."""
        ...

    def cancel_run(self, execution_id: ExecutionId) -> None:
        """One attempt under way is to end, wherever it runs; its row says why."""
        ...
