"""A name server that keeps some names waiting delays no others."""

import asyncio
import contextlib
import socket
import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta

from app.domain.execution import Reason
from app.runners.dialer import Candidate
from app.runners.http_options import HttpRunnerOptions
from tests.support.raw_server import WAIT_SECONDS, RawServer, reply
from tests.support.service import ROOT, eventually

BRIEF = timedelta(seconds=0.25)
# Not kept: each attempt looks its name up.
closing = reply(headers=("Connection: close",))


@dataclass(slots=True)
class NameServer:
    """Answers 127.0.0.1 to every name; those that begin with "slow" wait until released."""

    release: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def __call__(self, host, port, flags):
        """Look up as ``getaddrinfo`` does."""
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        self.asked.append(host)
        if host.startswith("slow"):
            # Longer than any attempt waits for an answer.
            self.release.wait(10 * WAIT_SECONDS)
        return [Candidate(socket.AF_INET, ("127.0.0.1", port))]


async def test_fifty_slow_names(courier):
    """Fifty names that do not resolve hold up no other name, and end at their deadlines."""
    courier.lookup = names = NameServer()
    async with RawServer((reply(),)) as server:
        slow = [courier.deliver(server.url(host=f"slow{n}.test"), timeout=BRIEF) for n in range(50)]
        quick = [courier.deliver(server.url(host=f"q{n}.test")) for n in range(20)]
        outcomes = await asyncio.gather(*slow, *quick)
        after = await courier.deliver(server.url(host="after.test"))
    # Not before: whatever waited for a slow name has timed out.
    names.release.set()
    assert {outcome.reason for outcome in outcomes[:50]} == {Reason.TIMEOUT}
    assert all("looking up the host name" in outcome.error for outcome in outcomes[:50])
    assert all(outcome.succeeded for outcome in (*outcomes[50:], after))


async def test_names_known_as_slow(courier):
    """Names that were slow before share threads of their own, however many they are."""
    courier.options = HttpRunnerOptions(
        dns_threads_max=2, dns_slow=timedelta(milliseconds=20), dns_ttl=timedelta(0)
    )
    courier.lookup = names = NameServer()
    async with RawServer((closing,)) as server:
        urls = [server.url(host=f"slow{number}.test") for number in range(2)]
        first = [courier.deliver(url, timeout=BRIEF) for url in urls]
        assert {outcome.reason for outcome in await asyncio.gather(*first)} == {Reason.TIMEOUT}
        names.release.set()
        for url in urls:
            assert (await courier.deliver(url)).succeeded
        names.release.clear()
        again = [courier.deliver(url, timeout=BRIEF) for url in urls]
        *late, quick = await asyncio.gather(
            *again, courier.deliver(server.url(host="quick.test"), timeout=BRIEF)
        )
    names.release.set()
    assert {outcome.reason for outcome in late} == {Reason.TIMEOUT}
    assert quick.succeeded


async def test_name_that_is_slow_no_more(courier):
    """A name is slow by its last look-up only."""
    courier.options = HttpRunnerOptions(
        dns_threads_max=1, dns_slow=timedelta(milliseconds=20), dns_ttl=timedelta(0)
    )
    courier.lookup = names = NameServer()
    async with RawServer((closing,)) as server:
        once = server.url(host="slow-once.test")
        assert (await courier.deliver(once, timeout=BRIEF)).reason is Reason.TIMEOUT
        names.release.set()
        for _ in range(2):
            assert (await courier.deliver(once)).succeeded
        names.release.clear()
        assert (await courier.deliver(once, timeout=BRIEF)).reason is Reason.TIMEOUT
        other = await courier.deliver(server.url(host="quick.test"), timeout=BRIEF)
    names.release.set()
    assert other.reason is Reason.TIMEOUT, "the one quick thread is taken by slow-once.test"


async def test_more_names_than_threads(courier):
    """Look-ups beyond the number of threads wait for their turn."""
    courier.options = HttpRunnerOptions(dns_threads_max=1)
    courier.lookup = names = NameServer()
    async with RawServer((reply(),)) as server:
        outcomes = await asyncio.gather(
            *(courier.deliver(server.url(host=f"q{number}.test")) for number in range(10))
        )
    assert all(outcome.succeeded for outcome in outcomes)
    assert len(names.asked) == 10


async def test_one_look_up_for_all_ports(courier):
    """A name is looked up once for all its ports."""
    courier.lookup = names = NameServer()
    async with RawServer((reply("one"),)) as one, RawServer((reply("two"),)) as two:
        for server, text in ((one, "one"), (two, "two")):
            outcome = await courier.deliver(server.url(host="shared.test"))
            assert outcome.response_excerpt == text
    assert names.asked == ["shared.test"]


async def test_closing_gives_up_look_ups_that_wait(courier):
    """Closing cancels look-ups that wait for a thread."""
    courier.options = HttpRunnerOptions(dns_threads_max=1)
    courier.lookup = names = NameServer()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(courier.deliver("http://slow1.test/", timeout=BRIEF))
        waiting = group.create_task(courier.deliver("http://slow2.test/"))
        await eventually(lambda: names.asked == ["slow1.test"])
        await courier.close()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert (await first).reason is Reason.TIMEOUT
    names.release.set()
    assert names.asked == ["slow1.test"]


_SCRIPT = """
import asyncio, socket, threading
from app.runners.dialer import Resolver
from app.runners.http_options import HttpRunnerOptions

def silent(host, port, flags):
    if flags:
        raise socket.gaierror(socket.EAI_NONAME, "a name")
    threading.Event().wait()

async def main():
    resolver = Resolver(HttpRunnerOptions(), lookup=silent)
    try:
        await asyncio.wait_for(resolver.resolve("silent.test", 80), 0.1)
    except TimeoutError:
        print("gave up", flush=True)
    resolver.close()

asyncio.run(main())
"""


async def test_end_of_the_process():
    """A look-up that does not end does not keep the process from ending."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SCRIPT, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert out == b"gave up\n"
    assert process.returncode == 0
