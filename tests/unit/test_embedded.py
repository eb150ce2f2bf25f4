"""One owner of a data directory."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.backends.embedded import DataLock, StopReserve, process_name
from app.domain.clock import SystemClock
from app.domain.errors import StorageInUseError, StorageUnavailableError
from tests.support.storage import filled, no_growth, small_disk


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


def test_two_owners_in_one_process_are_two(tmp_path: Path):
    """The lock belongs to an open file: a second one of the same process is refused as well."""
    first, second = DataLock(tmp_path / "jobs.db"), DataLock(tmp_path / "jobs.db")
    first.acquire(clock=SystemClock())
    with pytest.raises(StorageInUseError, match=f"process {os.getpid()} on "):
        second.acquire(clock=SystemClock())
    second.release()
    assert second.holder() is not None
    first.release()
    second.acquire(clock=SystemClock())
    second.release()


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


def test_the_holder_is_told_to_whoever_asks(tmp_path: Path):
    """``holder`` names the owner while there is one, and says that there is none otherwise."""
    lock, other = DataLock(tmp_path / "jobs.db"), DataLock(tmp_path / "jobs.db")
    assert other.holder() is None
    lock.acquire(clock=SystemClock())
    assert f"process {os.getpid()} on " in str(other.holder())
    lock.release()
    assert other.holder() is None


def test_a_look_at_the_lock_keeps_no_start_from_it(tmp_path: Path):
    """A start among any number of looks at the lock is never refused: they take nothing."""
    database = tmp_path / "jobs.db"
    started = threading.Event()

    def look() -> None:
        while not started.is_set():
            DataLock(database).holder()

    looking = [threading.Thread(target=look) for _ in range(4)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(300):
            lock = DataLock(database)
            lock.acquire(clock=SystemClock())
            lock.release()
    finally:
        started.set()
        for thread in looking:
            thread.join()


def test_an_owner_without_room_for_its_name_is_still_an_owner(tmp_path: Path):
    """On a full disk the lock is taken all the same."""
    database = tmp_path / "data" / "jobs.db"
    lock = DataLock(database)
    with small_disk(database.parent, size="512k"), filled(database.parent):
        lock.acquire(clock=SystemClock())
        with pytest.raises(StorageInUseError, match="did not leave its name"):
            DataLock(database).acquire(clock=SystemClock())
        lock.release()


def test_the_reserve_is_held_and_given_back(tmp_path: Path):
    """While the service runs, disk space is held back; after it none is."""
    reserve = tmp_path / "jobs.db.reserve"
    with StopReserve(tmp_path / "jobs.db"):
        held = reserve.stat()
        assert held.st_blocks * 512 >= held.st_size > 0
        assert held.st_size <= 64 * 1024 * 1024
    assert not reserve.exists()


def test_a_reserve_that_was_left_behind_is_kept(tmp_path: Path):
    """After a crash the space is still held, and not asked for twice."""
    reserve = tmp_path / "jobs.db.reserve"
    with StopReserve(tmp_path / "jobs.db"):
        left = reserve.stat().st_size
    reserve.write_bytes(b"\0" * left)
    with no_growth(os.getpid()), StopReserve(tmp_path / "jobs.db"):
        assert reserve.stat().st_size == left


def test_a_reserve_that_cannot_be_had_stops_nobody(tmp_path: Path):
    """Where it cannot be made the service runs all the same."""
    with StopReserve(tmp_path / "absent" / "jobs.db"):
        assert not (tmp_path / "absent").exists()


def test_a_reserve_that_cannot_be_given_back_stops_nobody(tmp_path: Path):
    """If it cannot be removed the stop goes on."""
    reserve = tmp_path / "jobs.db.reserve"
    with StopReserve(tmp_path / "jobs.db"):
        reserve.unlink()
        reserve.mkdir()
    assert reserve.is_dir()


def test_a_nearly_full_disk_is_not_filled_by_the_reserve(tmp_path: Path):
    """A disk with hardly any room is left alone."""
    database = tmp_path / "data" / "jobs.db"
    with small_disk(database.parent, size="512k"), StopReserve(database):
        assert not database.with_name("jobs.db.reserve").exists()
