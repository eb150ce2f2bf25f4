"""What the service takes while it has nothing to do."""

import os
from pathlib import Path

import pytest

from tests.e2e.world import CLOCK, create
from tests.support.homes import Home
from tests.support.service import Service, eventually

# What k8s/base asks for: requests.memory of the Deployment.
MEMORY_MAX_BYTES = 128 * 1024 * 1024
# Measured: 0.2 to 0.3 % of a core. Probes come on top.
CPU_SHARE_MAX = 0.02
WATCHED_SECONDS = 4.0


@pytest.mark.slow
async def test_an_idle_service_fits_its_request(home: Home):
    """With a job to wait for, the process takes less memory than it asks for, and hardly CPU."""
    async with Service(home) as service:
        far = {"schedule_type": "date", "run_at": "2099-01-01T00:00:00+09:00"}
        await create(service.client, "far", "http://localhost:9/", **far)
        assert (await service.client.get("/health")).status_code == 200

        begin, used = CLOCK.monotonic(), _cpu_seconds(service.pid)
        await eventually(lambda: CLOCK.monotonic() - begin >= WATCHED_SECONDS)
        share = (_cpu_seconds(service.pid) - used) / (CLOCK.monotonic() - begin)
        memory = _resident_bytes(service.pid)

    assert memory < MEMORY_MAX_BYTES, f"{memory / 1024 / 1024:.1f} MiB"
    assert share < CPU_SHARE_MAX, f"{share:.2%} of a core"


def _cpu_seconds(pid: int) -> float:
    """Read user and system time from /proc (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
