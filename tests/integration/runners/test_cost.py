"""What an attempt costs, in calls of functions: wall times say nothing on a busy machine.

The limit is a fifth above what was counted when it was last set; see ``engine/test_cost.py``.
"""

import asyncio

from tests.integration.runners.conftest import Courier
from tests.support.call_count import counted_calls

CALLS_PER_ATTEMPT_MAX = 360
FEW, MANY = 20, 220
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Echo(asyncio.Protocol):
    """Answers whatever comes in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(ANSWER)


async def attempts(courier: Courier, url: str, size: int) -> int:
    """Count the calls of so many attempts of jobs of their own, one after the other."""
    with counted_calls() as count:
        for number in range(size):
            job = {"job_id": f"job-{size}-{number}", "body_json": f'{{"number":{number}}}'}
            assert (await courier.deliver(url, method="POST", **job)).succeeded
        return count.calls


async def test_an_attempt_costs_few_calls(direct_courier: Courier):
    """Each further attempt over a kept connection costs no more calls than it did."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        few = await attempts(direct_courier, url, FEW)
        many = await attempts(direct_courier, url, MANY)
    assert (many - few) / (MANY - FEW) <= CALLS_PER_ATTEMPT_MAX
