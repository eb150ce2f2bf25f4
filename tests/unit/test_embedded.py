"""One owner of a data directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.backends.embedded import DataLock, process_name
from app.domain.clock import SystemClock
from app.domain.errors import StorageInUseError, StorageUnavailableError


def test_a_second_owner_is_refused_and_told_who_is_first(tmp_path: Path):
    """While the lock is held another process is refused, naming pid, host and since."""
    lock = DataLock(tmp_path / "jobs.db")
    lock.acquire(clock=SystemClock())
    code = (
        "import sys, pathlib\n"
        "from app.backends.embedded import DataLock\n"
        "from app.domain.clock import SystemClock\n"
        "try:\n"
        "    DataLock(pathlib.Path(sys.argv[1])).acquire(clock=SystemClock())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "jobs.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lock.release()
    assert done.stdout.startswith("StorageInUseError Another MyScheduler process uses")
    assert f"process {os.getpid()} on {process_name().split(':')[0]}, since 20" in done.stdout


def test_a_lock_that_was_left_behind_is_taken(tmp_path: Path):
    """A lock file without a living owner stops nobody, whatever it says."""
    (tmp_path / "jobs.db.lock").write_text("rubbish " * 100)
    lock = DataLock(tmp_path / "jobs.db")
    lock.acquire(clock=SystemClock())
    held = json.loads((tmp_path / "jobs.db.lock").read_text())
    lock.release()
    lock.release()
    assert held["pid"] == os.getpid()


def test_an_owner_without_a_name_is_still_an_owner(tmp_path: Path):
    """If the first owner's file is damaged the second is refused all the same."""
    lock = DataLock(tmp_path / "jobs.db")
    lock.acquire(clock=SystemClock())
    (tmp_path / "jobs.db.lock").write_text("rubbish")
    with pytest.raises(StorageInUseError, match="did not leave its name"):
        DataLock(tmp_path / "jobs.db").acquire(clock=SystemClock())
    lock.release()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path):
    """A data directory that cannot be written is refused with a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailableError, match="cannot be written"):
        DataLock(tmp_path / "file" / "jobs.db").acquire(clock=SystemClock())
