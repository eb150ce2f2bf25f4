"""Which file systems a database may lie on."""

from pathlib import Path

import pytest

from app.backends.embedded import DataLock
from app.backends.filesystems import refuse_network
from app.domain.clock import SystemClock
from app.domain.errors import StorageUnavailableError

LOCAL = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /dev/shm rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path):
    """Write a table of mounts: the local ones, then lines of ``mount point, kind``."""

    def write(*lines):
        table = tmp_path / "mountinfo"
        rows = [f"40 21 0:50 / {point} rw shared:9 - {kind} src rw\n" for point, kind in lines]
        table.write_text(LOCAL + "".join(rows), encoding="utf-8")
        return table

    return write


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse", "ceph"])
def test_network_file_systems_are_refused(mounts, kind):
    """A database on a network file system is refused by a sentence that names file and kind."""
    table = mounts(("/srv/data", kind))
    with pytest.raises(StorageUnavailableError) as caught:
        refuse_network(Path("/srv/data/jobs/jobs.db"), mounts=table)
    assert str(caught.value) == (
        f"The database /srv/data/jobs/jobs.db would lie on a network file system ({kind}), where "
        "SQLite's locks do not hold; choose a local disk by DATABASE_URL"
    )


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", "fuse.fuse-overlayfs"])
def test_local_file_systems_are_not(mounts, kind):
    """A database on a local file system is accepted."""
    refuse_network(Path("/srv/data/jobs.db"), mounts=mounts(("/srv/data", kind)))


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("/srv/nfs/jobs.db", True),
        ("/srv/nfs-not/jobs.db", False),
        ("/srv/nfs/local/jobs.db", False),
        ("/srv/with space/jobs.db", True),
        ("/srv/hidden/jobs.db", False),
    ],
)
def test_the_nearest_mount_decides(mounts, path, is_refused):
    """The longest mount point above the file counts; of two on one point, the later one."""
    table = mounts(
        ("/srv/nfs/local", "ext4"),
        ("/srv/nfs", "nfs"),
        (r"/srv/with\040space", "nfs"),
        ("/srv/hidden", "nfs"),
        ("/srv/hidden", "ext4"),
    )
    try:
        refuse_network(Path(path), mounts=table)
    except StorageUnavailableError:
        assert is_refused
    else:
        assert not is_refused


def test_a_system_that_does_not_tell_is_trusted(tmp_path):
    """Without a table of mounts nothing is refused."""
    refuse_network(Path("/srv/jobs.db"), mounts=tmp_path / "absent")


def test_no_lock_is_taken_on_a_network_file_system(mounts, tmp_path):
    """The data lock refuses such a place before it makes anything there."""
    folder = tmp_path / "data"
    lock = DataLock(folder / "jobs.db", mounts=mounts((folder, "nfs4")))
    with pytest.raises(StorageUnavailableError, match="network file system"):
        lock.acquire(clock=SystemClock())
    assert not folder.exists()
