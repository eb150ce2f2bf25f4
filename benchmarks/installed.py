"""What the rivals need, installed into one folder that may be thrown away.

Packages of npm and of Python come by npm and uv in the versions below; Redis and wrk come from
Debian's (or Ubuntu's) own packages, which are unpacked into the folder, so nothing on the machine
changes. What cannot be had is named with the reason; contenders that need it are left out.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Newest at the time of writing; undici 7 is the newest that Node.js 20 runs.
BULLMQ = Path(__file__).parent / "baselines" / "bullmq"
PYTHON_PACKAGES = (
    "celery[redis]==5.7.0",
    "urllib3==2.8.0",
    "psycopg[binary]==3.3.9",
    "pgqueuer==1.6.0",
    "asyncpg==0.32.0",
)
# With the libraries that a bare system lacks.
DEBIAN_PACKAGES = (
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblzf1",
    "wrk",
    "libluajit-5.1-2",
    "libluajit-5.1-common",
)


class Installed:
    """A folder with the rivals' programs; ``missing`` tells what is not there, and why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}

    def install(self) -> None:
        """Install what is not there yet; takes seconds to a minute."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in (self._install_node, self._install_python, self._install_debian):
            part()

    @property
    def bullmq(self) -> Path:
        """Name the folder of BullMQ's worker and its packages."""
        return self.folder / "bullmq"

    @property
    def python(self) -> Path:
        """Name the interpreter that has the Python rivals."""
        return self.folder / "python" / "bin" / "python"

    def program(self, name: str) -> str:
        """Find a program: the machine's own, or the one unpacked here."""
        unpacked = self._debian / "usr" / "bin" / name
        return shutil.which(name) or str(unpacked)

    def has(self, *names: str) -> bool:
        """Tell whether all of ``names`` could be installed."""
        return not self.missing.keys() & set(names)

    def environment(self) -> dict[str, str]:
        """Give the environment in which the programs find their libraries."""
        libraries = [str(path) for path in (self._debian / "usr" / "lib").glob("*-linux-gnu*")]
        return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": ":".join(libraries)}

    def versions(self) -> dict[str, str]:
        """Tell what is installed, by name."""
        found = {}
        for name in ("redis-server", "wrk"):
            if self.has(name):
                said = self._output(self.program(name), "--version")
                found[name] = said.partition("Copyright")[0].partition(" sha=")[0].strip()
        if self.has("bullmq"):
            packages = json.loads((BULLMQ / "package.json").read_text(encoding="utf-8"))
            words = [f"{name} {version}" for name, version in packages["dependencies"].items()]
            found["BullMQ"] = f"Node.js {self._output('node', '--version')}, {', '.join(words)}"
        if self.has("python"):
            found["Celery, PgQueuer"] = ", ".join(PYTHON_PACKAGES).replace("==", " ")
        return found

    @property
    def _debian(self) -> Path:
        return self.folder / "debian"

    def _install_node(self) -> None:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                self.missing["bullmq"] = f"{program} is not on the PATH (Node.js 20 or newer)"
                return
        shutil.copytree(BULLMQ, self.bullmq, dirs_exist_ok=True)
        self._run("bullmq", "npm", "install", "--no-audit", "--no-fund", cwd=self.bullmq)

    def _install_python(self) -> None:
        uv = _uv()
        if uv is None:
            self.missing["python"] = "uv is not on the PATH and not in .tools/bin (make check)"
            return
        if not self.python.exists():
            folder = self.python.parents[1]
            self._run("python", uv, "venv", "--quiet", "--python", sys.executable, folder)
        if self.has("python"):
            self._run(
                "python", uv, "pip", "install", "--quiet", "--python", self.python, *PYTHON_PACKAGES
            )

    def _install_debian(self) -> None:
        wanted = [name for name in ("redis-server", "wrk") if not Path(self.program(name)).exists()]
        if not wanted:
            return
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            for name in wanted:
                self.missing[name] = f"{name} is not on the PATH, and there is no apt-get to get it"
            return
        self._debian.mkdir(exist_ok=True)
        if not self._download(wanted):
            return
        for package in self._debian.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, self._debian], check=True)

    def _download(self, wanted: list[str]) -> bool:
        said = ""
        for package in DEBIAN_PACKAGES:
            done = subprocess.run(
                ["apt-get", "download", "--quiet", package],
                cwd=self._debian, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode and package in wanted:
                said = (done.stderr.strip().splitlines() or ["apt-get failed"])[-1]
                self.missing[package] = f"{said} (apt-get update may help)"
        return not said

    def _run(self, name: str, *command: str | Path, cwd: Path | None = None) -> None:
        # As in the Makefile: some networks have a certificate authority of their own.
        environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            self.missing[name] = f"{Path(command[0]).name} failed: {last}"

    def _output(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False
        )
        return done.stdout.strip().partition("\n")[0]


def _uv() -> str | None:
    ours = Path(__file__).parents[1] / ".tools" / "bin" / "uv"
    return shutil.which("uv") or (str(ours) if ours.exists() else None)
