"""In which order a process takes the runs of a host that others take too."""

from datetime import timedelta

from app.domain.execution import WaitingRun
from app.engine.host_queue import WHOLE, HostQueue, Part, Rivals
from tests.support.builders import NOON, make_waiting

SECOND = timedelta(seconds=1)
HALVES = (Part(0, 2), Part(1, 2))


def waiting(number: int, *, after: float = 0) -> WaitingRun:
    return make_waiting(f"exe_{number}", next_attempt_at=NOON + after * SECOND)


def of_part(part: Part, count: int, *, after: float = 0) -> list[WaitingRun]:
    """Make runs that are in a part."""
    runs = (waiting(number, after=after) for number in range(1000))
    return [run for run in runs if part.holds(run.id)][:count]


def filled(part: Part, runs: list[WaitingRun]) -> HostQueue:
    queue = HostQueue(part)
    for run in runs:
        queue.append(run)
    return queue


def drained(queue: HostQueue) -> list[WaitingRun]:
    return [queue.popleft() for _ in range(len(queue))]


def test_each_run_is_in_one_part():
    """Shares of a whole have every run once, and about as many runs each."""
    for count in (1, 2, 3, 7):
        parts = [of_part(Part(place, count), 1000) for place in range(count)]
        assert sorted(run.id for part in parts for run in part) == sorted(
            waiting(number).id for number in range(1000)
        )
        assert min(map(len, parts)) > 0.7 * 1000 / count


def test_all_runs_of_a_whole_go_in_their_order():
    """A process that is alone takes the longest waiting first."""
    runs = [waiting(number) for number in range(20)]
    assert drained(filled(WHOLE, runs)) == runs


def test_the_own_share_goes_first_and_the_rest_after_it():
    """Both parts keep their order, and nothing is left out."""
    runs = [waiting(number) for number in range(20)]
    mine, yours = HALVES
    queue = filled(mine, runs)
    assert len(queue) == 20
    taken = drained(queue)
    assert taken == sorted(runs, key=lambda run: (not mine.holds(run.id), runs.index(run)))
    assert {run.id for run in taken if yours.holds(run.id)}
    assert len(queue) == 0


def test_two_that_take_turns_meet_only_at_the_end():
    """Half of all runs are taken by each before either tries for one of the other's."""
    runs = [waiting(number) for number in range(40)]
    ours, theirs = (filled(part, runs) for part in HALVES)
    least = min(sum(part.holds(run.id) for run in runs) for part in HALVES)
    first = {ours.popleft().id for _ in range(least)} | {theirs.popleft().id for _ in range(least)}
    assert len(first) == 2 * least


def test_others_runs_go_first_once_they_are_late():
    """Who should have taken them may be gone: a second is what they wait longer."""
    mine, yours = HALVES
    old, new = of_part(yours, 1), of_part(mine, 3)
    timely = [waiting(int(run.id[4:]), after=1) for run in new[:2]]
    later = waiting(int(new[2].id[4:]), after=1.1)
    assert drained(filled(mine, [*old, *timely, later])) == [*timely, *old, later]


def test_another_share_begins_with_what_was_passed_over():
    """What was left to a process that is gone is as old as it is, and none is lost."""
    mine, _ = HALVES
    runs = [waiting(number) for number in range(20)]
    queue = filled(mine, runs)
    first = queue.popleft()
    queue.divide(WHOLE)
    assert drained(queue) == [run for run in runs if run is not first]


def test_what_is_put_back_is_first_again():
    """A run that could not start goes before the rest of its part, whosever that is."""
    mine, yours = HALVES
    for part in HALVES:
        runs = of_part(part, 3)
        queue = filled(mine, runs)
        queue.appendleft(queue.popleft())
        assert drained(queue) == runs
    late, own = of_part(yours, 2), of_part(mine, 3, after=2)
    queue = filled(mine, [*late, *own])
    queue.appendleft(queue.popleft())
    assert drained(queue) == [*late, *own]


def test_what_is_forgotten_is_gone_from_both_parts():
    """The rest keeps its order."""
    mine, yours = HALVES
    own, other = of_part(mine, 4), of_part(yours, 3)
    queue = filled(mine, [*other, *own])
    assert queue.popleft() == own[0]
    queue.forget({own[2].id, other[1].id})
    assert drained(queue) == [own[1], own[3], other[0], other[2]]


def test_the_last_to_go_are_given_up_first():
    """From the end others' runs are taken, then those that are next least soon."""
    mine, yours = HALVES
    own, other = of_part(mine, 3), of_part(yours, 2)
    queue = filled(mine, [*other, *own])
    assert queue.popleft() == own[0]
    assert [queue.pop() for _ in range(4)] == [*other[::-1], *own[:0:-1]]


def test_alone_all_is_ours():
    """Nobody else was seen at a host."""
    rivals = Rivals()
    assert rivals.part("a:80") == WHOLE
    assert rivals.meet("a:80", [], me="m", now=NOON) == WHOLE


def test_all_processes_at_a_host_agree_about_their_parts():
    """Each sees the others, and all come to different places of one whole."""
    names = ["c", "a", "b"]
    parts = [
        Rivals().meet("a:80", [name for name in names if name != me], me=me, now=NOON)
        for me in names
    ]
    assert parts == [Part(2, 3), Part(0, 3), Part(1, 3)]


def test_shares_are_of_one_host():
    """A rival at one host takes nothing of another."""
    rivals = Rivals()
    rivals.meet("a:80", ["x"], me="m", now=NOON)
    assert (rivals.part("a:80"), rivals.part("b:80")) == (Part(0, 2), WHOLE)


def test_a_rival_without_attempts_is_remembered_for_a_while():
    """Between two batches it has none under way; two seconds later it takes part no more."""
    rivals = Rivals()
    rivals.meet("a:80", ["x"], me="m", now=NOON)
    assert rivals.meet("a:80", [], me="m", now=NOON + 1.9 * SECOND) == Part(0, 2)
    assert rivals.meet("a:80", [], me="m", now=NOON + 2 * SECOND) == WHOLE


def test_a_clock_that_was_set_back_keeps_no_rival():
    """What was seen in the future is not believed for ever."""
    rivals = Rivals()
    rivals.meet("a:80", ["x"], me="m", now=NOON)
    past = NOON - 3600 * SECOND
    assert rivals.meet("a:80", ["y", "z"], me="m", now=past) == Part(0, 3)
    assert rivals.meet("a:80", [], me="m", now=past + 2 * SECOND) == WHOLE


def test_hosts_that_are_over_leave_nothing_behind():
    """Rivals of many hosts are forgotten when others are met."""
    rivals = Rivals()
    for number in range(1000):
        rivals.meet(f"{number}:80", ["x"], me="m", now=NOON)
    rivals.meet("a:80", ["x"], me="m", now=NOON + 2 * SECOND)
    assert (len(rivals._seen), len(rivals._parts)) == (1, 1)
    assert rivals.part("7:80") == WHOLE
