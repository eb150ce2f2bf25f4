"""The wire as uvicorn serves it: what an in-process client cannot see."""

import asyncio

import pytest

from tests.support.homes import Home
from tests.support.service import Service

CREATION = b"POST /api/v1/jobs HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"


async def exchange(service: Service, request: bytes) -> bytes:
    """Send bytes on a connection of their own and read until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    async with asyncio.timeout(10):
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
    writer.close()
    return answer


async def test_bytes_on_a_socket(home: Home):
    """Oversized, chunked and hostile requests are answered and leave the service well."""
    async with Service(home) as service:
        large = await exchange(
            service, CREATION + b"Connection: close\r\nContent-Length: 10000000\r\n\r\n{"
        )
        assert large.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in large
        assert b"x-request-id: " in large.lower()
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        chunked = await exchange(
            service,
            CREATION + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 5,
        )
        assert chunked.startswith(b"HTTP/1.1 413 ")
        head = await exchange(
            service, b"HEAD /health HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"
        )
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")
        for path in (b"/%ff%00", b"/..%2f..%2fetc", b"/\xff", b"/\x01"):
            line = b"GET /api/v1/jobs" + path + b" HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
            assert (await exchange(service, line))[9:10] == b"4"
        assert (await service.client.get("/health/ready")).status_code == 200
        assert (await service.client.get("/api/v1/jobs/")).json()["jobs"] == []


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
async def test_nothing_depends_on_the_hosts_zone(home: Home, zone: str):
    """TZ alone decides what a time without an offset means and how it is shown."""
    async with Service(home, TZ=zone) as service:
        health = (await service.client.get("/health")).json()
        created = await service.client.post(
            "/api/v1/jobs",
            json={
                "schedule_type": "date",
                "run_at": "2035-01-01T09:00",
                "target_url": "http://h/",
            },
        )
    assert health["timezone"] == zone
    offset = {"Asia/Tokyo": "+09:00", "America/New_York": "-05:00"}[zone]
    assert created.json()["next_run_time"] == f"2035-01-01T09:00:00{offset}"
