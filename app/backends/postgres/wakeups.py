"""Replicas wake each other by LISTEN and NOTIFY: "job N changed", never the data.

A notification may be lost with its connection, so what hears one also looks by itself from time to
time; after a reconnection everything is looked at (``on_gap``).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import asyncpg
import structlog

from app.backends.postgres.address import driver_arguments
from app.domain.ids import ExecutionId, JobId

log = structlog.get_logger(__name__)

# The last is what asyncpg raises where a connection ends in the middle of an answer.
_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_CHANNEL = "myscheduler"
_SEND = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
# Distinct wakeups that wait to be sent; beyond them one says that anything may have changed.
_WAITING_MAX = 10_000


class WakeupKind(StrEnum):
    """What may have changed."""

    JOB = "job"
    RUNS = "runs"
    CANCEL_JOB = "cancel_job"
    CANCEL_RUN = "cancel_run"
    ALL = "all"


_ANY = f"{WakeupKind.ALL} "


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupOptions:
    """How wakeups are sent."""

    # Wakeups of one moment go together; the same one goes once.
    gather: timedelta = timedelta(milliseconds=5)
    # A connection that does not answer for so long is opened anew.
    ping_every: timedelta = timedelta(seconds=5)
    ping_within: timedelta = timedelta(seconds=2)


class PostgresWakeups:
    """Sends what ``send`` is given and calls ``on_wakeup`` with what other replicas send."""

    def __init__(
        self,
        *,
        url: str,
        options: WakeupOptions,
        on_wakeup: Callable[[WakeupKind, str], None],
    ) -> None:
        self._address = driver_arguments(url)
        self._options = options
        self._on_wakeup = on_wakeup
        self._waiting: dict[str, None] = {}
        self._news = asyncio.Event()

    def job_changed(self, job_id: JobId) -> None:
        """Tell the others that a job was created, changed, deleted or triggered."""
        self.send(WakeupKind.JOB, job_id)

    def runs_waiting(self) -> None:
        """Tell the others that runs wait for a worker."""
        self.send(WakeupKind.RUNS)

    def cancel_job(self, job_id: JobId) -> None:
        """Tell the others to end a job's attempts."""
        self.send(WakeupKind.CANCEL_JOB, job_id)

    def cancel_run(self, execution_id: ExecutionId) -> None:
        """Tell the others to end one attempt."""
        self.send(WakeupKind.CANCEL_RUN, execution_id)

    def send(self, kind: WakeupKind, key: str = "") -> None:
        """Tell the other replicas; returns at once, and is a hint only."""
        self._waiting[f"{kind} {key}"] = None
        self._bound()
        self._news.set()

    def _bound(self) -> None:
        if len(self._waiting) > _WAITING_MAX:
            self._waiting = {_ANY: None}

    async def run(self) -> None:
        """Listen and send until cancelled, or until the connection is lost."""
        try:
            await self._serve()
        except (*_LOST, OSError, TimeoutError) as error:
            log.warning("wakeups.disconnected", why=type(error).__name__)

    async def _serve(self) -> None:
        connection = await asyncpg.connect(
            **self._address,
            timeout=10,
            command_timeout=self._options.ping_within.total_seconds(),
        )
        try:
            await connection.add_listener(_CHANNEL, self._hear)
            # What was sent while nobody listened here is unknown.
            self._on_wakeup(WakeupKind.ALL, "")
            while True:
                await self._wait()
                await self._flush(connection)
        finally:
            # Not closed politely: the other end may be gone, and there is nothing left to say.
            connection.terminate()

    async def _wait(self) -> None:
        """Wait until there is something to send, or to ask whether the connection lives."""
        try:
            async with asyncio.timeout(self._options.ping_every.total_seconds()):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._options.gather.total_seconds())

    async def _flush(self, connection: Any) -> None:
        self._news.clear()
        payloads, self._waiting = self._waiting, {}
        try:
            await connection.execute(_SEND, _CHANNEL, list(payloads))
        except BaseException:
            # They are sent over the next connection; if that is too many, one stands for all.
            self._waiting = {**payloads, **self._waiting}
            self._bound()
            self._news.set()
            raise

    def _hear(self, connection: Any, pid: int, _channel: str, payload: str) -> None:
        if pid == connection.get_server_pid():
            return
        kind, _, key = payload.partition(" ")
        try:
            self._on_wakeup(WakeupKind(kind), key)
        except ValueError:
            log.warning("wakeup.unknown", kind=kind)
