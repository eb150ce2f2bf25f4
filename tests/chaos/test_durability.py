"""What was answered has reached the disk.

Three views of it. The order of system calls (strace): the log is flushed after the request was read
and before its answer is written. The same by the clock, where strace is missing. And what a power
loss leaves: only the bytes that were flushed, file by file. That is the worst case for data never
flushed; blocks that a real disk writes out of order or tears are SQLite's own checksums' matter,
and a disk that lies about flushing is nobody's.
"""

import asyncio
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.arrivals import find_contradictions, read_rows, whole
from tests.chaos.storm import Client, Target, steady_job
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.nursery import CrashingService, Nursery
from tests.support.power_loss import Disk
from tests.support.raw_server import RawServer
from tests.support.service import eventually

JOB = {
    "job_id": "job", "target_url": "http://127.0.0.1:9/", "schedule_type": "interval",
    "interval": {"hours": 1},
}  # fmt: skip
CHANGES = [
    ("POST", "/api/v1/jobs", JOB),
    ("POST", "/api/v1/jobs", {**JOB, "name": "edited", "replace_existing": True}),
    ("POST", "/api/v1/jobs/job/pause", None),
    ("POST", "/api/v1/jobs/job/resume", None),
    ("POST", "/api/v1/jobs/job/trigger", None),
    ("DELETE", "/api/v1/jobs/job", None),
]
pytestmark = pytest.mark.only_on(DatabaseKind.SQLITE, because="a server flushes its own files")

LOSSES = 3
WRITE = """
import os, sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE t (mode TEXT)")
for mode in ("FULL", "OFF"):
    connection.execute(f"PRAGMA synchronous = {mode}")
    connection.execute("INSERT INTO t VALUES (?)", [mode])
os._exit(0)
"""


def test_a_power_loss_takes_what_was_not_flushed(tmp_path: Path):
    """Of two commits, one of them never flushed, the simulated power loss leaves the other."""
    disk, database = Disk(tmp_path), tmp_path / "jobs.db"
    subprocess.run([sys.executable, "-c", WRITE, database], env=disk.environment, check=True)
    assert disk.lose_power(database) > 0
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT mode FROM t").fetchall() == [("FULL",)]
    connection.close()


@pytest.mark.slow
async def test_what_was_answered_survives_a_power_loss(home: Home, tmp_path: Path):
    """Jobs, changes and triggers that were answered, and attempts that were sent, are all there."""
    disk, chance = Disk(tmp_path), random.Random(1)
    with Nursery(**disk.environment) as nursery:
        async with (
            RawServer((Target(1),)) as target,
            CrashingService(nursery, home, MYSCHEDULER_HOST_CONCURRENCY="100") as service,
        ):
            await service.start()
            for number in range(20):
                job = steady_job(number, target)
                answer = await service.client.post("/api/v1/jobs", json=job)
                assert answer.status_code == 200
            client = Client(http=service.client, target=target, chance=chance)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(client.run(stop))
                for _ in range(LOSSES):
                    await _work_goes_on(client, target)
                    await service.kill()
                    disk.lose_power(service.home.file)
                    await service.start()
                stop.set()
            await client.check()
            await service.kill()
            disk.lose_power(service.home.file)
            rows = read_rows(service.home)
            assert find_contradictions(rows, whole(target.requests)) == []
            manual = {row.id: row.job_id for row in rows if row.cause == "manual"}
            assert manual == client.triggered
            assert len(client.triggered) > 3


async def _work_goes_on(client: Client, target: RawServer) -> None:
    """Wait until some more requests of either side were answered."""
    answers, sent = sum(client.answers.values()) + 10, len(target.requests) + 20
    await eventually(lambda: sum(client.answers.values()) > answers and len(target.requests) > sent)


async def test_each_change_is_flushed_before_its_answer(home: Home, tmp_path: Path):
    """Between a request and its answer the log is flushed, and never while nothing is asked."""
    disk = Disk(tmp_path)
    with Nursery(**disk.environment) as nursery:
        async with CrashingService(nursery, home) as service:
            await service.start()
            for method, path, body in CHANGES:
                begin = time.monotonic()
                answer = await service.client.request(method, path, json=body)
                end = time.monotonic()
                assert answer.status_code == 200, answer.text
                assert [at for at in disk.flushes("jobs.db-wal") if begin < at < end]
            # A read flushes nothing: the flushes above are not somebody else's.
            count = len(disk.flushes("jobs.db-wal"))
            for _ in range(20):
                await service.client.get("/api/v1/jobs")
            assert len(disk.flushes("jobs.db-wal")) < count + 10


async def test_system_calls_come_in_the_right_order(home: Home, tmp_path: Path):
    """Traced, the request is read, the log flushed and the answer written, in this order."""
    tracer = shutil.which("strace")
    if tracer is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    with Nursery() as nursery:
        async with CrashingService(nursery, home) as service:
            await service.start()
            calls = "trace=read,recvfrom,write,writev,sendto,sendmsg,fsync,fdatasync"
            process = await asyncio.create_subprocess_exec(
                tracer, "-f", "-y", "-s", "80", "-e", calls, "-o", trace, "-p", str(service.pid),
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stderr is not None
            told = (await process.stderr.readline()).decode()
            if "attached" not in told:
                await process.wait()
                pytest.skip(f"strace may not look into another process here: {told.strip()}")
            for method, path, body in CHANGES:
                answer = await service.client.request(method, path, json=body)
                assert answer.status_code == 200, answer.text
            process.terminate()
            await process.communicate()
    order = _order_of(trace.read_text(encoding="utf-8", errors="replace"))
    for method, path, _ in CHANGES:
        assert re.match(rf"(flush )*{method} {path} (flush )+answer", order), order
        order = order.partition("answer ")[2]


def _order_of(trace: str) -> str:
    """Reduce a trace to the requests read, the flushes of the log that ended, and the answers."""
    words = []
    flushing: set[str] = set()
    for line in trace.splitlines():
        thread = line.partition(" ")[0]
        request = re.search(r'"((?:POST|DELETE) /api/v1/\S+) HTTP', line)
        if request:
            words.append(request[1])
        elif "HTTP/1.1 200" in line:
            words.append("answer")
        elif re.search(r"f(data)?sync\(\d+<[^>]*-wal>", line):
            flushing.add(thread)
        if thread in flushing and re.search(r"sync(\(\S*| resumed>.*)\) += 0$", line):
            flushing.discard(thread)
            words.append("flush")
    return " ".join(words) + " "
