"""From a name to a connected socket, through the egress policy.

The policy judges the very addresses a socket connects to: every answer of the resolver must pass,
and the connection is made to the judged address, so a name that changes its mind between look-up
and connect gains nothing. Used by both transports. Standard library only, besides our own.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

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


class Resolver:
    """Look-ups in threads of their own, shared while in flight and remembered for a moment."""

    def __init__(self, options: HttpRunnerOptions, *, lookup: Lookup) -> None:
        self._ttl_seconds = options.dns_ttl.total_seconds()
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(options.dns_threads_max, thread_name_prefix="dns")
        self._known: OrderedDict[tuple[str, int], tuple[float, list[Candidate]]] = OrderedDict()
        self._pending: dict[tuple[str, int], asyncio.Future[list[Candidate]]] = {}

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
        key = (host, port)
        if (known := self._known.get(key)) and known[0] > loop.time():
            return known[1]
        try:
            found = await self._ask(key, loop=loop)
        except (OSError, UnicodeError) as error:
            raise dns_error(host, error) from error
        if not found:
            raise dns_error(host, LookupError())
        return found

    def close(self) -> None:
        """Let threads go as they finish; safe to call twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self, key: tuple[str, int], *, loop: asyncio.AbstractEventLoop
    ) -> list[Candidate]:
        pending = self._pending.get(key)
        if pending is None:
            pending = loop.run_in_executor(self._threads, self._lookup, *key, 0)
            self._pending[key] = pending
            pending.add_done_callback(self._remember(key, loop=loop))
        # Shielded: whoever gives up must not take the answer from the others who wait for it.
        return await asyncio.shield(pending)

    def _remember(
        self, key: tuple[str, int], *, loop: asyncio.AbstractEventLoop
    ) -> Callable[[asyncio.Future[list[Candidate]]], None]:
        def remember(answer: asyncio.Future[list[Candidate]]) -> None:
            self._pending.pop(key, None)
            if answer.cancelled() or answer.exception() is not None:
                return
            self._known[key] = (loop.time() + self._ttl_seconds, answer.result())
            self._known.move_to_end(key)
            if len(self._known) > _NAMES_MAX:
                self._known.popitem(last=False)

        return remember


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


async def _connect(candidate: Candidate) -> socket.socket:
    connection = socket.socket(candidate.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, candidate.address)
    except BaseException:
        connection.close()
        raise
    return connection
