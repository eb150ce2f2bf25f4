"""Holding processes to a part of a core, where the machine lets it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import cpu_limit
from benchmarks.cpu_limit import CpuLimit

GROUPS = Path("/sys/fs/cgroup")
HERE = GROUPS if (GROUPS / "cgroup.controllers").exists() else GROUPS / "cpu"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its input ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.kill()


def groups_of(pid: int) -> list[str]:
    return [
        line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if "bench" in line
    ]


def quota_of(pid: int) -> list[str]:
    """Read what the kernel grants: microseconds of each period, and the period."""
    group = HERE / f"benchmark-{os.getpid()}-{pid}"
    if HERE == GROUPS:
        return (group / "cpu.max").read_text().split()
    return [(group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")]


def test_a_machine_that_cannot_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without control groups there is an error that says why."""
    monkeypatch.setattr(cpu_limit, "_GROUPS", tmp_path / "none")
    with (
        pytest.raises(RuntimeError, match=r"cannot be limited here: .*No such file"),
        CpuLimit([os.getpid()], cores=0.5),
    ):
        pass


@pytest.mark.skipif(not os.access(HERE / "cgroup.procs", os.W_OK), reason="needs control groups")
def test_the_limit_ends_with_the_block(process: subprocess.Popen[bytes]):
    """Within it the kernel grants a process its part; one that lives on is free again."""
    with CpuLimit([process.pid], cores=0.5):
        assert groups_of(process.pid)
        assert quota_of(process.pid) == ["5000", "10000"]
    assert not groups_of(process.pid)
    assert not list(HERE.glob(f"benchmark-{os.getpid()}-*"))


@pytest.mark.skipif(not os.access(HERE / "cgroup.procs", os.W_OK), reason="needs control groups")
def test_all_are_limited_or_none(process: subprocess.Popen[bytes]):
    """Where a process is gone already, the others are not limited either."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with (
        pytest.raises(RuntimeError, match="cannot be limited here"),
        CpuLimit([process.pid, gone.pid], cores=0.5),
    ):
        pass
    assert not groups_of(process.pid)
    assert not list(HERE.glob(f"benchmark-{os.getpid()}-*"))
