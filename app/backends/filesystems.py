"""Where a database file may lie: not on a network file system.

SQLite's log is shared memory and its locks are the kernel's; over a network neither holds, and two
machines would write one file. Linux tells the kind of a mount in ``/proc``; elsewhere nothing is
checked. Called by ``embedded.py`` before anything is opened.
"""

import re
from pathlib import Path

from app.domain.errors import StorageUnavailableError

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb2",
        "smb3",
        "smbfs",
    }
)
# What FUSE serves is as good as its server: sshfs and bucket mounts do not hold locks. These two
# are local, and the second is the root of a rootless container.
_FUSE_LOCAL = frozenset({"fuseblk", "fuse.fuse-overlayfs"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


def refuse_network(path: Path, *, mounts: Path = MOUNTS) -> None:
    """Raise ``StorageUnavailableError`` if ``path`` (absolute, it need not exist) is elsewhere.

    ``mounts`` is a file in the form of ``/proc/self/mountinfo`` (proc(5)); without one nothing is
    refused.
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = _kind_of(path, table)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _FUSE_LOCAL):
        raise StorageUnavailableError(
            f"The database {path} would lie on a network file system ({kind}), where SQLite's "
            "locks do not hold; choose a local disk by DATABASE_URL"
        )


def _kind_of(path: Path, table: str) -> str:
    """Find the file system that a path is on: that of the longest mount point above it."""
    kind, depth = "", 0
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(_ESCAPED.sub(_unescape, mount.split()[4]))
        # A later mount on the same point hides the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = source.split()[0], len(point.parts)
    return kind


def _unescape(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))
