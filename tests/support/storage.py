"""Faults of the storage, made for real: full and read-only disks, another process's lock."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

_BLOCK = b"x" * 65536
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[None]:
    """Make a folder a file system of its own, in memory; skip where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file or folder read-only; root, whom permissions do not stop, needs a mount."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def write_protected(*paths: Path) -> Iterator[None]:
    """Refuse every write to files that are open, too, as a disk does that turned read-only.

    A file system with open files cannot be mounted anew as read-only; skip where there is no other
    way, either.
    """
    probe = paths[0].with_name("probe")
    with probe.open("wb", buffering=0) as file, _immutable(probe), contextlib.suppress(OSError):
        file.write(b"x")
        pytest.skip("this file system lets who has a file open write to it")
    probe.unlink()
    with _immutable(*paths):
        yield


@contextlib.contextmanager
def _immutable(*paths: Path) -> Iterator[None]:
    done = subprocess.run(
        ["chattr", "+i", *paths], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        pytest.skip(f"this user may not make files immutable: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Use up a disk, to the last block that can be had."""
    fill = folder / "fill"
    with fill.open("wb", buffering=0) as file:
        for size in (len(_BLOCK), 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(_BLOCK[:size])
        try:
            yield
        finally:
            fill.unlink()


@contextlib.contextmanager
def no_growth(pid: int, *files: Path) -> Iterator[None]:
    """Let no file that a process writes grow beyond the largest of these; none: not at all."""
    bytes_max = max((path.stat().st_size for path in files), default=0)
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.asynccontextmanager
async def locked(database: Path) -> AsyncIterator[None]:
    """Hold the database's write lock in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LOCK, str(database),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        await process.communicate(b"go\n")


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount file systems: {done.stderr.strip()}")
