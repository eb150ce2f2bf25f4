"""A lock beside the database file, by name: what ``app.locks`` takes where there is no server.

The kernel's, so it is gone when its process is, however that ended.
"""

import hashlib
from pathlib import Path

from app.backends.embedded import DataLock
from app.domain.clock import Clock
from app.domain.errors import StorageInUseError


class FileLock:
    """One name's lock file, ``jobs.db.DIGEST.lock``, which stays when the lock is given back."""

    def __init__(self, database: Path, *, name: str, clock: Clock) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._lock = DataLock(database.with_name(f"{database.name}.{digest}"))
        self._clock = clock

    async def take(self) -> bool:
        """Take the lock; False if another process, or another part of this one, has it.

        Raises ``StorageUnavailableError`` where no lock can be kept.
        """
        try:
            self._lock.acquire(clock=self._clock)
        except StorageInUseError:
            return False
        return True

    async def holder(self) -> str:
        """Describe who has it."""
        return self._lock.holder() or "a process that has just ended"

    async def is_held(self) -> bool:
        """Tell that it is: nothing but the end of the process takes it away."""
        return True

    async def give_back(self) -> bool:
        """Let the next one have it; safe to call twice. Tells that it was held until now."""
        self._lock.release()
        return True
