"""Proxies of the environment are used only where the operator says so."""

import pytest

from app.runners.http_options import HttpRunnerOptions
from app.security.egress import EgressOptions
from tests.support.raw_server import RawServer, reply

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_ignored_by_default(courier, monkeypatch):
    """The environment's proxies are ignored by default."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with RawServer((reply(),)) as server:
        assert (await courier.deliver(server.url())).succeeded


async def test_used_where_trusted(courier, monkeypatch):
    """With ``trust_env_proxy`` the request goes to the proxy, for an address only it knows."""
    async with RawServer((reply("by proxy"),)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        courier.options = HttpRunnerOptions(trust_env_proxy=True)
        outcome = await courier.deliver("http://only-the-proxy-knows.test/a?b=%41")
        (request,) = proxy.requests
    assert outcome.response_excerpt == "by proxy", outcome.error
    assert request.line == b"GET http://only-the-proxy-knows.test/a?b=%41 HTTP/1.1"


async def test_no_proxy(courier, monkeypatch):
    """Hosts in NO_PROXY are called directly, under the policy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,169.254.169.254")
    courier.options = HttpRunnerOptions(trust_env_proxy=True)
    async with RawServer((reply(),)) as server:
        assert (await courier.deliver(server.url())).succeeded
    blocked = await courier.deliver("http://169.254.169.254/")
    assert blocked.reason == "egress_denied"


async def test_schemes_are_judged_before_the_proxy(courier, monkeypatch):
    """A proxy is not asked for what the schemes do not allow."""
    async with RawServer((reply("by proxy"),)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        courier.options = HttpRunnerOptions(trust_env_proxy=True)
        courier.egress = EgressOptions(schemes=("https",))
        outcome = await courier.deliver("http://only-the-proxy-knows.test/")
        assert proxy.requests == []
    assert outcome.reason == "egress_denied"


async def test_proxy_that_is_down(courier, monkeypatch):
    """A proxy that cannot be reached is a connect error."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    courier.options = HttpRunnerOptions(trust_env_proxy=True)
    outcome = await courier.deliver("http://anything.test/")
    assert outcome.reason == "connect"
