"""httpx's own transport under the same egress policy and limits; also the way through proxies.

httpx's pool resolves and connects inside a network backend; ours stands in front of it, judges
every address and hands on the judged one, so SNI, certificate check and Host keep the name. The
backend's place, ``_pool._network_backend``, is not public: the integration tests pin it. No
connection serves twice (see ``_inner_transport``). Raises ``DeliveryError`` like
``DirectTransport``.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextvars import ContextVar
from importlib import import_module
from typing import Any, cast
from urllib import request as environment

import httpx

from app.runners.dialer import Dialer
from app.runners.failures import (
    DeliveryError,
    Phase,
    Progress,
    connect_error,
    dropped_error,
    framing_error,
    protocol_error,
    tls_error,
    truncated_error,
)
from app.runners.http_options import HttpRunnerOptions

_PHASES = {
    "connection.start_tls.started": Phase.HANDSHAKE,
    "http11.send_request_headers.started": Phase.SENDING,
    "http11.receive_response_headers.started": Phase.WAITING,
    "http11.receive_response_body.started": Phase.RECEIVING,
}
# httpx imports these inside its first request, which would take half a second of its deadline.
_LATE_MODULES = ("httpcore._backends.anyio", "anyio._backends._asyncio")
# Read so much of a head at a time: interim answers that come in one piece are parsed in one go.
_HEAD_PIECE_BYTES = 4096
_CHUNK_FRAMING_BYTES = 5  # the least: a digit and two line ends
# The backend is called inside a request without being told which one.
_current: ContextVar["_Trip"] = ContextVar("current_trip")


class _Trip:
    """One request under way, and how many bytes came before its answer's head ended."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.head_bytes = 0
        self.head_pending = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:  # noqa: ARG002 - httpx's shape
        """Follow httpx's trace events."""
        if phase := _PHASES.get(event):
            self.progress.phase = phase
        if event.startswith("http11.receive_response_headers."):
            self.head_pending = event.endswith(".started")


class HttpxTransport(httpx.AsyncBaseTransport):
    """httpx's pool: every connection judged, errors told apart, heads bounded.

    ``tls`` is for tests and private CAs; default: httpx's roots.
    """

    def __init__(
        self, options: HttpRunnerOptions, *, dialer: Dialer, tls: ssl.SSLContext | None = None
    ) -> None:
        self._options = options
        self._dialer = dialer
        self._inner = _inner_transport(options, tls=tls, proxy=None)
        for module in _LATE_MODULES:
            import_module(module)
        pool: Any = self._inner._pool  # noqa: SLF001 - see the module's first lines
        pool._network_backend = _JudgingBackend(  # noqa: SLF001 - the same
            pool._network_backend,  # noqa: SLF001 - the same
            dialer=dialer,
            options=options,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return once the final answer's head is there."""
        return await _handled(self._inner, request, options=self._options)

    async def aclose(self) -> None:
        """Close every connection; safe to call twice."""
        await self._inner.aclose()
        self._dialer.close()


class ProxyingTransport(httpx.AsyncBaseTransport):
    """Sends through the proxies the environment names; hosts in NO_PROXY go ``direct``.

    What may be called through a proxy is the proxy's to decide.
    """

    def __init__(
        self,
        options: HttpRunnerOptions,
        *,
        direct: httpx.AsyncBaseTransport,
        proxies: Mapping[str, str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._direct = direct
        self._proxies = dict(proxies)
        self._through = {
            scheme: _inner_transport(options, tls=tls, proxy=proxy)
            for scheme in ("http", "https")
            if (proxy := proxies.get(scheme) or proxies.get("all"))
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request by its way."""
        through = self._through.get(request.url.scheme)
        host = request.url.netloc.decode("ascii")
        if through is None or _bypasses(host, self._proxies):
            return await self._direct.handle_async_request(request)
        request.url = _ExactUrl(request)
        request.extensions.pop("target", None)
        return await _handled(through, request, options=self._options)

    async def aclose(self) -> None:
        """Close all ways; safe to call twice."""
        await self._direct.aclose()
        for through in self._through.values():
            await through.aclose()


class _ExactUrl(httpx.URL):
    """A URL whose target stays as given, where httpx has no extension for it.

    httpx applies the extension ``target`` to the request for the proxy, too, which must name the
    whole URL, or host and port.
    """

    def __init__(self, request: httpx.Request) -> None:
        super().__init__(request.url)
        self._target: bytes = request.extensions.get("target", request.url.raw_path)

    @property
    def raw_path(self) -> bytes:
        """Tell the request's target."""
        return self._target


class _JudgingBackend:
    """An httpcore network backend that connects to judged addresses only."""

    def __init__(self, inner: Any, *, dialer: Dialer, options: HttpRunnerOptions) -> None:
        self._inner = inner
        self._dialer = dialer
        self._options = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> "_BoundedStream":
        """Resolve, judge every answer, and connect to the first that answers."""
        progress = _current.get().progress
        failure: Exception = OSError()
        for candidate in await self._dialer.judged(host, port, progress=progress):
            try:
                stream = await self._inner.connect_tcp(
                    str(candidate.address[0]),
                    port,
                    timeout=timeout,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except Exception as error:  # noqa: BLE001 - httpcore's errors; the last is reported
                failure = error
            else:
                return _BoundedStream(stream, head_bytes_max=self._options.head_bytes_max)
        raise connect_error(progress.label, _root(failure)) from failure

    async def sleep(self, seconds: float) -> None:
        """Wait; httpcore asks for it between its own retries, which are off."""
        await self._inner.sleep(seconds)


class _BoundedStream:
    """A connection on which the bytes before an answer's head are counted."""

    def __init__(self, inner: Any, *, head_bytes_max: int) -> None:
        self._inner = inner
        self._head_bytes_max = head_bytes_max

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        """Read; whatever came before this call was not yet a whole head."""
        trip = _current.get(None)  # None: a body is being read
        if trip and trip.head_pending and trip.head_bytes > self._head_bytes_max:
            raise protocol_error(f"The answer's head is larger than {self._head_bytes_max} bytes")
        if trip and trip.head_pending:
            max_bytes = min(max_bytes, _HEAD_PIECE_BYTES)
        data: bytes = await self._inner.read(max_bytes, timeout)
        if trip and trip.head_pending and data:
            trip.head_bytes += len(data)
            trip.progress.phase = Phase.RECEIVING
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        """Write all of ``buffer``."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> "_BoundedStream":
        """Upgrade to TLS."""
        try:
            stream = await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except Exception as error:
            raise tls_error(_current.get().progress.label, _root(error)) from error
        except BaseException:  # the deadline: httpcore would forget the socket
            await self._inner.aclose()
            raise
        return _BoundedStream(stream, head_bytes_max=self._head_bytes_max)

    def get_extra_info(self, info: str) -> object:
        """Tell about the connection."""
        found: object = self._inner.get_extra_info(info)
        return found


class _TranslatingStream(httpx.AsyncByteStream):
    """A body whose errors are ``DeliveryError``, of so many pieces at most.

    Its framing is not seen here; each chunk makes a piece.
    """

    def __init__(
        self, inner: httpx.AsyncByteStream, *, progress: Progress, options: HttpRunnerOptions
    ) -> None:
        self._inner = inner
        self._progress = progress
        self._framing_bytes_max = options.framing_bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._inner)
        try:
            framing_bytes = 0
            async for chunk in chunks:
                framing_bytes += _CHUNK_FRAMING_BYTES
                if framing_bytes > self._framing_bytes_max:
                    raise framing_error()
                yield chunk
        except DeliveryError:
            raise
        except (httpx.TransportError, OSError) as error:
            raise truncated_error(self._progress.label) from error
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def aclose(self) -> None:
        """Free the connection; it is closed unless the body was read to its end."""
        await self._inner.aclose()


async def _handled(
    inner: httpx.AsyncHTTPTransport, request: httpx.Request, *, options: HttpRunnerOptions
) -> httpx.Response:
    progress: Progress = request.extensions.get("progress") or Progress()
    trip = _Trip(progress)
    request.extensions = {**request.extensions, "trace": trip.trace}
    token = _current.set(trip)
    try:
        response = await inner.handle_async_request(request)
    except DeliveryError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _translated(error, progress) from error
    finally:
        _current.reset(token)
    if len(response.headers.raw) > options.head_fields_max:
        await response.aclose()
        raise protocol_error(f"{progress.label} answered with too many headers")
    response.stream = _TranslatingStream(
        cast("httpx.AsyncByteStream", response.stream), progress=progress, options=options
    )
    return response


def _translated(error: Exception, progress: Progress) -> DeliveryError:
    match error:
        case httpx.ProxyError():
            return connect_error(f"the proxy for {progress.label}", error)
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return connect_error(progress.label, _root(error))
        case httpx.ReadError() | httpx.WriteError() | OSError():
            return dropped_error(progress.label, _root(error))
        case httpx.RemoteProtocolError() if "without sending" in str(error):
            return dropped_error(progress.label)
        case _:
            return protocol_error(
                f"{progress.label} answered with something that is not valid HTTP/1.1; "
                "does that port speak HTTP?"
            )


def _bypasses(host: str, proxies: dict[str, str]) -> bool:
    """Tell whether NO_PROXY names the host, by the rules of Python's own clients."""
    # The stub of the standard library leaves this function out.
    return bool(environment.proxy_bypass_environment(host, proxies))  # type: ignore[attr-defined]


def _root(error: BaseException) -> BaseException:
    """Find the operating system's error under the wrappers: the deepest that has a number."""
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.errno):
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[-1]
        else:
            seen = seen.__cause__ or seen.__context__
    return seen or error


def _inner_transport(
    options: HttpRunnerOptions, *, tls: ssl.SSLContext | None, proxy: str | None
) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        verify=True if tls is None else tls,
        trust_env=False,
        limits=httpx.Limits(
            max_connections=options.connections_max or None,
            # None is kept: what a target sends after an answer stays in the parser of httpx's
            # connection and would be taken for the next request's answer.
            max_keepalive_connections=0,
        ),
        proxy=proxy,
        retries=0,
    )
