"""The order in which due instants are written."""

from datetime import timedelta

from app.engine.backlog import Backlog
from app.engine.tick import DueInstants
from tests.support.builders import NOON, make_due_job


def due(job_id: str, host: str, *, late: int = 0) -> DueInstants:
    """Something due at ``host``, some seconds before noon."""
    at = NOON - timedelta(seconds=late)
    job = make_due_job(job_id, host=host, next_run_time=at, cursor=at - timedelta(hours=1))
    return DueInstants(job=job, fire_times=(at,), next_run_time=None)


def ids(found: list[DueInstants]) -> list[str]:
    return [one.job.id for one in found]


def test_hosts_take_turns():
    """A job of another host does not wait for a herd that came before it."""
    backlog = Backlog()
    backlog.add([due(f"herd-{number}", "big:80") for number in range(5)])
    backlog.add([due("lone", "small:80")])
    assert ids(backlog.take(2)) == ["herd-0", "lone"]
    assert ids(backlog.take(10)) == ["herd-1", "herd-2", "herd-3", "herd-4"]
    assert not backlog


def test_what_is_put_back_goes_first():
    """A transaction that failed is repeated before what came after it."""
    backlog = Backlog()
    backlog.add([due("a", "h:80"), due("b", "h:80"), due("c", "h:80")])
    backlog.put_back(backlog.take(2))
    assert ids(backlog.take(3)) == ["a", "b", "c"]


def test_the_oldest_is_found_behind_other_hosts():
    """The lag is that of the oldest instant, whichever host's turn it is."""
    backlog = Backlog()
    assert backlog.oldest() is None
    backlog.add([due("a", "a:80", late=1), due("b", "b:80", late=9)])
    assert backlog.oldest() == NOON - timedelta(seconds=9)


def test_a_new_beginning():
    """What was accepted before is void when asked."""
    backlog = Backlog()
    backlog.add([due("a", "a:80")])
    backlog.clear()
    assert (bool(backlog), backlog.take(1)) == (False, [])
