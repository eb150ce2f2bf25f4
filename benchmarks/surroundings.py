"""What a figure depends on besides the code: the machine, its disk, and versions."""

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from app import __version__
from benchmarks.installed import Installed
from benchmarks.stores import DurablePostgres

# What the old design stands on; the development environment has it.
_OLD_DESIGN = ("apscheduler", "sqlalchemy", "httpx", "fastapi", "uvicorn")
_FLUSHES = 50


def describe(installed: Installed, postgres: DurablePostgres) -> dict[str, str]:
    """Tell machine and versions, by what they are."""
    old = [f"{name} {importlib.metadata.version(name)}" for name in _OLD_DESIGN]
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
        "flush of 4 KiB to the disk": f"{_flush_ms():.2f} ms",
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "MyScheduler": __version__,
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "PostgreSQL": postgres.version(),
        "the old design": ", ".join(old),
        **installed.versions(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _flush_ms() -> float:
    """Time what every durable commit here waits for, where databases are put ($TMPDIR)."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
