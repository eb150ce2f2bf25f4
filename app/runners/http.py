"""The runner for HTTP targets: one attempt in, one outcome out.

Guarantees: one total deadline from connect to last byte, whatever the target does; the request is
sent at most once (once per hop where the job follows redirects); what is read is bounded; nothing
is raised but ``asyncio.CancelledError``. Success is 2xx only. Called by ``engine/attempts.py``;
built by ``main`` with the transport it chooses.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

import httpx
import structlog

from app.domain.clock import Clock
from app.domain.execution import Attempt, AttemptOutcome, Outcome, Reason
from app.runners.address import join_address, shown_address
from app.runners.answer import Answer, retry_after, status_sentence
from app.runners.dialer import Egress
from app.runners.failures import (
    DeliveryError,
    Phase,
    Progress,
    egress_error,
    protocol_error,
    timeout_error,
)
from app.runners.http_options import HttpRunnerOptions
from app.runners.request import PreparedRequest, RawHeader, RequestCache, varying_headers

_log = structlog.get_logger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER = 303
_POST_TO_GET = frozenset({301, 302})


class HttpRunner:
    """Delivers attempts over a transport, which is closed with the runner.

    ``egress`` judges the scheme of each hop; addresses are the transport's to have judged.
    """

    def __init__(
        self,
        *,
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
        options: HttpRunnerOptions,
        egress: Egress,
    ) -> None:
        self._transport = transport
        self._egress = egress
        self._clock = clock
        self._options = options
        self._requests = RequestCache(options)

    async def run(self, attempt: Attempt) -> Outcome:
        """Make the attempt and say what it came to; see the module for what is guaranteed."""
        progress = Progress()
        answer = Answer(self._options)
        seconds = attempt.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                return await self._deliver(attempt, progress=progress, answer=answer)
        except DeliveryError as error:
            return _failed(error, answer)
        except TimeoutError:
            return _failed(timeout_error(progress, seconds), answer)
        except Exception:  # noqa: BLE001 - the boundary of an attempt: no run takes another with it
            _log.exception("http.attempt_crashed", phase=progress.phase.value)
            return _failed(_unexpected(progress), answer)

    async def close(self) -> None:
        """Free connections; safe to call twice."""
        await self._transport.aclose()

    async def _deliver(self, attempt: Attempt, *, progress: Progress, answer: Answer) -> Outcome:
        prepared = self._requests.get(attempt)
        varying = varying_headers(attempt, prepared.own)
        hops_left = self._options.redirects_max if attempt.target.follow_redirects else 0
        while True:
            response = await self._send(prepared, varying, progress=progress, answer=answer)
            if hops_left == 0 or not _points_elsewhere(response):
                break
            await response.aclose()
            prepared = _next_hop(prepared, response)
            answer.forget()
            hops_left -= 1
        await _read(response, answer)
        followed = attempt.target.follow_redirects
        return self._outcome(response, prepared, answer=answer, followed=followed)

    async def _send(
        self,
        prepared: PreparedRequest,
        varying: list[RawHeader],
        *,
        progress: Progress,
        answer: Answer,
    ) -> httpx.Response:
        origin = prepared.address.origin
        verdict = self._egress.judge_scheme(origin.scheme)
        if not verdict.allowed:
            raise egress_error(origin.host, verdict.why)
        progress.label = origin.label
        progress.phase = Phase.QUEUED
        response = await self._transport.handle_async_request(prepared.request(varying, progress))
        answer.begin(response)
        return response

    def _outcome(
        self, response: httpx.Response, prepared: PreparedRequest, *, answer: Answer, followed: bool
    ) -> Outcome:
        received = Outcome(
            kind=AttemptOutcome.RESPONSE,
            http_status=response.status_code,
            response_bytes=answer.wire_bytes,
            response_excerpt=answer.excerpt(),
        )
        if response.is_success:
            return received
        now, cap = self._clock.now(), self._options.retry_after_max
        return replace(
            received,
            reason=Reason.STATUS,
            error=_explanation(response, prepared, followed=followed),
            retry_after=retry_after(response, now=now, cap=cap),
        )


async def _read(response: httpx.Response, answer: Answer) -> None:
    """Read a body to its end or its cap; past the cap the connection is closed, never drained."""
    stream = cast("httpx.AsyncByteStream", response.stream)
    chunks = aiter(stream)
    try:
        async for chunk in chunks:
            answer.feed(chunk)
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
        await stream.aclose()


def _points_elsewhere(response: httpx.Response) -> bool:
    return response.status_code in _REDIRECTS and "location" in response.headers


def _next_hop(prepared: PreparedRequest, response: httpx.Response) -> PreparedRequest:
    """Aim at a redirect's Location, with the method RFC 9110 §15.4 and browsers agree on."""
    status = response.status_code
    as_get = (status == _SEE_OTHER and prepared.method != "HEAD") or (
        status in _POST_TO_GET and prepared.method == "POST"
    )
    try:
        address = join_address(prepared.address, response.headers["location"])
    except DeliveryError as error:
        raise DeliveryError(
            f"{status_sentence(status)} and points to something that cannot be called: {error}",
            kind=AttemptOutcome.RESPONSE,
            reason=Reason.STATUS,
        ) from error
    return prepared.redirected(address, as_get=as_get)


def _explanation(response: httpx.Response, prepared: PreparedRequest, *, followed: bool) -> str:
    sentence = status_sentence(response.status_code)
    if not _points_elsewhere(response):
        return sentence
    shown = shown_address(prepared.address, response.headers["location"])
    elsewhere = f"{sentence} and points to {shown or 'another place'}"
    if followed:
        return f"{elsewhere}; that is one redirect too many"
    return f"{elsewhere}; redirects are not followed: use that URL, or let the job follow redirects"


def _failed(error: DeliveryError, answer: Answer) -> Outcome:
    """Tell a failure, with what had been received of the answer by then."""
    headless = answer.status is None
    return Outcome(
        kind=error.kind,
        reason=error.reason,
        http_status=answer.status,
        response_bytes=None if headless else answer.wire_bytes,
        response_excerpt=None if headless else answer.excerpt(),
        error=str(error),
    )


def _unexpected(progress: Progress) -> DeliveryError:
    return protocol_error(
        f"The attempt broke off because of an internal error while {progress.phase}; "
        "the service's log has the details"
    )
