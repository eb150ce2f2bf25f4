"""The load generator's end of a connection: what it writes, and how it reads answers."""

import json
from collections.abc import Callable

import pytest

from benchmarks.load import Connection, creation, one_off, prepare


class Wire:
    """Stands in for a transport: keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def connection() -> Connection:
    made = Connection()
    made.connection_made(Wire())  # type: ignore[arg-type]  # all that is used of a transport
    return made


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def noting(seen: list[tuple[int, bytes]]) -> Callable[[int, bytes, float], None]:
    return lambda status, body, _seconds: seen.append((status, body))


def test_answers_are_matched_in_order(connection: Connection):
    """Answers that arrive together go to those who asked, in the order they asked."""
    first: list[tuple[int, bytes]] = []
    second: list[tuple[int, bytes]] = []
    connection.send(b"request", noting(first))
    connection.send(b"request", noting(second))

    connection.data_received(answer(200, b"one") + answer(409, b"two"))

    assert (first, second) == ([(200, b"one")], [(409, b"two")])
    assert connection.pending == 0


def test_answers_may_come_in_pieces(connection: Connection):
    """An answer cut anywhere is read once it is whole."""
    seen: list[tuple[int, bytes]] = []
    connection.send(b"request", noting(seen))

    for byte in answer(201, b"{}\r\n\r\n"):
        connection.data_received(bytes([byte]))

    assert seen == [(201, b"{}\r\n\r\n")]


def test_a_broken_connection_answers_those_who_wait(connection: Connection):
    """When a connection ends, nobody waits for ever: those under way get status 0."""
    seen: list[tuple[int, bytes]] = []
    connection.send(b"request", noting(seen))

    connection.connection_lost(None)

    assert seen == [(0, b"closed")]


def test_a_closed_connection_sends_nothing(connection: Connection):
    """What is sent over a closed connection is refused at once."""
    seen: list[tuple[int, bytes]] = []
    connection.close()

    connection.send(b"request", noting(seen))

    assert [status for status, _ in seen] == [0]
    assert connection.is_closed


def test_requests_are_whole():
    """A prepared request says how long its body is, or that it has none."""
    head, _, body = prepare("POST", "/path", {"a": 1}).partition(b"\r\n\r\n")

    assert head.startswith(b"POST /path HTTP/1.1\r\nHost: ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"a": 1}
    assert prepare("GET", "/x").endswith(b"Content-Length: 0\r\n\r\n")


def test_a_creation_names_its_instant():
    """The instant of a one-off job survives the wire to the microsecond."""
    request = creation("a", "http://127.0.0.1:9/ok/a", **one_off(1_700_000_000.123456))

    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {
        "job_id": "a",
        "target_url": "http://127.0.0.1:9/ok/a",
        "method": "POST",
        "body": {"job": "a"},
        "schedule_type": "date",
        "run_at": "2023-11-14T22:13:20.123456+00:00",
    }
