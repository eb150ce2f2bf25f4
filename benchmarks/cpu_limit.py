"""Holds processes to a part of a core each, as a container's CPU limit does (Linux, as root)."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

# Short, so that a process is held up for milliseconds and not for tenths of a second.
_PERIOD_US = 10_000
_GROUPS = Path("/sys/fs/cgroup")


class CpuLimit:
    """Gives each of ``pids`` so many cores until the block ends.

    Raises ``RuntimeError`` where this machine or user cannot; then nothing is limited.
    """

    def __init__(self, pids: Sequence[int], *, cores: float) -> None:
        self._pids = pids
        self._quota_us = round(cores * _PERIOD_US)
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            for pid in self._pids:
                self._limit(pid)
        except OSError as error:
            self.__exit__()
            raise RuntimeError(f"processes cannot be limited here: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        while self._made:
            group = self._made.pop()
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (group.parent / "cgroup.procs").write_text(pid)
            group.rmdir()

    def _limit(self, pid: int) -> None:
        is_unified = (_GROUPS / "cgroup.controllers").exists()
        group = (_GROUPS if is_unified else _GROUPS / "cpu") / f"benchmark-{os.getpid()}-{pid}"
        group.mkdir()
        self._made.append(group)
        if is_unified:
            (group / "cpu.max").write_text(f"{self._quota_us} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(self._quota_us))
        (group / "cgroup.procs").write_text(str(pid))
