"""Stands between a client and PostgreSQL, and cuts, resets, stalls or loses what it carries."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from tests.support.service import eventually

_SSL_REQUEST = 80_877_103
# On for no time: closing resets the connection.
_RESET = struct.pack("ii", 1, 0)


class Loss(StrEnum):
    """What becomes of a commit whose connection is reset."""

    # The order never reaches the server.
    UNSENT = "unsent"
    # The server obeys, and nobody hears of it.
    UNANSWERED = "unanswered"


@dataclass(slots=True)
class CommitLoss:
    """The next commit of a transaction in which a statement holds ``text``; ``done`` after it."""

    text: bytes
    how: Loss
    done: asyncio.Event = field(default_factory=asyncio.Event)


class DatabaseProxy:
    """Carries TCP connections to a server's socket while used as a context manager."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._loss: CommitLoss | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.resume()
        self.cut()
        await eventually(lambda: not self._writers)

    @property
    def port(self) -> int:
        """Tell the port in use."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_count(self) -> int:
        """Count the connections that are carried."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """End every connection at once; new ones are carried."""
        for writer in self._writers:
            writer.transport.abort()

    def reset(self) -> None:
        """End every connection by a TCP reset; new ones are carried."""
        for writer in self._writers:
            _reset(writer)

    def stall(self) -> None:
        """Carry nothing more, in either direction, and end nothing."""
        self._flowing.clear()

    def resume(self) -> None:
        """Carry again, also what was held back."""
        self._flowing.set()
        for link in self._links:
            link.flowing.set()

    def forget(self) -> None:
        """Carry nothing more over the connections there are, as a router that has lost them."""
        for link in self._links:
            link.flowing.clear()

    def lose_commit(self, text: str, how: Loss) -> asyncio.Event:
        """Reset the connection of the next transaction that says ``text``, as it commits.

        What is given back is set once that has happened.
        """
        self._loss = CommitLoss(text.encode(), how)
        return self._loss.done

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_unix_connection(self._socket_path)
                ends.append(back)
                self._writers.add(back)
                link = _Link(client=writer, server=back)
                self._links.add(link)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._ask(reader, link))
                        group.create_task(self._answer(there, link))
                finally:
                    self._links.discard(link)
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    async def _flows(self, link: "_Link") -> None:
        await self._flowing.wait()
        await link.flowing.wait()

    async def _ask(self, reader: asyncio.StreamReader, link: "_Link") -> None:
        """Carry what the client says, until it ends; then the other direction ends too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flows(link)
                loss = self._loss if link.commits(data, self._loss) else None
                if loss is not None:
                    self._loss = None
                    if loss.how is Loss.UNSENT:
                        _reset(link.client)
                        loss.done.set()
                        break
                    link.loss = loss
                link.server.write(data)
                await link.server.drain()
        link.server.close()

    async def _answer(self, reader: asyncio.StreamReader, link: "_Link") -> None:
        """Carry what the server says, until it ends; then the other direction ends too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flows(link)
                if link.loss is not None:
                    _reset(link.client)
                    link.loss.done.set()
                    break
                link.client.write(data)
                await link.client.drain()
        link.client.close()


class _Link:
    """One connection: its two ends, and the statements of its present transaction."""

    def __init__(self, *, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.flowing = asyncio.Event()
        self.flowing.set()
        # The commit whose answer is not to be carried.
        self.loss: CommitLoss | None = None
        self._unread = b""
        self._is_started = False
        self._prepared: dict[bytes, bytes] = {}
        self._said: list[bytes] = []

    def commits(self, data: bytes, loss: CommitLoss | None) -> bool:
        """Take in what the client says; tell whether it orders the commit that is to be lost."""
        self._unread += data
        found = False
        for statement in self._statements():
            if statement.startswith(b"BEGIN"):
                self._said.clear()
            elif loss is not None and statement.startswith(b"COMMIT"):
                found |= any(loss.text in said for said in self._said)
            self._said.append(statement)
        return found

    def _statements(self) -> Iterator[bytes]:
        """Read statements out of the protocol's messages, by name if they are prepared."""
        for kind, body in self._messages():
            if kind == b"Q":
                yield body
            elif kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text
            elif kind == b"B":
                _, name, _ = body.split(b"\0", 2)
                yield self._prepared.get(name, b"")

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Cut what was read into messages; the first ones of a connection have no kind."""
        while True:
            start = 1 if self._is_started else 0
            if len(self._unread) < start + 4:
                return
            length = start + int.from_bytes(self._unread[start : start + 4])
            if len(self._unread) < length:
                return
            message, self._unread = self._unread[:length], self._unread[length:]
            body = message[start + 4 :]
            if self._is_started:
                yield message[:1], body
            elif int.from_bytes(body[:4]) != _SSL_REQUEST:
                self._is_started = True


def _reset(writer: asyncio.StreamWriter) -> None:
    ours = writer.get_extra_info("socket")
    if ours.family != socket.AF_UNIX:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
