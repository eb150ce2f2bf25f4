"""What benchmarks plan to be due, and how they judge what came of it."""

import itertools

import pytest

from benchmarks.figures import Arrival, Spread
from benchmarks.ledger import Run, count_left_out, lateness_ms
from benchmarks.lone import lone_dues
from benchmarks.prober import Call, Calls
from benchmarks.retries import RetriesOptions, judge_attempts
from benchmarks.rhythm import Rhythm, judge_rhythm
from benchmarks.stage import spread_dues


def run_of(
    job: str, due: float, *, started: float | None = None, status: str = "completed", count: int = 1
) -> Run:
    """Make a row of the ledger whose id tells what it is of."""
    return Run(f"exe-{job}-{due}", job, status, count, 1, due, due, started, started)


def test_a_herd_is_due_at_one_instant():
    """Without a spread all jobs are due together."""
    assert spread_dues(3, 100.0) == {"job-0": 100.0, "job-1": 100.0, "job-2": 100.0}


def test_a_herd_may_be_spread():
    """With a spread they are due evenly over it, the last before its end."""
    assert spread_dues(4, 100.0, name="x", spread=2.0) == {
        "x-0": 100.0,
        "x-1": 100.5,
        "x-2": 101.0,
        "x-3": 101.5,
    }


def test_lone_runs_keep_their_distance():
    """Each is due in the first half of its own stretch of time, at a place of its own in it."""
    dues = list(lone_dues(500, 100.0, every=0.2).values())
    places = [due - 100.0 - number * 0.2 for number, due in enumerate(dues)]

    assert min(places) > -1e-6
    assert max(places) <= 0.1
    assert len({round(place, 6) for place in places}) > 450
    assert min(after - before for before, after in itertools.pairwise(dues)) > 0.099


@pytest.mark.parametrize(
    ("aligned", "expected"),
    [
        (False, {"beat-0": [10.0, 11.0, 12.0], "beat-1": [10.5, 11.5, 12.5]}),
        (True, {"beat-0": [10.0, 11.0, 12.0], "beat-1": [10.0, 11.0, 12.0]}),
    ],
)
def test_a_rhythm_knows_its_instants(*, aligned: bool, expected: dict[str, list[float]]):
    """Every job is due once a second, each from its own place in the second or from the same."""
    rhythm = Rhythm(jobs=2, seconds=3, begin=10.0, aligned=aligned)
    found: dict[str, list[float]] = {}
    for name, due in rhythm.dues().items():
        found.setdefault(name.partition("@")[0], []).append(due)

    assert found == expected
    assert rhythm.instants == 6
    assert rhythm.end > max(rhythm.dues().values())


def test_a_rhythm_is_judged_by_instants_and_not_by_the_ledger():
    """An instant that the ledger knows nothing of is lost; a second arrival is doubled."""
    rhythm = Rhythm(jobs=1, seconds=3, begin=10.0)
    runs = [run_of("beat-0", 10.0), run_of("beat-0", 11.0)]
    arrivals = [
        Arrival("beat-0", "exe-beat-0-10.0", 10.25),
        Arrival("beat-0", "exe-beat-0-11.0", 11.25),
        Arrival("beat-0", "exe-beat-0-11.0", 11.5),
    ]

    judged = judge_rhythm(rhythm, runs, arrivals)

    assert (judged.arrived, judged.lost, judged.doubled, judged.strange) == (2, 1, 1, 0)
    assert judged.lateness_ms == Spread(count=2, p50=250.0, p99=250.0, max=250.0)


def test_an_arrival_without_a_row_is_strange():
    """A request whose identity the ledger does not have belongs to no instant."""
    rhythm = Rhythm(jobs=1, seconds=1, begin=10.0)

    judged = judge_rhythm(rhythm, [run_of("beat-0", 10.0)], [Arrival("beat-0", "exe-else", 10.0)])

    assert (judged.lost, judged.strange) == (1, 1)


def test_left_out_instants_are_counted_singly():
    """A row that stands for many instants counts as many."""
    runs = [
        run_of("a", 1.0),
        run_of("a", 2.0, status="skipped", count=7),
        run_of("a", 9.0, status="missed"),
    ]

    assert count_left_out(runs) == 8


def test_only_what_started_is_late():
    """Rows without a start do not count for the ledger's lateness."""
    runs = [run_of("a", 1.0, started=1.5), run_of("a", 2.0, status="skipped")]

    assert lateness_ms(runs) == Spread(count=1, p50=500.0, p99=500.0, max=500.0)


RETRIES = RetriesOptions(jobs=1, max_retries=2, backoff=1.0)


def judge_times(*times: float):
    arrivals = [Arrival("job-0", "exe", at) for at in times]
    return judge_attempts(arrivals, {"job-0": 10.0}, RETRIES)


def test_retries_wait_twice_as_long_each_time():
    """What a retry took longer than its wait, which doubles, is its lateness."""
    attempts = judge_times(10.0, 11.25, 13.5)

    assert (attempts.expected, attempts.lost, attempts.extra, attempts.hasty) == (3, 0, 0, 0)
    assert attempts.late_ms == Spread(count=2, p50=250.0, p99=250.0, max=250.0)


def test_missing_and_superfluous_attempts_are_counted():
    """Fewer attempts than asked for are lost, more are extra."""
    assert judge_times(10.0).lost == 2
    assert judge_times(10.0, 11.25, 13.5, 18.0).extra == 1
    assert judge_times().lost == 3


def test_an_attempt_before_its_wait_is_hasty():
    """A retry must not come before its wait is over."""
    assert judge_times(10.0, 10.5, 13.0).hasty == 1


def test_calls_are_told_by_the_time_they_began():
    """The latency of a time is that of the calls that began in it."""
    calls = Calls([Call(1.0, 5.0, False), Call(2.0, 50.0, False), Call(3.0, 7.0, True)])

    assert calls.spread(until=2.0).max == 5.0
    assert calls.spread(2.0, 3.0).max == 50.0
    assert calls.refused == 1
