"""Who goes next under the limits."""

from datetime import timedelta

from app.domain.ids import JobId
from app.engine.ready_queue import ReadyQueue
from tests.support.builders import NOON, make_waiting

SECOND = timedelta(seconds=1)


def make_queue(
    host_slots: int = 10, size_max: int = 100, host_gap: timedelta = timedelta(0)
) -> ReadyQueue:
    return ReadyQueue(host_slots=host_slots, size_max=size_max, job_size_max=5, host_gap=host_gap)


def waiting(number: int, *, job: str | None = None, host: str = "a:80", after: int = 0, slots=1):
    return make_waiting(
        f"exe_{number}",
        job_id=JobId(job or f"job-{number}"),
        host=host,
        next_attempt_at=NOON + after * SECOND,
        job_slots=slots,
    )


def ids(runs) -> list[str]:
    return [run.id for run in runs]


def test_runs_are_taken_in_the_order_of_their_times():
    """Within a host the run whose time came first goes first."""
    queue = make_queue()
    queue.add([waiting(1, after=2), waiting(2, after=1)])
    assert ids(queue.take(10, NOON + 5 * SECOND)) == ["exe_2", "exe_1"]


def test_a_run_waits_for_its_time():
    """A retry is not taken before its time, and the queue tells when that is."""
    queue = make_queue()
    queue.add([waiting(1, after=30)])
    assert queue.take(10, NOON) == []
    assert queue.next_time() == NOON + 30 * SECOND
    assert ids(queue.take(10, NOON + 30 * SECOND)) == ["exe_1"]


def test_no_more_are_taken_than_asked():
    """The limit given is the number of free slots."""
    queue = make_queue()
    queue.add([waiting(n) for n in range(5)])
    assert len(queue.take(3, NOON)) == 3
    assert len(queue) == 2


def test_hosts_take_turns():
    """A host with many waiting runs does not make another host wait behind them."""
    queue = make_queue()
    queue.add([waiting(n, host="busy:80") for n in range(5)])
    queue.add([waiting(9, host="calm:80")])
    assert ids(queue.take(2, NOON)) == ["exe_0", "exe_9"]


def test_a_host_gets_no_more_than_its_slots():
    """Runs beyond the host's slots stay until a slot is given back."""
    queue = make_queue(host_slots=2)
    queue.add([waiting(n) for n in range(3)])
    assert ids(queue.take(10, NOON)) == ["exe_0", "exe_1"]
    assert queue.take(10, NOON) == []
    queue.release_host("a:80")
    assert ids(queue.take(10, NOON)) == ["exe_2"]


def test_a_full_host_blocks_nobody_else():
    """While one host has no free slot the runs of others are taken."""
    queue = make_queue(host_slots=1)
    queue.add([waiting(1), waiting(2), waiting(3, host="b:80")])
    assert ids(queue.take(10, NOON)) == ["exe_1", "exe_3"]


def test_a_run_added_to_a_full_host_waits_for_its_slot():
    """A run that arrives while its host is full is taken once a slot is free."""
    queue = make_queue(host_slots=1)
    queue.add([waiting(1), waiting(2)])
    queue.take(10, NOON)
    queue.add([waiting(3)])
    assert queue.take(10, NOON) == []
    queue.release_host("a:80")
    assert ids(queue.take(10, NOON)) == ["exe_2"]


def test_a_job_gets_no_more_than_its_slots_and_blocks_nobody():
    """A run whose job is busy steps aside; the host's next run goes first."""
    queue = make_queue()
    queue.add([waiting(1, job="slow"), waiting(2, job="slow"), waiting(3, job="other")])
    assert ids(queue.take(10, NOON)) == ["exe_1", "exe_3"]
    queue.release_host("a:80")
    assert queue.take(10, NOON) == []
    queue.release_job(JobId("slow"))
    assert ids(queue.take(10, NOON)) == ["exe_2"]


def test_runs_of_a_job_without_slots_run_together():
    """A job that allows overlap has no slots to wait for."""
    queue = make_queue()
    queue.add([waiting(1, job="free", slots=None), waiting(2, job="free", slots=None)])
    assert len(queue.take(10, NOON)) == 2


def test_a_run_is_held_once():
    """Adding a run that is held already changes nothing."""
    queue = make_queue()
    queue.add([waiting(1)])
    queue.add([waiting(1)])
    assert ids(queue.take(10, NOON)) == ["exe_1"]
    assert queue.take(10, NOON) == []


def test_a_full_queue_says_so():
    """What does not fit is refused, so that it is read from the database later."""
    queue = make_queue(size_max=2)
    assert queue.add([waiting(1), waiting(2)])
    assert not queue.add([waiting(3)])
    assert not queue.has_room
    assert len(queue) == 2


def test_one_job_cannot_fill_the_queue():
    """A job's backlog takes its share and no more; the others' runs fit beside it."""
    queue = make_queue()
    assert queue.add([waiting(n, job="hog") for n in range(5)])
    assert queue.is_crowded
    assert not queue.add([waiting(5, job="hog"), waiting(6)])
    assert len(queue) == 6
    assert ids(queue.take(10, NOON)) == ["exe_0", "exe_6"]
    assert queue.add([waiting(7, job="hog")])


def test_slots_given_back_leave_nothing_behind():
    """After all is over the queue holds no trace of hosts and jobs."""
    queue = make_queue(host_slots=1)
    queue.add([waiting(n, job="same") for n in range(3)])
    for _ in range(3):
        taken = queue.take(10, NOON)
        assert len(taken) == 1
        queue.release_host(taken[0].host)
        queue.release_job(taken[0].job_id)
    assert len(queue) == 0
    assert queue._busy_hosts == {}
    assert queue._busy_jobs == {}
    assert queue._aside == {}


def test_a_hosts_starts_keep_their_distance():
    """A host gets one start per gap, others go meanwhile, and the queue tells when it goes on."""
    queue = make_queue(host_gap=SECOND)
    queue.add([waiting(n, host="a:80") for n in range(3)])
    queue.add([waiting(9, host="b:80")])
    assert ids(queue.take(10, NOON)) == ["exe_0", "exe_9"]
    assert queue.take(10, NOON + SECOND / 2) == []
    assert queue.next_time() == NOON + SECOND
    assert ids(queue.take(10, NOON + SECOND)) == ["exe_1"]
    assert ids(queue.take(10, NOON + 2 * SECOND)) == ["exe_2"]


def test_a_run_that_comes_while_its_host_rests():
    """The distance holds for runs that come after the last start, with none waiting between."""
    queue = make_queue(host_gap=SECOND)
    queue.add([waiting(1)])
    assert ids(queue.take(10, NOON)) == ["exe_1"]
    queue.add([waiting(2)])
    assert queue.take(10, NOON + SECOND / 2) == []
    queue.add([waiting(3)])
    assert ids(queue.take(10, NOON + SECOND)) == ["exe_2"]
    assert ids(queue.take(10, NOON + 2 * SECOND)) == ["exe_3"]


def test_a_host_that_rests_after_the_clock_is_set_back():
    """No host rests longer than its gap because the clock was set back."""
    queue = make_queue(host_gap=SECOND)
    queue.add([waiting(1, after=-7200), waiting(2, after=-7200)])
    assert ids(queue.take(10, NOON)) == ["exe_1"]
    assert queue.take(10, NOON) == []
    queue.drop_later()
    assert ids(queue.take(10, NOON - 3600 * SECOND)) == ["exe_2"]


def test_a_resting_hosts_slots_stay_its_own():
    """A host whose rest ends while all its slots are taken waits for a slot."""
    queue = make_queue(host_slots=1, host_gap=SECOND)
    queue.add([waiting(1), waiting(2)])
    assert ids(queue.take(10, NOON)) == ["exe_1"]
    assert queue.take(10, NOON + 2 * SECOND) == []
    queue.release_host("a:80")
    assert ids(queue.take(10, NOON + 2 * SECOND)) == ["exe_2"]


def test_what_is_not_ready_can_be_dropped():
    """After drop_later the runs that were not ready are unknown and may be added again."""
    queue = make_queue()
    queue.add([waiting(1, after=60), waiting(2)])
    assert queue.take(0, NOON) == []
    queue.drop_later()
    assert len(queue) == 1
    queue.add([waiting(1)])
    assert sorted(ids(queue.take(10, NOON + 60 * SECOND))) == ["exe_1", "exe_2"]
