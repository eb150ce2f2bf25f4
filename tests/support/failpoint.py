"""Runs the real service, to die by ``kill -9`` or be suspended at a named point of its pipeline.

The product knows nothing of this. The service of ``app.main`` is built as ever, with three things
wrapped where the composition root makes them: the writer (before and after the commit of a unit),
the runner and the transport (around the send). A point is met once: the process is gone then.
``api.committed@4`` is met at the fourth commit of that station. For the points of ``prune`` all
that ended is old, from the start on. At ``stop:claim.committed`` the
process stops itself, to go on when it is told to, and leases are a second long.

By hand: ``python -m tests.support.failpoint claim.committed``, settings as for ``serve``.
"""

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import httpx

from app.core.config import Settings, load_settings
from app.db import migrate as database_migration
from app.db.unit_of_work import (
    PostgresWriter,
    SqliteWriter,
    Together,
    WriteConnection,
    Writer,
)
from app.domain.execution import Attempt, Outcome
from app.engine.leases import LeaseOptions
from app.engine.ports import Runner
from app.engine.pruner import PrunerOptions
from app.engine.rescuer import RescuerOptions
from app.main import pipeline, serve, stations
from app.runners.http import HttpRunner
from app.runners.transports import build_transport

T = TypeVar("T")

SECOND = timedelta(seconds=1)
BEFORE, AFTER = "before_commit", "committed"
# Stations that write, by where in the code their transactions are made (of a qualified name).
STATIONS = {
    "start": r"(\.lead|^PostgresLeader\._take)$",
    "clock": r"^ClockWatch\._noting\.",
    "mend": r"^ClockWatch\._(mend|move_back)\.",
    "api": r"^(JobService\.|insert_new_jobs$)",
    "cancel": r"^CancellationService\.",
    "pass": r"^Ledger\.",
    "claim": r"^Dispatcher\._claim_once\.",
    "broken": r"^Intake\._end\.",
    "record": r"^(Recorder\.|record_endings)",
    "rescue": r"^Rescuer\.",
    "prune": r"^Pruner\._(batch|remove)\.",
}
COMMITS = tuple(f"{station}.{moment}" for station in STATIONS for moment in (BEFORE, AFTER))
# The runner is called; half of the request is out; all of it; the answer's head is read; all read.
SENDS = ("send.begun", "send.half", "send.whole", "send.answer_begun", "send.answered")
# Every statement of a migration has run, and nothing of it is committed.
MIGRATED = f"migrate.{BEFORE}"
POINTS = (*COMMITS, *SENDS, MIGRATED)


def die() -> None:
    """End as ``kill -9`` ends a process: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)


def be_suspended() -> None:
    """Stop all threads, until SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


class DyingWriter:
    """Ends the process at a station's first transaction, or a later one."""

    def __init__(self, writer: Writer, point: str, meet: Callable[[], None]) -> None:
        self._writer = writer
        self._meet = meet
        name, _, number = point.partition("@")
        station, _, self._moment = name.partition(".")
        self._place = STATIONS.get(station)
        self._left = int(number or 1)

    async def write(self, unit: Callable[[WriteConnection], T]) -> T:
        if self._place is None or not re.search(self._place, _name_of(unit)):
            return await self._writer.write(unit)
        self._left -= 1
        if self._left:
            return await self._writer.write(unit)
        if self._moment == BEFORE:
            unit = partial(self._meet_within, unit)
        result = await self._writer.write(unit)
        if self._moment == AFTER:
            self._meet()
        return result

    async def close(self) -> None:
        await self._writer.close()

    def _meet_within(self, unit: Callable[[WriteConnection], T], connection: WriteConnection) -> T:
        """Let the transaction do all it does, and meet the point before it is committed."""
        result = unit(connection)
        self._meet()
        return result


class DyingRunner:
    """Ends the process before anything of an attempt is sent, or once its outcome is known."""

    def __init__(self, runner: Runner, point: str) -> None:
        self._runner = runner
        self._point = point

    async def run(self, attempt: Attempt) -> Outcome:
        if self._point == "send.begun":
            die()
        outcome = await self._runner.run(attempt)
        if self._point == "send.answered":
            die()
        return outcome

    async def close(self) -> None:
        await self._runner.close()


class DyingTransport(httpx.AsyncBaseTransport):
    """Ends the process with a request half sent, sent without an answer, or the answer begun."""

    def __init__(self, transport: httpx.AsyncBaseTransport, point: str) -> None:
        self._transport = transport
        self._point = point

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._point in {"send.half", "send.whole"}:
            wire = await _wire_of(request)
            whole = self._point == "send.whole"
            _send(request.url, wire if whole else wire[: len(wire) // 2])
            die()
        response = await self._transport.handle_async_request(request)
        if self._point == "send.answer_begun":
            die()
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def run(point: str, settings: Settings) -> int:
    """Serve until the point is met, or until stopped."""
    action, _, place = point.rpartition(":")
    assert place.partition("@")[0] in POINTS, point
    meet = be_suspended if action == "stop" else die

    def dying(writer: Callable[..., Writer]) -> Callable[..., DyingWriter]:
        return lambda *arguments, **named: DyingWriter(writer(*arguments, **named), place, meet)

    def runner(**collaborators: Any) -> DyingRunner:
        return DyingRunner(HttpRunner(**collaborators), place)

    def transport(*arguments: Any) -> DyingTransport:
        return DyingTransport(build_transport(*arguments), place)

    with contextlib.ExitStack() as stack:
        for writer in (SqliteWriter, PostgresWriter):
            stack.enter_context(mock.patch.object(pipeline, writer.__name__, dying(writer)))
        stack.enter_context(mock.patch.object(pipeline, "HttpRunner", runner))
        stack.enter_context(mock.patch.object(pipeline, "build_transport", transport))
        if action == "stop":
            stack.enter_context(hurried())
        if place == MIGRATED:
            # The last that happens in its transaction.
            stack.enter_context(mock.patch.object(database_migration, "note_schema", _die_within))
        if place.startswith("prune."):
            stack.enter_context(mock.patch.object(stations, "PrunerOptions", _keep_nothing))
        return serve(settings)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Let what a process that is gone had claimed be lost soon: on PostgreSQL, by its lease."""
    with (
        mock.patch.object(stations, "LeaseOptions", _short_leases),
        mock.patch.object(stations, "RescuerOptions", _short_patience),
    ):
        yield


def _short_leases(*, span: timedelta | None) -> LeaseOptions:
    return LeaseOptions(
        margin=SECOND,
        span=None if span is None else SECOND,
        renew_after=SECOND / 2,
        renew_every=SECOND / 4,
    )


def _short_patience(*, patience: timedelta) -> RescuerOptions:
    return RescuerOptions(every=SECOND / 2, patience=min(patience, 1.5 * SECOND))


def _die_within(*_: object) -> None:
    die()


def _keep_nothing(**_: object) -> PrunerOptions:
    none = timedelta(0)
    return PrunerOptions(
        keep_failed=none, keep_others=none, keep_per_job=1, keep_always=none, first_after=none
    )


def _name_of(unit: Callable[..., object]) -> str:
    """Tell where a unit was defined: ``Ledger._commit``, ``JobService.pause.<locals>.pause``."""
    while isinstance(unit, partial | Together):
        unit = unit.func if isinstance(unit, partial) else unit.function
    return str(getattr(unit, "__qualname__", ""))


async def _wire_of(request: httpx.Request) -> bytes:
    line = b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)
    fields = [b"%b: %b" % field for field in request.headers.raw]
    return b"\r\n".join([line, *fields, b"", await request.aread()])


def _send(url: httpx.URL, wire: bytes) -> None:
    """Send bytes over a connection of their own; what the kernel has taken still arrives."""
    assert url.port is not None
    sock = socket.create_connection((url.host, url.port), timeout=5)
    sock.sendall(wire)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], load_settings(os.environ, env_file=None)))
