"""The service under uvicorn: the port, the API, the signals."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.middleware import Middleware

from app import __version__
from app.api import health
from app.api.deps import Services
from app.api.docs import install_docs
from app.api.errors import install_error_handlers
from app.api.middleware import HeadMiddleware, RequestIdMiddleware, TrailingSlashMiddleware
from app.api.v1.router import install_v1
from app.core.config import Settings
from app.core.logging import configure_logging
from app.domain.errors import AddressUnavailableError
from app.main.connections import ConnectionOptions, bounded_protocol, fit_to_files
from app.main.pipeline import open_service

# Open connections (a browser on a live page) are closed this long after a stop was asked for.
_CONNECTIONS_GRACE_SECONDS = 3
# New objects after which the collector looks at them, and how many looks later at older ones.
_COLLECT_AFTER = (10_000, 20, 20)
# From a request's head to the last byte of its body (nginx: 60, between two reads).
_BODY_SECONDS = 60.0

_DESCRIPTION = "Schedules HTTP calls: every due run is made, retried sensibly, and accounted for."


def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit code.

    Raises ``StorageInUseError``, ``StorageUnavailableError`` and ``AddressUnavailableError`` if it
    cannot start.
    """
    configure_logging(settings.log_level, settings.log_format, stream=sys.stdout)
    uvloop.run(_serve(settings))
    return 0


def create_app(
    settings: Settings, services: Services | None = None, *, body_seconds: float = _BODY_SECONDS
) -> FastAPI:
    """Build the API. Without ``services`` it opens its own when it starts (its lifespan).

    A request's body must be there ``body_seconds`` after its head.
    """

    @contextlib.asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        if services is not None:
            yield
            return
        async with open_service(settings) as opened:
            api.state.services = opened
            yield

    api = FastAPI(
        title="MyScheduler",
        version=__version__,
        description=_DESCRIPTION,
        root_path=settings.root_path,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        lifespan=lifespan,
        # FastAPI's own would look for it in the environment at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(TrailingSlashMiddleware),
            Middleware(HeadMiddleware),
        ],
    )
    api.state.services = services
    install_v1(api)
    api.router.routes.extend(health.router.routes)
    install_docs(api)
    install_error_handlers(
        api, request_bytes_max=settings.request_bytes_max, body_seconds=body_seconds
    )
    return api


def server_config(
    api: FastAPI, settings: Settings, connections: ConnectionOptions
) -> uvicorn.Config:
    """Tell uvicorn how to serve the API."""
    return uvicorn.Config(
        api,
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(connections),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Else any client on this machine could choose what is written down as its address.
        proxy_headers=False,
        timeout_graceful_shutdown=_CONNECTIONS_GRACE_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn, leaving by return instead of by the signal that stopped it.

    ``on_stop`` is called at once when a stop is asked for, before connections are closed.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop firing and claiming, then let uvicorn close its connections."""
        self._on_stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the stop signals until the process ends, so that a second one does no harm."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(settings: Settings) -> None:
    # The port first: what cannot be reached must not send.
    listener = _listen(settings.host, settings.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listener)
        services = await stack.enter_async_context(open_service(settings))
        config = server_config(
            create_app(settings, services), settings, fit_to_files(ConnectionOptions())
        )
        _calm_the_collector()
        await _Server(config, services.begin_stop).serve(sockets=[listener])


def _calm_the_collector() -> None:
    """Let Python's collector of cycles look less often; memory is freed without it.

    What lives now lives until the end. What a run makes is gone when it is over, and looked at
    after every 700 new objects, as by default, most of it is moved to the older ones before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port, or raise ``AddressUnavailableError`` saying what is in the way."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressUnavailableError(host, port, error.strerror or "unknown reason") from error
    return listener
