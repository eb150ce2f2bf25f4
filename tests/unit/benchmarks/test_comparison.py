import math
from dataclasses import replace

import pytest

from benchmarks.bout import Bout
from benchmarks.ceiling import read_rate
from benchmarks.comparison import (
    Comparison,
    Middle,
    as_markdown,
    figure_table,
    markdown,
    queue_table,
    ratio_table,
    ratios,
)
from benchmarks.figures import Spread
from benchmarks.queues import QueueFigures, TickFigures


def make_spread(p99: float = 20.0) -> Spread:
    return Spread(count=1000, p50=10.0, p99=p99, max=30.0)


OURS = Bout(
    contender="ours",
    jobs=1000,
    per_second=1000.0,
    lateness_ms=make_spread(),
    lone_ms=make_spread(),
    created_per_second=500.0,
    cpu_ms_per_run=0.5,
    stores_cpu_ms_per_run=0.5,
    memory_mib=100.0,
    lost=0,
    doubled=0,
    early=0,
    unrecorded=0,
    was_cut=False,
    load_average=1.0,
)
OTHER = replace(
    OURS,
    contender="other",
    per_second=250.0,
    lateness_ms=make_spread(80.0),
    created_per_second=math.nan,
    cpu_ms_per_run=1.0,
    stores_cpu_ms_per_run=2.0,
)


def make_queue(cycles: float, *, queue: str = "table", processes: int = 1) -> QueueFigures:
    return QueueFigures(
        queue=queue,
        processes=processes,
        runs=100,
        enqueued_per_second=1.0,
        claimed_per_second=2.0,
        drained_per_second=3.0,
        cycles_per_second=cycles,
    )


def test_the_middle_of_an_odd_number_is_one_of_them() -> None:
    """The median is shown with the least and the greatest, in whatever order they came."""
    assert Middle.of([3.0, 1.0, 2.0]) == Middle(median=2.0, least=1.0, greatest=3.0)


def test_a_round_without_a_figure_does_not_count() -> None:
    """NaN and infinity are left out of a median."""
    assert Middle.of([math.nan, 4.0, math.inf, 2.0]) == Middle(median=3.0, least=2.0, greatest=4.0)


def test_no_figure_has_no_middle() -> None:
    """Where no round has a figure its median is NaN."""
    assert math.isnan(Middle.of([math.nan]).median)


def test_ratios_above_one_mean_that_ours_is_better() -> None:
    """More runs a second and less lateness or CPU both come out as how many times better."""
    found = {name: middle.median for name, middle in ratios([OURS], [OTHER]).items()}
    assert math.isnan(found.pop("jobs created per second")), "the other has no API"
    assert found == {
        "runs per second": 4.0,
        "lateness p99": 4.0,
        "CPU per run": 2.0,
        "CPU per run, databases included": 3.0,
    }


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that was half as fast in one round halves both sides, and the ratio stays."""
    slow_ours = replace(OURS, per_second=500.0, round_number=1)
    slow_other = replace(OTHER, per_second=125.0, round_number=1)
    found = ratios([OURS, slow_ours], [OTHER, slow_other])["runs per second"]
    assert found == Middle(median=4.0, least=4.0, greatest=4.0)


def test_a_round_that_one_side_lacks_does_not_count() -> None:
    """Where a turn failed, the other rounds still meet their own."""
    late_ours = replace(OURS, per_second=2000.0, round_number=1)
    late_other = replace(OTHER, round_number=1)
    found = ratios([OURS, late_ours], [late_other])["runs per second"]
    assert found == Middle(median=8.0, least=8.0, greatest=8.0)


def test_a_figure_of_zero_gives_no_ratio() -> None:
    """Nothing is divided by nothing: a contender whose CPU was too little to see has no ratio."""
    found = ratios([replace(OURS, cpu_ms_per_run=0.0)], [OTHER])["CPU per run"]
    assert math.isnan(found.median)


def test_losses_show_the_worst_round() -> None:
    """Of lost, doubled and unrecorded runs the worst round is shown, not the median."""
    rounds = [OURS, OURS, replace(OURS, lost=3, doubled=2, unrecorded=1, was_cut=True)]
    _, row = figure_table(rounds)
    assert row[-3:] == ("3 (cut)", "2", "1")


def test_a_table_of_figures_has_a_row_for_each_contender() -> None:
    """Contenders stand in the order in which they fought, each once, with their medians."""
    faster = replace(OURS, per_second=3000.0)
    _, ours, other = figure_table([OURS, OTHER, faster, OTHER])
    assert (ours[:2], other[:2]) == (("ours", "2,000"), ("other", "250"))


def test_a_table_of_ratios_leaves_ours_out() -> None:
    """The head names who is held against the others, with the spread of each ratio."""
    head, row = ratio_table([OURS, OTHER], "ours")
    assert (head[0], row[0], row[1]) == ("ours against", "other", "4.00 (4.00–4.00)")
    assert row[2] == "–"


def test_queues_stand_by_name_and_number_of_processes() -> None:
    """Rounds of one queue with as many processes make one row of medians."""
    rounds = [make_queue(10), make_queue(20), make_queue(30), make_queue(40, processes=2)]
    assert queue_table(rounds)[1:] == [
        ("table", "1", "1.00", "2.00", "3.00", "20.0"),
        ("table", "2", "1.00", "2.00", "3.00", "40.0"),
    ]


def test_a_run_that_goes_through_both_queues_takes_the_time_of_both() -> None:
    """What is left of two queues, one beside the other, is told for each number of processes."""
    rounds = [make_queue(10), make_queue(40, queue="other"), make_queue(40, processes=2)]
    assert queue_table(rounds)[-1] == ("both", "1", "–", "–", "–", "8.00")


def test_markdown_aligns_figures_to_the_right() -> None:
    """A table becomes Markdown whose first column is text and whose others are figures."""
    expected = "| who | n |\n| --- | ---: |\n| a | 1 |"
    assert markdown([("who", "n"), ("a", "1")]) == expected


def test_the_report_says_what_is_missing_and_what_failed() -> None:
    """Whoever did not take part is named with the reason, beside what was measured."""
    found = Comparison(
        surroundings={"processor": "2 × fast"},
        missing={"wrk": "no apt-get"},
        rounds=1,
        ceiling_per_second=[12_345.0],
        bouts=[OURS, OTHER],
        queues=[make_queue(10)],
        ticks=[TickFigures(rows=200, bare_ms=10.0, queued_ms=15.0)],
        failed=["Celery, round 1: it did not start"],
    )
    report = as_markdown(found, ["ours"])
    for said in (
        "- processor: 2 × fast",
        "Without wrk: no apt-get.",
        "Failed: Celery, round 1: it did not start.",
        "12,345 requests/s",
        "1,000 jobs due at one instant:",
        "| ours against |",
        "| table | 1 |",
        "10.0 ms; with as many jobs of PgQueuer in it: 15.0 ms, 1.50 (1.50–1.50) times as long",
    ):
        assert said in report


def test_a_contender_alone_is_held_against_nobody() -> None:
    """Without others there is no table of ratios."""
    found = Comparison(surroundings={}, missing={}, rounds=1, bouts=[OURS])
    assert "against" not in as_markdown(found, ["ours"])


def test_the_rate_of_wrk_is_read() -> None:
    """The ceiling is the requests per second that wrk reports."""
    assert read_rate("  Latency 1ms\nRequests/sec:  51234.56\nTransfer/sec: 4MB") == 51_234.56


def test_what_wrk_did_not_say_is_an_error() -> None:
    """Without a rate, what wrk said instead is told."""
    with pytest.raises(ValueError, match="unable to connect"):
        read_rate("unable to connect")
