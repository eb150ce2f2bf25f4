"""How benchmarks compute what they report."""

import json
import math
from dataclasses import dataclass

import pytest

from benchmarks.figures import (
    Judgement,
    Spread,
    judge,
    percentile,
    rate,
    show_figure,
    slope,
    to_json,
    to_rows,
)

NOTHING = Spread(count=0, p50=math.nan, p99=math.nan, max=math.nan)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.5, 50.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([float(n) for n in range(1, 1001)], 0.99, 990.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float):
    """A percentile is the least value that this share of all values do not exceed."""
    assert percentile(values, share) == expected


def test_of_nothing_there_is_no_percentile():
    """Where nothing was measured there is no figure, not a zero."""
    assert math.isnan(percentile([], 0.5))


def test_a_spread_needs_no_order():
    """A spread is the same in whatever order its values come."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(count=3, p50=2.0, p99=3.0, max=3.0)


def test_what_came_once_is_neither_lost_nor_doubled():
    """Arrivals that are all there once leave nothing to complain of but their lateness."""
    judged = judge([("a", 10.5), ("b", 11.25)], {"a": 10.0, "b": 11.0})

    assert judged == Judgement(
        arrived=2,
        lost=0,
        doubled=0,
        early=0,
        strange=0,
        lateness_ms=Spread(count=2, p50=250.0, p99=500.0, max=500.0),
    )


def test_what_never_came_is_lost():
    """A due run without an arrival is lost, and does not count as in time."""
    judged = judge([("a", 10.0)], {"a": 10.0, "b": 10.0, "c": 10.0})

    assert (judged.arrived, judged.lost, judged.lateness_ms.count) == (1, 2, 1)


def test_every_further_arrival_is_doubled():
    """Each arrival after a run's first one counts; its lateness is that of the earliest."""
    judged = judge([("a", 12.0), ("a", 10.5), ("a", 11.0), ("b", 10.0)], {"a": 10.0, "b": 10.0})

    assert (judged.arrived, judged.lost, judged.doubled) == (2, 0, 2)
    assert judged.lateness_ms.max == 500.0


def test_what_was_not_due_is_told():
    """An arrival before its instant is early; one that nothing was due for is strange."""
    judged = judge([("a", 9.0), ("x", 10.0), ("x", 10.0)], {"a": 10.0})

    assert (judged.early, judged.strange, judged.doubled) == (1, 2, 0)


def test_a_slope_is_the_rise_of_the_straight_line():
    """Points on a line give its rise, and noise around it that cancels out changes nothing."""
    assert slope([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) == pytest.approx(2.0)
    assert slope([(0.0, 1.0), (1.0, -1.0), (2.0, -1.0), (3.0, 1.0)]) == pytest.approx(0.0)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_without_a_distance_there_is_no_slope(points: list[tuple[float, float]]):
    """Fewer than two different places give no line."""
    assert math.isnan(slope(points))


@pytest.mark.parametrize(
    ("count", "seconds", "expected"), [(1000, 0.5, 2000), (10, 3.0, 3.3), (0, 1.0, 0.0)]
)
def test_a_rate_is_counted_per_second(count: int, seconds: float, expected: float):
    """A rate is a whole number where it is large."""
    assert rate(count, seconds) == expected


def test_no_time_gives_no_rate():
    """What took no time has no rate."""
    assert math.isnan(rate(5, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    spread: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    total_count: int
    share: float
    part: Part
    parts: list[Part]


WHOLE = Whole(
    total_count=12_345,
    share=math.inf,
    part=Part(name="one", spread=NOTHING),
    parts=[Part(name="two", spread=Spread.of([1234.5]))],
)


def test_a_result_is_json():
    """Figures that JSON cannot write become null, at any depth."""
    assert json.loads(json.dumps(to_json(WHOLE), allow_nan=False)) == {
        "total_count": 12_345,
        "share": None,
        "part": {"name": "one", "spread": {"count": 0, "p50": None, "p99": None, "max": None}},
        "parts": [
            {"name": "two", "spread": {"count": 1, "p50": 1234.5, "p99": 1234.5, "max": 1234.5}}
        ],
    }


def test_a_result_is_a_table():
    """Each figure has a row, nested ones under both names."""
    assert list(to_rows(WHOLE)) == [
        ("total count", "12,345"),
        ("share", "–"),
        ("part: name", "one"),
        ("part: spread", "–"),
        ("parts: name", "two"),
        ("parts: spread", "p50 1,234.5, p99 1,234.5, max 1,234.5"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.125, "0.12"), (99.5, "99.50"), (3.0, "3"), (1234.5, "1,234"), (1234, "1,234"), ("a", "a")],
)
def test_figures_are_written_for_eyes(value: object, expected: str):
    """Large figures have no decimals, small ones two."""
    assert show_figure(value) == expected
