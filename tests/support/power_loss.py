"""Power loss without pulling a plug: only what was flushed to the disk is left of the files."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("synced.c")


class Disk:
    """Remembers each database file as it was when it was last flushed.

    ``environment`` belongs to the process that writes. Skips the test where no C compiler is.
    """

    def __init__(self, folder: Path) -> None:
        self.kept = folder / "kept"
        self.kept.mkdir()
        library = folder / "synced.so"
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc) to build the library that watches fsync")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "KEEP_SYNCED": str(self.kept)}

    def lose_power(self, database: Path) -> int:
        """Leave of the database what had been flushed; return how many bytes were lost.

        For when its process is dead.
        """
        lost = 0
        for path in database.parent.glob(f"{database.name}*"):
            kept = self.kept / path.name
            if path.name.endswith("-wal"):
                flushed = kept.read_bytes() if kept.exists() else b""
                lost += sum(a != b for a, b in zip(path.read_bytes(), flushed, strict=False))
                lost += abs(path.stat().st_size - len(flushed))
            path.unlink()
        for name in (database.name, f"{database.name}-wal"):
            if (self.kept / name).exists():
                shutil.copy(self.kept / name, database.with_name(name))
        return lost

    def flushes(self, name: str) -> list[float]:
        """Tell when a file was flushed, on the monotonic clock in seconds."""
        lines = (self.kept / "flushes").read_text(encoding="ascii").splitlines()
        pairs = (line.split(" ") for line in lines)
        return [float(at) for at, flushed in pairs if flushed == name]
