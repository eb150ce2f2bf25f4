"""Callers that share a transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.db.gathering import Gathering
from app.domain.errors import (
    JobNotFoundError,
    StorageUnansweredError,
    StorageUnavailableError,
    UnavailableError,
)


class Door:
    """Runs functions, one transaction for each permit, and keeps what each was called with."""

    def __init__(self) -> None:
        self._permits = asyncio.Semaphore(0)
        self.calls: list[list[str]] = []
        self.error: Exception | None = None

    async def permit(self, count: int = 100) -> None:
        """Let so many transactions come to their ends, and whoever depends on them go on."""
        for _ in range(count):
            self._permits.release()
        await turns()

    async def transact(self, unit: Callable[[Any], Sequence[str]]) -> Sequence[str]:
        results = unit(None)
        await self._permits.acquire()
        if self.error is not None:
            raise self.error
        return results

    def work(self, _connection: object, items: Sequence[str]) -> list[str]:
        self.calls.append(list(items))
        if "bad" in items:
            raise JobNotFoundError("bad")
        return [item.upper() for item in items]


async def turns() -> None:
    """Let everybody come as far as they can without the door."""
    for _ in range(20):
        await asyncio.sleep(0)


async def start(gathering: Gathering[str, str], *items: str) -> list["asyncio.Task[str]"]:
    tasks = []
    for item in items:
        tasks.append(asyncio.get_running_loop().create_task(gathering.write(item)))
        await turns()
    return tasks


async def outcomes(tasks: Sequence[Awaitable[str]]) -> list[str]:
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [item if isinstance(item, str) else type(item).__name__ for item in found]


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def gathering(door: Door) -> Gathering[str, str]:
    return Gathering(door.transact, door.work)


async def test_who_comes_alone_waits_for_nobody(door: Door, gathering: Gathering[str, str]):
    """One after the other each is a transaction of its own."""
    await door.permit()
    assert [await gathering.write(item) for item in "abc"] == ["A", "B", "C"]
    assert door.calls == [["a"], ["b"], ["c"]]


async def test_who_comes_meanwhile_shares_the_next(door: Door, gathering: Gathering[str, str]):
    """While one transaction runs the others gather, and each gets its own result."""
    tasks = await start(gathering, *"abcd")
    assert door.calls == [["a"]]
    await door.permit()
    assert await outcomes(tasks) == ["A", "B", "C", "D"]
    assert door.calls == [["a"], ["b", "c", "d"]]
    assert await gathering.write("e") == "E"


async def test_one_transaction_takes_so_many(door: Door, gathering: Gathering[str, str]):
    """Those beyond 256 are of the one after it."""
    names = [f"n{number}" for number in range(300)]
    tasks = await start(gathering, "a", *names)
    await door.permit()
    assert await outcomes(tasks) == ["A", *(name.upper() for name in names)]
    assert [len(call) for call in door.calls] == [1, 256, 44]


async def test_a_refusal_is_one_callers(door: Door, gathering: Gathering[str, str]):
    """Where the function refuses one, each is done alone, and only that one hears of it."""
    tasks = await start(gathering, "a", "b", "bad", "c")
    await door.permit()
    assert await outcomes(tasks) == ["A", "B", "JobNotFoundError", "C"]
    assert door.calls == [["a"], ["b", "bad", "c"], ["b"], ["bad"], ["c"]]


@pytest.mark.parametrize("error", [StorageUnavailableError("no"), StorageUnansweredError()])
async def test_all_hear_that_the_database_is_away(
    door: Door, gathering: Gathering[str, str], error: UnavailableError
):
    """No one is tried for alone, and the next caller asks anew."""
    tasks = await start(gathering, *"abc")
    door.error = error
    await door.permit()
    assert await outcomes(tasks) == [type(error).__name__] * 3
    assert door.calls == [["a"], ["b", "c"]]
    door.error = None
    assert await gathering.write("d") == "D"


async def test_a_leader_that_is_cancelled_leaves_the_others_in_doubt(
    door: Door, gathering: Gathering[str, str]
):
    """What shared its transaction may be stored; those who came later are done."""
    first, *shared = await start(gathering, *"abc")
    await door.permit(1)
    later = await start(gathering, "d")
    assert door.calls == [["a"], ["b", "c"]]
    shared[0].cancel()
    await turns()
    await door.permit()
    assert await outcomes([first, *shared, *later]) == [
        "A", "CancelledError", "StorageUnansweredError", "D"
    ]  # fmt: skip


async def test_who_is_cancelled_while_it_waits_is_left_out(
    door: Door, gathering: Gathering[str, str], monkeypatch: pytest.MonkeyPatch
):
    """Nothing is done for it, and the others go on, also when it was its turn to lead."""
    tasks = await start(gathering, *"abcd")
    tasks[2].cancel()
    await turns()
    pass_on = gathering._pass_on

    def pass_on_and_cancel() -> None:
        # In the very moment in which the first wakes the second.
        monkeypatch.undo()
        pass_on()
        tasks[1].cancel()

    monkeypatch.setattr(gathering, "_pass_on", pass_on_and_cancel)
    await door.permit()
    assert await outcomes(tasks) == ["A", "CancelledError", "CancelledError", "D"]
    assert await gathering.write("e") == "E"
    assert door.calls == [["a"], ["d"], ["e"]]


async def test_who_is_not_begun_when_a_leader_is_cancelled_is_done_by_the_next(
    door: Door, gathering: Gathering[str, str]
):
    """A refusal has each done alone; those that were not begun by then lose nothing."""
    tasks = await start(gathering, "a", "b", "bad", "c")
    await door.permit(1)
    # The second leads, and is about to be done alone.
    assert door.calls[-1] == ["b"]
    tasks[1].cancel()
    await turns()
    await door.permit()
    assert await outcomes(tasks) == ["A", "CancelledError", "JobNotFoundError", "C"]
