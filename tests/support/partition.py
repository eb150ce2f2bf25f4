"""Two ways of cutting a replica off from PostgreSQL: a switch whose port is pulled, and a proxy.

``Wires`` are network namespaces: each replica has one, with a cable to the database's switch and a
cable to everybody else's, and pulling the first loses every packet in both directions, silently.
They need root and a kernel that lets it; ``wires_refused`` says why they cannot be had.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Self

from tests.support.databases import PostgresServer

_PORT = 5432


class Wires:
    """Two switches and a namespace for each of some replicas, while used as a context manager."""

    def __init__(self, count: int) -> None:
        self._mark = f"ms{os.getpid() % 100_000:05}"
        third = 2 * (os.getpid() % 120)
        self._nets = (f"10.231.{third}", f"10.231.{third + 1}")
        self._count = count

    def __enter__(self) -> Self:
        try:
            for kind, net in zip("dw", self._nets, strict=True):
                _ip("link", "add", f"{self._mark}{kind}", "type", "bridge")
                _ip("address", "add", f"{net}.1/24", "dev", f"{self._mark}{kind}")
                _ip("link", "set", f"{self._mark}{kind}", "up")
            for number in range(self._count):
                self._wire(number)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @property
    def database_host(self) -> str:
        """Tell the address on the switch that leads to the database only."""
        return f"{self._nets[0]}.1"

    @property
    def web_host(self) -> str:
        """Tell the address on the switch that is never cut."""
        return f"{self._nets[1]}.1"

    def host_of(self, number: int) -> str:
        """Tell where a replica can be called."""
        return f"{self._nets[1]}.{number + 11}"

    def within(self, number: int) -> Sequence[str]:
        """Give the words that run a command in a replica's namespace; its process id stays."""
        return ("ip", "netns", "exec", f"{self._mark}n{number}")

    def cut(self, number: int) -> None:
        """Pull a replica's cable to the database's switch."""
        _ip("link", "set", self._cable(number, "d"), "nomaster")

    def heal(self, number: int) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable(number, "d"), "master", f"{self._mark}d")

    def _wire(self, number: int) -> None:
        space = f"{self._mark}n{number}"
        _ip("netns", "add", space)
        _ip("-netns", space, "link", "set", "lo", "up")
        for kind, net in zip("dw", self._nets, strict=True):
            cable, end = self._cable(number, kind), f"to-{kind}"
            _ip("link", "add", cable, "type", "veth", "peer", "name", end, "netns", space)
            _ip("link", "set", cable, "master", f"{self._mark}{kind}", "up")
            _ip("-netns", space, "address", "add", f"{net}.{number + 11}/24", "dev", end)
            _ip("-netns", space, "link", "set", end, "up")

    def _cable(self, number: int, kind: str) -> str:
        return f"{self._mark}{kind}{number}"

    def _remove(self) -> None:
        for number in range(self._count):
            _try("netns", "delete", f"{self._mark}n{number}")
        for kind in "dw":
            _try("link", "delete", f"{self._mark}{kind}")


class NetworkPostgres(PostgresServer):
    """A server that is called over the network too, by whoever reaches its address."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.listen_addresses = host

    def launch(self) -> None:
        """Let everybody in, and run it."""
        with (self.folder / "data" / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all samenet trust\n")
        super().launch()

    def network_url(self, name: str) -> str:
        """Tell a database's address on the network."""
        return f"postgresql://postgres@{self.listen_addresses}:{_PORT}/{name}"


@contextlib.contextmanager
def network_postgres(host: str) -> Iterator[NetworkPostgres]:
    """Run a server until the block ends."""
    server = NetworkPostgres(host)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def wires_refused() -> str | None:
    """Say why there can be no namespaces here; None if there can be."""
    if shutil.which("ip") is None:
        return "there is no ip(8) on this machine"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Wires(1):
            return None
    except subprocess.CalledProcessError as error:
        return f"the kernel refuses network namespaces or bridges: {error.stderr.strip()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def _try(*words: str) -> None:
    subprocess.run(["ip", *words], check=False, capture_output=True, timeout=20)
