"""From a name to a connected socket, through the egress policy.

The policy judges the very addresses a socket connects to: every answer of the resolver must pass,
and the connection is made to the judged address, so a name that changes its mind between look-up
and connect gains nothing. Used by both transports. Standard library only, besides our own.
"""

import asyncio
import contextlib
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from app.runners.failures import (
    Phase,
    Progress,
    config_error,
    connect_error,
    dns_error,
    egress_error,
)
from app.runners.http_options import HttpRunnerOptions

_NAMES_MAX = 1024

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class Candidate(NamedTuple):
    """An address to connect to; ``address`` is what ``socket.connect`` takes."""

    family: socket.AddressFamily
    address: SocketAddress


Lookup = Callable[[str, int, int], list[Candidate]]
"""Tells the addresses of host and port under ``getaddrinfo``'s flags; blocks, raises as it does."""


class EgressVerdict(Protocol):
    """What the egress policy answers."""

    @property
    def allowed(self) -> bool:
        """Tell whether the connection may be made."""
        ...

    @property
    def why(self) -> str:
        """Say why not, as a clause."""
        ...


class Egress(Protocol):
    """The egress policy, as the runners need it."""

    def judge(self, address: str, port: int, *, host: str) -> EgressVerdict:
        """Judge one numeric address that ``host`` resolved to."""
        ...

    def judge_scheme(self, scheme: str) -> EgressVerdict:
        """Judge a URL's scheme, in lower case."""
        ...


class Resolver:
    """Look-ups in threads of their own, shared while in flight and remembered for a moment.

    Names whose last look-up was slow share threads of their own: a name server that keeps some
    names waiting delays no others, however many such names there are.
    """

    def __init__(self, options: HttpRunnerOptions, *, lookup: Lookup) -> None:
        self._ttl_seconds = options.dns_ttl.total_seconds()
        self._slow_seconds = options.dns_slow.total_seconds()
        self._lookup = lookup
        self._quick_lane = _Lane(options.dns_threads_max)
        self._slow_lane = _Lane(options.dns_threads_max)
        self._known: OrderedDict[str, tuple[float, list[Candidate]]] = OrderedDict()
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._pending: dict[str, asyncio.Future[list[Candidate]]] = {}

    async def resolve(self, host: str, port: int) -> list[Candidate]:
        """Tell a host's addresses, best first.

        A host that is a number in any dress needs no thread. Raises ``DeliveryError`` (dns).
        """
        try:
            return self._lookup(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name
        except UnicodeError as error:
            raise config_error(f"The host name {host} is not one a resolver can ask for") from error
        loop = asyncio.get_running_loop()
        if (known := self._known.get(host)) and known[0] > loop.time():
            return _at(known[1], port)
        try:
            found = await self._ask(host, port, loop=loop)
        except (OSError, UnicodeError) as error:
            raise dns_error(host, error) from error
        if not found:
            raise dns_error(host, LookupError())
        return _at(found, port)

    def close(self) -> None:
        """Start no more threads; safe to call twice. Those that run end with the process."""
        self._quick_lane.close()
        self._slow_lane.close()

    async def _ask(
        self, host: str, port: int, *, loop: asyncio.AbstractEventLoop
    ) -> list[Candidate]:
        pending = self._pending.get(host)
        if pending is None:
            lane = self._slow_lane if host in self._slow else self._quick_lane
            pending = self._pending[host] = lane.call(lambda: self._timed(host, port, loop=loop))
            pending.add_done_callback(lambda answer: self._remember(host, answer, loop=loop))
        # Shielded: whoever gives up must not take the answer from the others who wait for it.
        return await asyncio.shield(pending)

    def _timed(self, host: str, port: int, *, loop: asyncio.AbstractEventLoop) -> list[Candidate]:
        """Look up, and note how the name server is doing (runs in a lane's thread)."""
        began = loop.time()
        try:
            return self._lookup(host, port, 0)
        finally:
            slow = loop.time() - began > self._slow_seconds
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._note_pace, host, slow)

    def _note_pace(self, host: str, slow: bool) -> None:  # noqa: FBT001 - as measured
        self._slow.pop(host, None)
        if slow:
            self._slow[host] = None
            if len(self._slow) > _NAMES_MAX:
                self._slow.popitem(last=False)

    def _remember(
        self,
        host: str,
        answer: asyncio.Future[list[Candidate]],
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._pending.pop(host, None)
        if answer.cancelled() or answer.exception() is not None:
            return
        self._known[host] = (loop.time() + self._ttl_seconds, answer.result())
        self._known.move_to_end(host)
        if len(self._known) > _NAMES_MAX:
            self._known.popitem(last=False)


class _Lane:
    """Blocking look-ups, so many at once, each in a daemon thread; the others wait in order.

    An executor's threads would keep the process from ending for as long as a name server is silent.
    """

    def __init__(self, threads_max: int) -> None:
        self._free = threads_max
        self._waiting: deque[tuple[Callable[[], list[Candidate]], asyncio.Future[list[Candidate]]]]
        self._waiting = deque()

    def call(self, look_up: Callable[[], list[Candidate]]) -> asyncio.Future[list[Candidate]]:
        """Promise what ``look_up`` returns or raises."""
        answer: asyncio.Future[list[Candidate]] = asyncio.get_running_loop().create_future()
        self._waiting.append((look_up, answer))
        self._start()
        return answer

    def close(self) -> None:
        """Cancel what waits."""
        self._free = 0
        for _, answer in self._waiting:
            answer.cancel()
        self._waiting.clear()

    def _start(self) -> None:
        while self._free > 0 and self._waiting:
            job = self._waiting.popleft()
            thread = threading.Thread(target=self._work, args=job, name="dns", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the machine has no more threads to give
                job[1].set_exception(socket.gaierror(socket.EAI_AGAIN, str(error)))
            else:
                self._free -= 1

    def _work(
        self, look_up: Callable[[], list[Candidate]], answer: asyncio.Future[list[Candidate]]
    ) -> None:
        found: list[Candidate] | Exception
        try:
            found = look_up()
        except Exception as error:  # noqa: BLE001 - carried to whoever waits
            found = error
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            answer.get_loop().call_soon_threadsafe(self._settle, answer, found)

    def _settle(
        self, answer: asyncio.Future[list[Candidate]], found: list[Candidate] | Exception
    ) -> None:
        self._free += 1
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)
        self._start()


class Dialer:
    """Connects sockets to addresses the policy allows."""

    def __init__(self, options: HttpRunnerOptions, *, egress: Egress, resolver: Resolver) -> None:
        self._candidate_seconds = options.candidate_wait.total_seconds()
        self._egress = egress
        self._resolver = resolver

    async def judged(self, host: str, port: int, *, progress: Progress) -> list[Candidate]:
        """Resolve and judge; if any answer is refused, all are: mixed answers are an attack."""
        progress.phase = Phase.RESOLVING
        candidates = await self._resolver.resolve(host, port)
        for candidate in candidates:
            verdict = self._egress.judge(str(candidate.address[0]), port, host=host)
            if not verdict.allowed:
                raise egress_error(host, verdict.why)
        progress.phase = Phase.CONNECTING
        return candidates

    async def dial(self, host: str, port: int, *, progress: Progress) -> socket.socket:
        """Connect to the first address that answers. Raises ``DeliveryError``."""
        candidates = await self.judged(host, port, progress=progress)
        for candidate in candidates[:-1]:
            try:
                async with asyncio.timeout(self._candidate_seconds):
                    return await _connect(candidate)
            except OSError:
                continue  # the next address may answer; the last one's failure is reported
        try:
            return await _connect(candidates[-1])
        except OSError as error:
            raise connect_error(progress.label, error) from error

    def close(self) -> None:
        """Free the resolver's threads; safe to call twice."""
        self._resolver.close()


def system_lookup(host: str, port: int, flags: int) -> list[Candidate]:
    """Ask the platform's resolver."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [Candidate(family, address) for family, _, _, _, address in infos]


def _at(candidates: list[Candidate], port: int) -> list[Candidate]:
    """Aim addresses that a look-up for some port gave at this one."""
    return [
        Candidate(family, cast("SocketAddress", (address[0], port, *address[2:])))
        for family, address in candidates
    ]


async def _connect(candidate: Candidate) -> socket.socket:
    connection = socket.socket(candidate.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, candidate.address)
    except BaseException:
        connection.close()
        raise
    return connection
