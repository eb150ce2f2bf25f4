"""Locks by name: how any lock is kept, and blocks and functions under one on either database."""

import asyncio
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.backends.postgres.leader import LOCK_KEY
from app.backends.postgres.named_lock import application_name, lock_key
from app.domain.clock import Clock, SystemClock
from app.domain.errors import StorageUnavailableError
from app.locks import LockLostError, LockTakenError, single_instance
from app.locks.keeper import Keeper, KeeperOptions
from tests.support.databases import DatabaseKind
from tests.support.homes import Home

FAST = KeeperOptions(
    try_every=timedelta(milliseconds=5),
    prove_every=timedelta(milliseconds=5),
    waits=4,
    wait=timedelta(milliseconds=10),
    trust=timedelta(seconds=60),
)
SECONDS = 10


class ScriptedLock:
    """A lock that answers by script; the last answer of each kind stays."""

    def __init__(self, *, take: tuple[object, ...] = (True,), held: tuple[object, ...] = (True,)):
        self._take, self._held = deque(take), deque(held)
        self.had = True
        self.given_back = 0

    async def take(self) -> bool:
        return await self._next(self._take)

    async def is_held(self) -> bool:
        return await self._next(self._held)

    async def holder(self) -> str:
        return "somebody"

    async def give_back(self) -> bool:
        self.given_back += 1
        return self.had

    async def _next(self, script: deque[object]) -> bool:
        answer = script.popleft() if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return bool(answer)


class MovedClock(SystemClock):
    """A clock that goes on while the process is stopped."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def keep(
    lock: ScriptedLock,
    *,
    wait: timedelta = timedelta(0),
    on_lost: Callable[[], None] = lambda: None,
    options: KeeperOptions = FAST,
    clock: Clock | None = None,
) -> Keeper:
    clock = clock or SystemClock()
    keeper = Keeper(lock, name="name", wait=wait, clock=clock, options=options, on_lost=on_lost)
    keeper.start()
    return keeper


@pytest.fixture
def url(home: Home) -> str:
    """Give the address of a database on each kind of it."""
    return home.url


def named(home: Home, pid: int | None) -> str:
    """Match how a holder is named: PostgreSQL knows its session, not its process."""
    if home.kind is DatabaseKind.SQLITE:
        return f"process {pid} on "
    return r"a session from the server's own machine, connected since \S+ \(pid \d+\)"


def test_a_kept_lock_is_given_back():
    """A lock that was taken and proven is given back once, and was not lost."""
    lock = ScriptedLock()
    keeper = keep(lock)
    keeper.acquired.result(SECONDS)
    keeper.prove().result(SECONDS)
    assert keeper.is_held
    keeper.stop()
    keeper.stop()
    keeper.ended.result(SECONDS)
    keeper.stop()
    assert (lock.given_back, keeper.is_lost, keeper.is_held) == (1, False, False)


def test_who_does_not_wait_is_refused():
    """A lock that is taken elsewhere is refused at once, naming its holder."""
    with pytest.raises(LockTakenError, match="name is held elsewhere, by somebody"):
        keep(ScriptedLock(take=(False,))).acquired.result(SECONDS)


def test_who_waits_gets_a_lock_that_is_given_back():
    """Tries are repeated while the wait lasts, also when the database is away meanwhile."""
    away = StorageUnavailableError("away")
    keeper = keep(ScriptedLock(take=(False, away, False, True)), wait=timedelta(minutes=1))
    keeper.acquired.result(SECONDS)
    keeper.stop()


def test_a_database_that_stays_away_is_told():
    """At the end of the wait it is the database's absence that is told."""
    keeper = keep(ScriptedLock(take=(StorageUnavailableError("away"),)))
    with pytest.raises(StorageUnavailableError, match="away"):
        keeper.acquired.result(SECONDS)


def test_waiting_can_be_given_up():
    """Who is asked to stop while it waits gives up without having had the lock."""
    lock = ScriptedLock(take=(False,))
    keeper = keep(lock, wait=timedelta(days=1))
    keeper.stop()
    keeper.ended.result(SECONDS)
    assert isinstance(keeper.acquired.exception(), LockTakenError)
    assert not keeper.is_lost


@pytest.mark.parametrize("answer", [False, None], ids=["no", "silence"])
def test_a_failed_proof_is_a_loss(answer: object):
    """Where the database says no, or nothing for as long as agreed, the loss is told at once."""
    lost = threading.Event()
    keeper = keep(ScriptedLock(held=(True, answer)), on_lost=lost.set)
    assert lost.wait(SECONDS)
    assert keeper.is_lost
    assert not keeper.is_held
    with pytest.raises(LockLostError):
        keeper.prove().result(SECONDS)
    keeper.ended.result(SECONDS)


def test_a_lock_that_cannot_be_given_back_was_lost():
    """What nobody proved until its end was not kept."""
    lock = ScriptedLock()
    lock.had = False
    keeper = keep(lock)
    keeper.acquired.result(SECONDS)
    keeper.stop()
    keeper.ended.result(SECONDS)
    assert keeper.is_lost


def test_an_old_proof_is_made_anew():
    """After a process was stopped for long, the lock counts as held once that is proven again."""
    clock = MovedClock()
    options = replace(FAST, prove_every=timedelta(seconds=50))
    keeper = keep(ScriptedLock(), options=options, clock=clock)
    keeper.acquired.result(SECONDS)
    clock.ahead = 3600
    before = keeper.is_held
    keeper.prove().result(SECONDS)
    assert (before, keeper.is_held) == (False, True)
    keeper.stop()


def test_a_proof_fails_before_the_last_one_is_worth_nothing():
    """The loss is told before another can have the lock."""
    with pytest.raises(ValueError, match="worth nothing"):
        KeeperOptions(trust=timedelta(seconds=5))


def test_the_key_is_the_same_in_every_version():
    """Old and new replicas exclude each other; no key is the leader's or a person's."""
    assert lock_key("nightly") == -6180237533069467882
    keys = {lock_key(f"name {number}") for number in range(10_000)}
    assert len(keys) == 10_000
    assert all(-(2**63) <= key < 0 for key in keys)
    assert LOCK_KEY > 0


def test_a_session_is_named_after_its_lock():
    """pg_stat_activity shows the name, as far as PostgreSQL lets it."""
    assert application_name("nightly") == "myscheduler lock nightly"
    assert application_name("日") == "myscheduler lock \\u65e5"
    assert len(application_name("x" * 100)) == 63


def test_a_block_excludes_every_other(home: Home, url: str):
    """Another block of this process is refused while the first lasts, and only one of its name."""
    with single_instance("a", database_url=url) as held:
        held.check()
        assert held.is_held
        with pytest.raises(LockTakenError, match=named(home, os.getpid())):
            single_instance("a", database_url=url).__enter__()
        with single_instance("b", database_url=url):
            pass
    with single_instance("a", database_url=url):
        pass


def test_an_error_of_the_block_gives_the_lock_back(url: str):
    """What a block raises comes through, and the lock is free."""
    with pytest.raises(KeyError), single_instance("a", database_url=url):
        raise KeyError
    with single_instance("a", database_url=url):
        pass


def test_calls_of_a_function_exclude_each_other(url: str):
    """A decorated function is refused while another thread is inside, and keeps its signature."""
    inside, leave = threading.Event(), threading.Event()

    @single_instance("a", database_url=url)
    def work(answer: int) -> int:
        inside.set()
        assert leave.wait(SECONDS)
        return answer

    thread = threading.Thread(target=work, args=(1,))
    thread.start()
    assert inside.wait(SECONDS)
    with pytest.raises(LockTakenError):
        work(2)
    leave.set()
    thread.join(SECONDS)
    assert work(3) == 3
    assert work.__name__ == "work"


async def test_calls_of_a_coroutine_exclude_each_other(url: str):
    """Of two calls at once one is refused; one that waits comes second."""
    inside, leave = asyncio.Event(), asyncio.Event()

    @single_instance("a", database_url=url)
    async def work() -> str:
        inside.set()
        await leave.wait()
        return "done"

    async with asyncio.TaskGroup() as group:
        first = group.create_task(work())
        await inside.wait()
        with pytest.raises(LockTakenError):
            await work()
        second = single_instance("a", database_url=url, wait=timedelta(minutes=1))
        waiting = group.create_task(second.__aenter__())
        leave.set()
        held = await waiting
        await held.check()
        await second.__aexit__(None, None, None)
    assert first.result() == "done"


async def test_a_cancelled_wait_leaves_nothing(url: str):
    """Who is cancelled while it waits gets no lock later."""
    async with single_instance("a", database_url=url):
        other = single_instance("a", database_url=url, wait=timedelta.max)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await other.__aenter__()
    async with single_instance("a", database_url=url, wait=timedelta(seconds=SECONDS)):
        pass


def test_a_killed_process_leaves_no_lock(home: Home, url: str):
    """After kill -9 of the holder the next one is let in."""
    context = multiprocessing.get_context("spawn")
    there, here = context.Pipe()
    holder = context.Process(target=hold, args=(url, there))
    holder.start()
    assert here.recv() == "held"
    with pytest.raises(LockTakenError, match=named(home, holder.pid)):
        single_instance("a", database_url=url).__enter__()
    holder.kill()
    holder.join(SECONDS)
    # PostgreSQL hears of it a moment later.
    wait = None if home.kind is DatabaseKind.SQLITE else timedelta(seconds=SECONDS)
    with single_instance("a", wait=wait, database_url=url):
        pass


def hold(url: str, line: object) -> None:
    """Hold the lock until killed; runs in a process of its own."""
    with single_instance("a", database_url=url):
        line.send("held")  # type: ignore[attr-defined]  # a Connection, whose type is private
        threading.Event().wait()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_is_printable_and_short(name: str):
    """A name that could not be shown in one line is refused."""
    with pytest.raises(ValueError, match="1 to 200 printable"):
        single_instance(name)


def test_what_cannot_be_locked_is_refused(url: str):
    """A negative wait, a generator, and a block entered twice at once are mistakes."""
    with pytest.raises(ValueError, match="not negative"):
        single_instance("a", wait=timedelta(seconds=-1))

    def numbers():
        yield 1

    with pytest.raises(TypeError, match="generator"):
        single_instance("a", database_url=url)(numbers)
    lock = single_instance("a", database_url=url)
    with lock, pytest.raises(RuntimeError, match="for each block"):
        lock.__enter__()


@pytest.mark.only_on(DatabaseKind.SQLITE, because="a server has no folder here")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    """Where no lock can be kept, that is told, and not that somebody has it."""
    (tmp_path / "file").write_bytes(b"")
    lock = single_instance("a", database_url=f"sqlite:///{tmp_path / 'file' / 'jobs.db'}")
    with pytest.raises(StorageUnavailableError, match="cannot be written"):
        lock.__enter__()


@pytest.mark.only_on(DatabaseKind.SQLITE, because="a server's: test_the_direct_address_is_used")
def test_the_settings_of_the_service_name_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without an address the lock is where DATABASE_URL points."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere' / 'jobs.db'}")
    with single_instance("a"):
        assert [path.suffix for path in (tmp_path / "elsewhere").iterdir()] == [".lock"]
