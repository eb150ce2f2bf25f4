"""Since when a loop fails, and when it is well again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.domain.errors import StorageUnavailableError
from app.engine.course import Course
from app.engine.tasks import Tasks
from tests.support.service import eventually


class SetLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is what a test sets."""

    def __init__(self) -> None:
        self.at = 100.0
        super().__init__()

    def time(self) -> float:
        """Tell the time that was set."""
        return self.at


def play(scene: Callable[[SetLoop, Course], Awaitable[None]]) -> None:
    """Run a scene on a loop whose time it sets."""
    with asyncio.Runner(loop_factory=SetLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SetLoop)
        runner.run(scene(loop, Course()))  # type: ignore[arg-type]  # any awaitable will do


def seconds_of(course: Course) -> float | None:
    failing = course.failing()
    return None if failing is None else failing.seconds


def test_a_loop_that_goes_on_failing_does_so_since_its_first_failure():
    """However often it fails, and whatever it does at the same moment, the first one counts."""

    async def scene(loop: SetLoop, course: Course) -> None:
        assert course.failing() is None
        for _ in range(10):
            course.fail("it broke")
            course.go_on()
            loop.at += 2
        assert seconds_of(course) == 20

    play(scene)


def test_a_loop_that_fails_once_is_well_before_it_is_told():
    """A round after one failure makes it well in less than the three seconds of readiness."""

    async def scene(loop: SetLoop, course: Course) -> None:
        course.fail("it broke")
        loop.at += 1
        course.go_on()
        assert seconds_of(course) == 1
        loop.at += 1.5
        assert course.failing() is None

    play(scene)


def test_a_loop_that_makes_no_round_stays_failing():
    """Without a failure and without a round nothing is well: it may hang."""

    async def scene(loop: SetLoop, course: Course) -> None:
        course.go_on()
        course.fail("it broke")
        loop.at += 60
        assert seconds_of(course) == 60

    play(scene)


def test_a_new_failure_after_a_good_stretch_is_a_first_one():
    """What failed long ago does not make a new failure older than it is."""

    async def scene(loop: SetLoop, course: Course) -> None:
        course.fail("it broke")
        course.go_on()
        loop.at += 60
        course.fail("it broke again")
        loop.at += 1
        assert seconds_of(course) == 1

    play(scene)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (StorageUnavailableError("The database is full"), "The database is full"),
        (RuntimeError("a secret"), "RuntimeError"),
        (None, "it ended"),
    ],
)
async def test_what_a_loop_raises_is_told(error: Exception | None, why: str):
    """Our own sentences are shown; of any other error its kind, since its text may be private."""

    async def run() -> None:
        if error is not None:
            raise error

    tasks, course = Tasks(), Course()
    tasks.loop("steady", asyncio.Event().wait)  # type: ignore[arg-type]  # it waits for ever
    tasks.loop("noted", run, course=course)
    tasks.loop("spare", run, required=False)
    await eventually(lambda: len(tasks.failing()) == 2)
    told = {loop.name: (loop.why, loop.required) for loop in tasks.failing()}
    await tasks.end_all()
    assert told == {"noted": (why, True), "spare": (why, False)}
    assert tasks.failing() == []
    assert course.failing() is not None
