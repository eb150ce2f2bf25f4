"""The benchmarks themselves: their target, what they read of the machine, and one small run."""

import asyncio
import contextlib
import json
import math
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from benchmarks.load import Client, RefusedError, creation
from benchmarks.machine import Usage, wall_seconds
from benchmarks.service import Service
from benchmarks.stored import store
from benchmarks.target import Target
from tests.support.databases import DatabaseKind
from tests.support.service import ROOT, WAIT_SECONDS, eventually


async def run_benchmark(folder: Path, *arguments: str) -> tuple[Any, int]:
    """Run a benchmark with a folder for what is temporary; give its JSON and its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks", "run", *arguments, "--json",
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_SECONDS * 4):
        out, err = await process.communicate()
    assert out, err.decode()
    assert process.returncode is not None
    return json.loads(out), process.returncode


async def test_the_smallest_herd_is_measured(tmp_path: Path):
    """`python -m benchmarks run herd` drives the real service and prints one line of JSON."""
    result, exit_code = await run_benchmark(tmp_path, "herd", "--jobs", "20")
    assert exit_code == 0
    run = result["run"]
    assert (result["jobs"], run["runs"], run["lost"], run["doubled"]) == (20, 20, 0, 0)
    assert run["at_target_ms"]["count"] == run["in_ledger_ms"]["count"] == 20
    assert 0 <= run["in_ledger_ms"]["p50"] <= run["at_target_ms"]["max"]
    assert result["api_ms"]["count"] > 0
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names only


@pytest.mark.slow
async def test_hostile_targets_are_measured(tmp_path: Path):
    """`benchmarks run hostile` judges jobs beside hostile ones, and these end by their deadline."""
    kinds = ["hang", "gzip-bomb"]
    named = [word for kind in kinds for word in ("--kind", kind)]
    rows, exit_code = await run_benchmark(tmp_path, "hostile", *named, "--seconds", "2")

    assert [row["kind"] for row in rows] == kinds
    for row in rows:
        assert (row["attempts"] > 0, row["overdue"]) == (True, 0)
        assert "deadline" not in row["failures"]
        assert row["memory_mib"] < 128
        assert math.isfinite(row["quiet_p50_ms"])
        assert math.isfinite(row["p50_ms"])
    assert rows[0]["outcome"].startswith("timeout ")
    assert 2000 <= rows[0]["longest_ms"] <= 2500
    assert rows[1]["outcome"].startswith("response_too_large ")
    # How late innocents are depends on the machine; that it is told does not.
    assert exit_code == any(row["failures"] for row in rows)


async def test_the_target_notes_what_arrives(tmp_path: Path):
    """The target answers by the path, and its log tells key, identity and instant of each."""
    began = wall_seconds()
    async with Target(tmp_path) as target, Client(target.port) as client:
        await client.post("/ok/first", {"a": 1})
        await client.get("/after/0.01/second")
        refused = False
        try:
            await client.get("/fail/third")
        except RefusedError as error:
            refused = str(error).startswith("500")
        assert refused
        assert await target.count() == 3
        await client.call(b"GET /ok/fourth HTTP/1.1\r\nWebhook-Id: exe_4\r\n\r\n")

    assert [(arrival.key, arrival.identity) for arrival in target.arrivals] == [
        ("first", ""),
        ("second", ""),
        ("third", ""),
        ("fourth", "exe_4"),
    ]
    assert all(began <= arrival.at <= wall_seconds() for arrival in target.arrivals)


async def test_usage_counts_descendants():
    """What a process uses includes what its children use."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        await eventually(lambda: Usage.of(process.pid).processes == 2)
        usage = Usage.of(process.pid)
    finally:
        process.stdin.write(b"\n")
        process.stdin.close()
        await process.wait()

    assert usage.processes == 2
    assert usage.threads >= 2
    assert 0 < usage.memory_mib <= usage.peak_memory_mib * 1.1
    assert Usage.of(process.pid).processes == 0


@pytest.mark.only_on(DatabaseKind.SQLITE, because="jobs are copied into a file")
async def test_copied_jobs_are_jobs(tmp_path: Path):
    """Jobs that a benchmark stores by copying are read by the service, each with a revision."""
    path = tmp_path / "jobs.db"
    url = f"sqlite:///{path}"
    await migrate(DatabaseOptions(url=url))
    async with Service(tmp_path, url) as service, Client(service.port) as client:
        for number in range(4):
            schedule = {"schedule_type": "cron", "cron": {"year": "2099"}}
            request = creation(f"template-{number}", "http://127.0.0.1:9/", **schedule)
            await client.call(request)
    advanced: list[int] = []

    store(path, 10, advanced=advanced.append)

    assert advanced == [10]
    with contextlib.closing(sqlite3.connect(path)) as database:
        (revisions,) = database.execute("SELECT count(*) FROM job_revisions").fetchone()
    assert revisions == 14
    async with Service(tmp_path, url) as service, Client(service.port) as client:
        job = json.loads(await client.get("/api/v1/jobs/stored-000000009"))
        listed = json.loads(await client.get("/api/v1/jobs?limit=50"))
    assert (job["status"], job["next_run_time"][:4]) == ("running", "2099")
    assert (listed["total"], len(listed["jobs"])) == (14, 14)
