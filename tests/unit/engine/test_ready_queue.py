"""Who goes next under the limits."""

from datetime import timedelta

from app.domain.ids import ExecutionId, JobId
from app.engine.ready_queue import ReadyQueue
from app.repositories.host_repository import Refusal, Why
from tests.support.builders import NOON, make_waiting

SECOND = timedelta(seconds=1)
MS = timedelta(milliseconds=1)


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
    assert (queue._held, queue._held_of) == ({}, {})


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


def refusal(runs, why=Why.FULL, wait=timedelta(0)) -> Refusal:
    return Refusal(host=runs[0].host, why=why, runs=runs, wait=wait)


def test_refused_runs_go_first_when_their_host_has_rested():
    """Runs that the database refused keep their places, and the queue tells when to try again."""
    queue = make_queue()
    queue.add([waiting(n) for n in range(3)])
    taken = queue.take(2, NOON)
    queue.put_back(refusal(taken), NOON)
    assert (len(queue), queue.take(10, NOON)) == (3, [])
    assert queue.next_time() == NOON + MS * 10
    assert ids(queue.take(10, NOON + MS * 10)) == ["exe_0", "exe_1", "exe_2"]


def test_a_refused_host_blocks_nobody_else():
    """The runs of other hosts are taken meanwhile."""
    queue = make_queue()
    queue.add([waiting(1), waiting(2, host="b:80")])
    taken = queue.take(10, NOON)
    queue.put_back(refusal(taken[:1]), NOON)
    queue.add([waiting(3, host="b:80"), waiting(4)])
    assert ids(queue.take(10, NOON)) == ["exe_3"]


def test_an_end_at_a_refused_host_makes_room_for_one_start():
    """A slot that this process had is its own to use again, at once; further ones are not."""
    queue = make_queue()
    queue.add([waiting(n) for n in range(5)])
    taken = queue.take(10, NOON)
    queue.put_back(refusal(taken[2:]), NOON)
    queue.release_host("a:80")
    assert ids(queue.take(10, NOON)) == ["exe_2"]
    assert queue.take(10, NOON) == []


def test_what_is_under_way_beside_a_batch():
    """The attempts to a host are counted without those that are about to be claimed."""
    queue = make_queue()
    queue.add([waiting(n) for n in range(3)])
    queue.take(2, NOON)
    batch = queue.take(1, NOON)
    assert queue.under_way(batch) == {"a:80": 2}


def test_a_refused_run_gives_back_its_jobs_slot():
    """The next run of its job may not pass it, and may go when it is over."""
    queue = make_queue()
    queue.add([waiting(1, job="one"), waiting(2, job="one")])
    taken = queue.take(10, NOON)
    queue.put_back(refusal(taken), NOON)
    later = NOON + MS * 10
    assert ids(queue.take(10, later)) == ["exe_1"]
    queue.release_host("a:80")
    queue.release_job(JobId("one"))
    assert ids(queue.take(10, later)) == ["exe_2"]


def test_a_run_that_was_read_again_meanwhile_is_held_once():
    """A run that came in while it was being claimed is not held twice when it is refused."""
    queue = make_queue()
    queue.add([waiting(1)])
    taken = queue.take(10, NOON)
    queue.add([waiting(1)])
    queue.put_back(refusal(taken), NOON)
    assert ids(queue.take(10, NOON + MS * 10)) == ["exe_1"]
    assert len(queue) == 0


def test_a_host_whose_start_another_process_had_rests_until_the_next():
    """It is tried again exactly when the database says."""
    queue = make_queue(host_gap=SECOND)
    queue.add([waiting(1), waiting(2)])
    taken = queue.take(10, NOON)
    queue.put_back(refusal(taken, Why.PACED, SECOND / 2), NOON)
    assert queue.take(10, NOON) == []
    assert queue.next_time() == NOON + SECOND / 2
    assert ids(queue.take(10, NOON + SECOND / 2)) == ["exe_1"]


def test_a_refusal_uses_up_no_start():
    """A run that was refused, or is not to be had any more, does not make its host rest a gap."""
    queue = make_queue(host_gap=SECOND)
    queue.add([waiting(1), waiting(2), waiting(3)])
    queue.put_back(refusal(queue.take(10, NOON), Why.CONTENDED), NOON)
    (gone,) = queue.take(10, NOON + MS * 5)
    queue.give_back(gone)
    assert ids(queue.take(10, NOON + MS * 5)) == ["exe_2"]


def test_a_rival_at_a_host_is_left_its_share():
    """Two processes that hold the same runs of a host, and know of each other, take different ones.

    Also of what comes later, and when all that was there is gone.
    """
    processes = {"a": make_queue(host_slots=100), "b": make_queue(host_slots=100)}
    for first in (0, 20):
        taken = []
        for me, other in (("a", "b"), ("b", "a")):
            queue = processes[me]
            queue.add([waiting(number) for number in range(first, first + 20)])
            queue.take(0, NOON)  # they are ready now
            if first == 0:
                queue.meet({"a:80": [other]}, me=me, now=NOON)
            taken += ids(queue.take(5, NOON))
        assert len(set(taken)) == 10
        for queue in processes.values():
            while queue.take(10, NOON):
                pass


def test_what_does_not_wait_any_more_is_let_go():
    """Wherever it is held: in its turn, behind a full host, at rest, aside, not ready yet."""
    queue = make_queue(host_slots=1, host_gap=SECOND)
    queue.add([
        waiting(1, host="full:80"), waiting(2, host="full:80"), waiting(3, host="full:80"),
        waiting(4, host="late:80", after=60), waiting(5, host="later:80", after=60),
        waiting(6, host="job:80", job="one"), waiting(7, host="aside:80", job="one"),
        waiting(8, host="turn:80"), waiting(9, host="turn:80"),
    ])  # fmt: skip
    taken = ids(queue.take(3, NOON))
    assert taken == ["exe_1", "exe_6", "exe_8"]
    assert queue.take(1, NOON) == []
    queue.forget({ExecutionId(f"exe_{number}") for number in (1, 2, 5, 7, 9)})
    assert set(queue.held) == {"exe_3", "exe_4"}
    for host in ("full:80", "job:80", "turn:80"):
        queue.release_host(host)
    queue.release_job(JobId("one"))
    assert ids(queue.take(10, NOON + 60 * SECOND)) == ["exe_3", "exe_4"]
    # What is let go of may come again, and counts for its job no more.
    again = [waiting(n, job="one") for n in range(10, 15)]
    assert queue.add(again)
    queue.take(0, NOON)
    queue.forget({run.id for run in again})
    assert not queue.may_start(NOON)


def test_refusals_leave_nothing_behind():
    """Of a host whose runs are over there is no trace, also after refusals."""
    queue = make_queue()
    queue.add([waiting(1)])
    queue.put_back(refusal(queue.take(10, NOON)), NOON)
    (run,) = queue.take(10, NOON + MS * 10)
    queue.granted("a:80")
    queue.give_back(run)
    queue.add([waiting(2)])
    queue.put_back(refusal(queue.take(10, NOON + SECOND)), NOON + SECOND)
    queue.give_back(queue.take(10, NOON + 2 * SECOND)[0])
    queue.take(10, NOON + 3 * SECOND)
    assert queue._shares._ends == []
    assert (queue._turns, queue._full, queue._resting) == ({}, {}, {})


def test_a_change_of_the_clock_ends_a_refused_hosts_rest():
    """It is tried again at once, with all its slots."""
    queue = make_queue()
    queue.add([waiting(1, after=-7200)])
    queue.put_back(refusal(queue.take(10, NOON)), NOON)
    queue.drop_later()
    assert ids(queue.take(10, NOON - 3600 * SECOND)) == ["exe_1"]


def crowd(queue: ReadyQueue, count: int, *, after: int = 0, first: int = 0) -> None:
    """Fill a queue with runs of one host, each of a job of its own."""
    queue.add([waiting(first + n, host="crowd:80", after=after) for n in range(count)])


def test_one_host_cannot_fill_the_queue():
    """A backlog that fills the queue gives way to other hosts' runs, and must be read again."""
    queue = make_queue(host_slots=1, size_max=16)
    crowd(queue, 16)
    assert queue.take(1, NOON)
    assert not queue.add([waiting(90, host="crowd:80"), waiting(91, host="calm:80")])
    assert ids(queue.take(10, NOON)) == ["exe_91"]
    assert len(queue) == 8
    queue.release_host("crowd:80")
    assert ids(queue.take(10, NOON)) == ["exe_1"]
    assert queue.add([waiting(15, host="crowd:80")])


def test_a_backlog_of_retries_gives_way_too():
    """Runs whose time has not come are let go of first, the latest ones."""
    queue = make_queue(size_max=16)
    crowd(queue, 8)
    crowd(queue, 8, after=60, first=20)
    queue.take(0, NOON)
    assert not queue.add([waiting(91, host="calm:80")])
    assert len(queue.take(20, NOON)) == 9
    assert queue.next_time() is None


def test_a_backlog_of_one_job_gives_way_too():
    """Runs that stepped aside for their job's slot are let go of, the last ones."""
    queue = ReadyQueue(host_slots=10, size_max=16, job_size_max=20)
    queue.add([waiting(n, job="hog", host="crowd:80") for n in range(17)])
    queue.take(10, NOON)
    assert queue.add([waiting(90, host="crowd:80")])
    queue.take(0, NOON)
    assert not queue.add([waiting(91, host="calm:80")])
    assert ids(queue.take(10, NOON)) == ["exe_90", "exe_91"]
    queue.release_host("crowd:80")
    queue.release_job(JobId("hog"))
    assert ids(queue.take(10, NOON)) == ["exe_1"]


def test_hosts_of_like_number_keep_their_runs():
    """A queue that many hosts share takes in no more, and lets go of nothing."""
    queue = make_queue(size_max=16)
    queue.add([waiting(n, host=f"host-{n % 12}:80") for n in range(16)])
    assert not queue.add([waiting(91, host="calm:80")])
    assert len(queue.take(20, NOON)) == 16
