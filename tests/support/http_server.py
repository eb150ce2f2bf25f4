"""The API under uvicorn in this process, with bounds of the test's choice; raw clients of it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import uvicorn

from app.main import create_app, open_service
from app.main.connections import ConnectionOptions
from app.main.serving import server_config
from tests.support.homes import Home
from tests.support.service import eventually, settings_for

WAIT_SECONDS = 15.0


class _Server(uvicorn.Server):
    """Leaves the signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@dataclass(slots=True)
class HttpServer:
    """A server that listens on ``port``."""

    port: int
    _server: uvicorn.Server

    @property
    def open_count(self) -> int:
        """Tell how many connections are open."""
        return len(self._server.server_state.connections)


@contextlib.asynccontextmanager
async def open_server(
    home: Home, options: ConnectionOptions, *, body_seconds: float = WAIT_SECONDS
) -> AsyncIterator[HttpServer]:
    """Serve until the block ends."""
    settings = settings_for(home)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with open_service(settings) as services, asyncio.TaskGroup() as group:
            api = create_app(settings, services, body_seconds=body_seconds)
            server = _Server(server_config(api, settings, options))
            group.create_task(server.serve(sockets=[listener]))
            await eventually(lambda: server.started)
            yield HttpServer(listener.getsockname()[1], server)
            server.should_exit = True


async def talk(port: int, parts: Iterable[bytes], *, every: float = 0) -> bytes:
    """Send parts, one each so many seconds, while reading until the end; return what was read."""
    answer = bytearray()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ended = asyncio.Event()

    async def send() -> None:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await ended.wait()
                if ended.is_set():
                    return

    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(send())
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                answer += chunk
        ended.set()
        writer.transport.abort()
    return bytes(answer)


def statuses(answers: bytes) -> list[int]:
    """List the statuses of answers as they came over a connection."""
    pieces = answers.split(b"HTTP/1.1 ")[1:]
    return [int(piece[:3]) for piece in pieces]
