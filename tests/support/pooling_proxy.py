"""Stands between clients and PostgreSQL as a proxy that pools transactions does, only stricter.

A client is let in without the server, and gets a session of the server's for a transaction at a
time: never the one it had before, while there is another. Whoever asks for settings of a session is
refused, as PgBouncer does. Only what drivers send without being asked for a password is understood.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, NamedTuple, Self

_SSL_REQUEST = 80_877_103
_STARTUP = 196_608
_KNOWN_PARAMETERS = frozenset({"user", "database", "client_encoding", "application_name"})
_IDLE = b"I"


class Message(NamedTuple):
    """One message of the protocol, and its bytes."""

    kind: bytes
    body: bytes

    @property
    def wire(self) -> bytes:
        """Tell the message's bytes."""
        return self.kind + (len(self.body) + 4).to_bytes(4) + self.body


class PoolingProxy:
    """Shares ``sessions`` of one database among all clients, while used as a context manager.

    ``refused`` are the settings that clients wanted and did not get; ``used`` counts the
    transactions of each session.
    """

    def __init__(self, socket_path: Path, database: str, *, sessions: int = 3) -> None:
        self._socket_path = socket_path
        self._database = database
        self._count = sessions
        self._free: asyncio.Queue[_Session] = asyncio.Queue()
        self._greeting = b""
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.refused: list[str] = []
        self.used: Counter[int] = Counter()

    async def __aenter__(self) -> Self:
        for number in range(self._count):
            self._free.put_nowait(await self._open(number))
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        while not self._free.empty():
            await _end(self._free.get_nowait().writer)

    @property
    def port(self) -> int:
        """Tell the port in use."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _open(self, number: int) -> "_Session":
        reader, writer = await asyncio.open_unix_connection(self._socket_path)
        asked = f"user\0postgres\0database\0{self._database}\0\0".encode()
        writer.write((len(asked) + 8).to_bytes(4) + _STARTUP.to_bytes(4) + asked)
        session = _Session(number, reader, writer)
        try:
            self._greeting = b"".join([message.wire async for message in session.greet()])
        except BaseException:
            await _end(writer)
            raise
        return session

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if await self._let_in(reader, writer):
                    await self._serve(reader, writer)
        finally:
            self._clients.discard(task)
            await _end(writer)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        wanted = await _read_startup(reader)
        if wanted is None:
            writer.write(b"N")  # no TLS
            wanted = await _read_startup(reader) or {}
        unknown = [name for name in wanted if name not in _KNOWN_PARAMETERS]
        self.refused += unknown
        if unknown:
            said = f"SFATAL\0C08P01\0Munsupported startup parameter: {unknown[0]}\0\0"
            writer.write(Message(b"E", said.encode()).wire)
            await writer.drain()
            return False
        writer.write(self._greeting)
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a client's transactions, each by the session that was idle longest."""
        asked = _soon(_read(reader))
        try:
            while (await asyncio.shield(asked)).kind != b"X":
                session = await self._free.get()
                self.used[session.number] += 1
                try:
                    asked = await session.carry(asked, reader, writer)
                except BaseException:
                    # Gone in the middle: what it began ends with the session.
                    await _end(session.writer)
                    self._free.put_nowait(await self._open(session.number))
                    raise
                self._free.put_nowait(session)
        finally:
            await _drop(asked)


class _Session(NamedTuple):
    """A connection to the server."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def carry(
        self,
        asked: asyncio.Task[Message],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> asyncio.Task[Message]:
        """Carry a transaction that begins with ``asked``, both ways, to its end.

        Returns what the client says next, once it says it.
        """
        due, answered = 0, _soon(_read(self.reader))
        try:
            while True:
                await asyncio.wait([asked, answered], return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    message = asked.result()
                    # Sync and Query are answered by one "ready for more" each.
                    due += message.kind in {b"S", b"Q"}
                    self.writer.write(message.wire)
                    asked = _soon(_read(reader))
                if answered.done():
                    message = answered.result()
                    writer.write(message.wire)
                    due -= message.kind == b"Z"
                    if message == (b"Z", _IDLE) and not due:
                        return asked
                    answered = _soon(_read(self.reader))
        except BaseException:
            await _drop(asked, answered)
            raise

    async def greet(self) -> AsyncIterator[Message]:
        """Yield what the server says at first, until it is ready."""
        message = Message(b"", b"")
        while message.kind != b"Z":
            message = await _read(self.reader)
            yield message


def _soon(reading: Coroutine[Any, Any, Message]) -> asyncio.Task[Message]:
    return asyncio.get_running_loop().create_task(reading)


async def _drop(*readings: asyncio.Task[Message]) -> None:
    """Let go of what nobody waits for any more, and of what became of it."""
    for reading in readings:
        reading.cancel()
    await asyncio.gather(*readings, return_exceptions=True)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Message:
    head = await reader.readexactly(5)
    return Message(head[:1], await reader.readexactly(int.from_bytes(head[1:]) - 4))


async def _read_startup(reader: asyncio.StreamReader) -> dict[str, str] | None:
    """Read a client's first words; None: it asks for TLS."""
    length = int.from_bytes(await reader.readexactly(4))
    body = await reader.readexactly(length - 4)
    if int.from_bytes(body[:4]) == _SSL_REQUEST:
        return None
    words = body[4:].decode().rstrip("\0").split("\0")
    return dict(zip(words[::2], words[1::2], strict=True))
