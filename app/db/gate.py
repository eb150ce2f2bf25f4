"""Lets callers of a door through until it is closed."""

import asyncio
import contextlib
from collections.abc import Iterator

from app.domain.errors import ShuttingDownError


class Gate:
    """Lets callers through until it is closed; closing waits for those inside."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._empty = asyncio.Event()

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for the length of the block, or be refused."""
        if self._closed:
            raise stopping()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def close(self) -> None:
        """Refuse whoever comes now, and wait until nobody is inside; safe to call twice."""
        self._closed = True
        while self._inside:
            self._empty.clear()
            await self._empty.wait()


def stopping() -> ShuttingDownError:
    """Give the error for whoever comes too late."""
    return ShuttingDownError("The service is stopping; send the request again in a moment")
