"""The egress policy decides about the address a socket connects to, on both transports."""

import asyncio
import socket
import threading
from datetime import timedelta

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.runners.dialer import Candidate
from app.runners.http_options import HttpRunnerOptions
from app.security.egress import EgressMode, EgressOptions
from tests.support.raw_server import WAIT_SECONDS, RawServer, reply


def names(**addresses):
    """Resolve names from a table; numbers go to the platform's resolver."""

    def lookup(host, port, flags):
        if flags:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
            return [Candidate(family, address) for family, _, _, _, address in infos]
        calls.append(host)
        answer = addresses[host.removesuffix(".test")]
        if callable(answer):
            answer = answer()
        return [
            Candidate(socket.AF_INET6, (one, port, 0, 0))
            if ":" in one
            else Candidate(socket.AF_INET, (one, port))
            for one in answer
        ]

    calls: list[str] = []
    return lookup, calls


def assert_blocked(outcome, words):
    """Check that nothing was sent, and why."""
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.BLOCKED, Reason.EGRESS_DENIED)
    assert words in outcome.error
    assert outcome.http_status is None


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "１６９.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "0",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
async def test_refused_literals(courier, host):
    """Metadata, link-local and the like are refused in every dress."""
    assert_blocked(await courier.deliver(f"http://{host}/x?q=hidden"), "egress policy")


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost"])
@pytest.mark.parametrize("mode", [EgressMode.STANDARD, EgressMode.PUBLIC])
async def test_loopback_in_any_dress(courier, host, mode):
    """Loopback is called under ``standard`` and refused under ``public``, however it is written."""
    courier.egress = EgressOptions(mode=mode)
    async with RawServer((reply(),)) as server:
        outcome = await courier.deliver(server.url(host=host))
        if mode is EgressMode.STANDARD:
            assert outcome.succeeded, outcome.error
        else:
            assert_blocked(outcome, "loopback")
            assert server.connection_count == 0


async def test_name_that_resolves_to_metadata(courier):
    """A harmless name is judged by what it resolves to."""
    courier.lookup, _ = names(harmless=["169.254.169.254"])
    assert_blocked(await courier.deliver("http://harmless.test/"), "169.254.169.254")


@pytest.mark.parametrize("answers", [["127.0.0.1", "169.254.169.254"], ["fe80::1", "127.0.0.1"]])
async def test_mixed_answers(courier, answers):
    """One refused answer among good ones blocks the attempt before any connection."""
    courier.lookup, _ = names(mixed=answers)
    async with RawServer((reply(),)) as server:
        assert_blocked(
            await courier.deliver(server.url(host="mixed.test")),
            "link-local" if answers[0][0] == "f" else "metadata",
        )
        assert server.connection_count == 0


async def test_rebinding(courier):
    """A name that changes between look-ups gets no connection to the new address unjudged."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    courier.lookup, calls = names(rebind=lambda: next(answers))
    courier.options = HttpRunnerOptions(dns_ttl=HttpRunnerOptions().dns_ttl * 0)
    async with RawServer((reply(headers=("Connection: close",)),)) as server:
        first = await courier.deliver(server.url(host="rebind.test"))
        second = await courier.deliver(server.url(host="rebind.test"))
        assert first.succeeded
        assert_blocked(second, "169.254.169.254")
        assert (len(calls), server.connection_count) == (2, 1)


async def test_connects_to_the_judged_address(courier):
    """One look-up serves judgement and connection; Host keeps the name."""
    courier.lookup, calls = names(once=["127.0.0.1"])
    async with RawServer((reply(),)) as server:
        assert (await courier.deliver(server.url(host="once.test"))).succeeded
        assert server.requests[0].headers["host"] == f"once.test:{server.port}"
    assert calls == ["once.test"]


@pytest.mark.parametrize(
    "allow", ["allowed.test", "*.test", "127.0.0.0/8", "*:{port}", "allowed.test:{port}"]
)
async def test_allow_list(courier, allow):
    """Under ``allowlist`` a name passes by its name, its suffix, its address or its port."""
    courier.lookup, _ = names(allowed=["127.0.0.1"])
    async with RawServer((reply(),)) as server:
        courier.egress = EgressOptions(
            mode=EgressMode.ALLOWLIST, allow=(allow.format(port=server.port),)
        )
        assert (await courier.deliver(server.url(host="allowed.test"))).succeeded


async def test_not_on_the_allow_list(courier):
    """Under ``allowlist`` everything else is refused, the listed host's address included."""
    courier.lookup, _ = names(allowed=["127.0.0.1"], other=["127.0.0.1"])
    courier.egress = EgressOptions(mode=EgressMode.ALLOWLIST, allow=("allowed.test",))
    async with RawServer((reply(),)) as server:
        assert (await courier.deliver(server.url(host="allowed.test"))).succeeded
        for host in ("other.test", "127.0.0.1"):
            assert_blocked(await courier.deliver(server.url(host=host)), "allow list")


async def test_ipv6_loopback(courier):
    """IPv6 literals are called, with brackets in Host."""
    async with RawServer((reply(),), host="::1") as server:
        outcome = await courier.deliver(server.url(host="[::1]"))
        assert outcome.succeeded, outcome.error
        assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


async def test_a_scheme_that_is_not_allowed(courier):
    """Where https alone is allowed, an http URL is not called, not even looked up."""
    courier.egress = EgressOptions(schemes=("https",), allow=("secret.test",))
    courier.lookup, calls = names(secret=["127.0.0.1"])
    async with RawServer((reply(),)) as server:
        outcome = await courier.deliver(server.url(host="secret.test"))
        assert server.connection_count == 0
    assert_blocked(outcome, "MYSCHEDULER_EGRESS_SCHEMES allows https, not http")
    assert calls == []


async def test_shared_look_up(direct_courier):
    """Attempts at one time to one name share a look-up, and later ones its answer for a while."""
    direct_courier.lookup, calls = names(shared=["127.0.0.1"])
    async with RawServer((reply(headers=("Connection: close",)),)) as server:
        url = server.url(host="shared.test")
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(direct_courier.deliver(url))
        await direct_courier.deliver(url)
        assert len(server.requests) == 6
    assert calls == ["shared.test"]


async def test_shared_look_up_given_up_by_one(direct_courier):
    """Who gives up a shared look-up does not take it from the others."""
    release = threading.Event()

    def slow():
        release.wait(WAIT_SECONDS)
        return ["127.0.0.1"]

    direct_courier.lookup, calls = names(shared=slow)
    async with RawServer((reply(),)) as server, asyncio.TaskGroup() as group:
        url = server.url(host="shared.test")
        hasty = group.create_task(direct_courier.deliver(url, timeout=timedelta(seconds=0.1)))
        patient = group.create_task(direct_courier.deliver(url))
        assert (await hasty).reason is Reason.TIMEOUT
        release.set()
        assert (await patient).succeeded
    assert calls == ["shared.test"]
