"""Telling committed facts."""

import contextlib
from collections.abc import Iterator

from app.domain.events import Event, JobChanged
from app.domain.ids import JobId
from app.engine.publisher import Publisher

FIRST, SECOND = JobChanged(job_id=JobId("a")), JobChanged(job_id=JobId("b"))


def test_a_batch_is_told_within_one_block():
    """All subscribers hear of each event before the next; the block is around all of them."""
    told: list[object] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        told.append("begin")
        yield
        told.append("end")

    publisher = Publisher(around=around)
    publisher.subscribe(lambda event: told.append((1, event)))
    publisher.subscribe(lambda event: told.append((2, event)))
    publisher.publish(FIRST, SECOND)
    assert told == ["begin", (1, FIRST), (2, FIRST), (1, SECOND), (2, SECOND), "end"]


def test_one_subscribers_failure_is_not_anothers():
    """Whoever hears of an event after a subscriber that fails hears of the next one too."""
    told: list[Event] = []

    def fail(event: Event) -> None:
        raise ValueError(event)

    def hear(event: Event) -> None:
        told.append(event)

    publisher = Publisher()
    publisher.subscribe(fail)
    publisher.subscribe(hear)
    publisher.publish(FIRST, SECOND)
    assert told == [FIRST, SECOND]
