"""What benchmarks ask the machine: ports, the time, and what processes use (Linux's /proc)."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
# Of /proc/PID/stat behind the command's name (proc(5)).
_PARENT, _CPU_FIELDS, _THREADS = 1, slice(11, 15), 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process and all its descendants use at one moment.

    ``cpu_seconds`` counts user and system time since they began, ended children included once they
    were waited for; its resolution is 10 ms. ``memory_mib`` is resident memory, ``peak_memory_mib``
    the most there has been; pages that several processes share count in each.
    """

    cpu_seconds: float
    memory_mib: float
    peak_memory_mib: float
    open_files: int
    threads: int
    processes: int

    @classmethod
    def of(cls, *pids: int) -> "Usage":
        """Read the families of ``pids``; a process that is gone counts nothing."""
        members = [member for pid in pids for member in _family(pid)]
        read = [found for member in members if (found := _read(member)) is not None]
        return cls(
            cpu_seconds=sum(usage.cpu_seconds for usage in read),
            memory_mib=sum(usage.memory_mib for usage in read),
            peak_memory_mib=sum(usage.peak_memory_mib for usage in read),
            open_files=sum(usage.open_files for usage in read),
            threads=sum(usage.threads for usage in read),
            processes=len(read),
        )


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wall_seconds() -> float:
    """Tell the time by the clock that the service and the targets on this machine read, too."""
    return time.time()  # noqa: TID251 - the benchmark's clock


def cpu_seconds(pid: int) -> float:
    """Tell the CPU time a process has used."""
    return sum(int(field) for field in _stat(pid)[_CPU_FIELDS][:2]) / _TICKS_PER_SECOND


def memory_mib(pid: int) -> float:
    """Tell a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MIB


def _read(pid: int) -> Usage | None:
    try:
        fields = _stat(pid)
        status = Path(f"/proc/{pid}/status").read_text()
        peak_kib = status.partition("VmHWM:")[2].split()[0]
        return Usage(
            cpu_seconds=sum(int(field) for field in fields[_CPU_FIELDS]) / _TICKS_PER_SECOND,
            memory_mib=memory_mib(pid),
            peak_memory_mib=int(peak_kib) / 1024,
            open_files=len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - names only, and often
            threads=int(fields[_THREADS]),
            processes=1,
        )
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[_PARENT])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        member = waiting.pop()
        yield member
        waiting += children.get(member, [])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
