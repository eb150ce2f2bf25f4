"""Builds the transport a setting names, with resolver and egress policy behind it, for ``main``."""

import ssl
from typing import assert_never
from urllib.request import getproxies_environment

import httpx

from app.runners.dialer import Dialer, Egress, Lookup, Resolver, system_lookup
from app.runners.direct_transport import DirectTransport
from app.runners.http_options import HttpRunnerOptions, TransportKind
from app.runners.httpx_transport import HttpxTransport, ProxyingTransport


def build_transport(
    kind: TransportKind,
    options: HttpRunnerOptions,
    policy: Egress,
    *,
    tls: ssl.SSLContext | None = None,
    lookup: Lookup = system_lookup,
) -> httpx.AsyncBaseTransport:
    """Build a transport whose every connection ``policy`` judges.

    Only where ``options.trust_env_proxy`` says so are the proxy variables read, once, here.
    ``tls`` (default: the platform's roots) and ``lookup`` (default: the system's resolver) serve
    private CAs and tests.
    """
    dialer = Dialer(options, egress=policy, resolver=Resolver(options, lookup=lookup))
    direct: httpx.AsyncBaseTransport
    match kind:
        case TransportKind.DIRECT:
            direct = DirectTransport(options, dialer=dialer, tls=tls)
        case TransportKind.HTTPX:
            direct = HttpxTransport(options, dialer=dialer, tls=tls)
        case _:
            assert_never(kind)
    if not options.trust_env_proxy:
        return direct
    return ProxyingTransport(options, direct=direct, proxies=getproxies_environment(), tls=tls)
