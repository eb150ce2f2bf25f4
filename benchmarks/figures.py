"""What is reported, and how it is computed: pure, the same for every scheduler that is measured.

Times are milliseconds in results and seconds of the wall clock in what is judged.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Self


class Arrival(NamedTuple):
    """One request at the target: the last segment of its path, its ``webhook-id``, and when."""

    key: str
    identity: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a measure in milliseconds is spread; NaN where nothing was measured."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Compute from milliseconds."""
        ordered = sorted(values)
        return cls(
            count=len(ordered),
            p50=round(percentile(ordered, 0.5), 2),
            p99=round(percentile(ordered, 0.99), 2),
            max=round(ordered[-1] if ordered else math.nan, 2),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What arrived of what was due.

    ``lost`` was due and never arrived, ``doubled`` arrivals were one too many, ``early`` ones came
    before they were due, ``strange`` ones were never due. ``lateness_ms`` is that of first
    arrivals.
    """

    arrived: int
    lost: int
    doubled: int
    early: int
    strange: int
    lateness_ms: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """What a number of due runs came to, whoever ran them.

    ``per_second`` counts runs whose outcome is stored, from the first due instant to the last
    outcome. ``at_target_ms`` is due instant to arrival by the target's clock; ``in_ledger_ms`` is
    due instant to start as the scheduler itself recorded it (no figures if it records none).
    ``cpu_ms_per_run`` and ``memory_mib`` (the peak) are those of all the scheduler's processes.
    """

    runs: int
    per_second: float
    at_target_ms: Spread
    in_ledger_ms: Spread
    lost: int
    doubled: int
    cpu_ms_per_run: float
    memory_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One scenario's row in the table of a suite; what it does not measure is NaN."""

    scenario: str
    runs_per_second: float = math.nan
    late_p50_ms: float = math.nan
    late_p99_ms: float = math.nan
    late_max_ms: float = math.nan
    lost: float = math.nan
    doubled: float = math.nan
    cpu_ms_per_run: float = math.nan
    memory_mib: float = math.nan
    api_p99_ms: float = math.nan
    note: str = ""

    @classmethod
    def of(
        cls, scenario: str, run: RunFigures, *, api_ms: Spread | None = None, note: str = ""
    ) -> Self:
        """Take the lateness at the target."""
        return cls(
            scenario=scenario,
            runs_per_second=run.per_second,
            late_p50_ms=run.at_target_ms.p50,
            late_p99_ms=run.at_target_ms.p99,
            late_max_ms=run.at_target_ms.max,
            lost=run.lost,
            doubled=run.doubled,
            cpu_ms_per_run=run.cpu_ms_per_run,
            memory_mib=run.memory_mib,
            api_p99_ms=math.nan if api_ms is None else api_ms.p99,
            note=note,
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Take the nearest rank of values in ascending order: the least that ``share`` do not exceed.

    NaN if there are none.
    """
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def judge(arrivals: Iterable[tuple[str, float]], due: Mapping[str, float]) -> Judgement:
    """Hold the arrivals, by name, against the due instant of each name; each should come once."""
    first: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for name, at in arrivals:
        counts[name] += 1
        first[name] = min(at, first.get(name, at))
    known = [name for name in first if name in due]
    return Judgement(
        arrived=len(known),
        lost=len(due) - len(known),
        doubled=sum(counts[name] - 1 for name in known),
        early=sum(first[name] < due[name] for name in known),
        strange=sum(count for name, count in counts.items() if name not in due),
        lateness_ms=Spread.of((first[name] - due[name]) * 1000 for name in known),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Fit a straight line by least squares and tell its rise per unit; NaN for fewer than two."""
    if not points:
        return math.nan
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return math.nan
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def rate(count: float, seconds: float) -> float:
    """Tell how many there were per second, in whole numbers where there were many."""
    if seconds <= 0:
        return math.nan
    per_second = count / seconds
    return round(per_second, 1 if per_second < 100 else None)  # noqa: PLR2004 - as it is read


def to_json(result: Any) -> Any:
    """Turn a result into what JSON can hold: NaN and infinity become null."""
    if is_dataclass(result):
        return {field.name: to_json(getattr(result, field.name)) for field in fields(result)}
    if isinstance(result, Mapping):
        return {str(name): to_json(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [to_json(item) for item in result]
    if isinstance(result, float) and not math.isfinite(result):
        return None
    return result


def to_rows(result: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the figures of a result by name, nested ones under the names of both."""
    for field in fields(result):
        name, value = f"{prefix}{field.name.replace('_', ' ')}", getattr(result, field.name)
        if isinstance(value, Spread):
            yield name, show_spread(value)
        elif is_dataclass(value):
            yield from to_rows(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            for item in value:
                yield from to_rows(item, f"{name}: ")
        else:
            yield name, show_figure(value)


def show_spread(spread: Spread) -> str:
    """Write a spread in a line."""
    if not spread.count:
        return "–"
    return f"p50 {spread.p50:,.1f}, p99 {spread.p99:,.1f}, max {spread.max:,.1f}"


def show_figure(value: Any) -> str:
    """Write a figure as a person reads it: large ones without decimals."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        decimals = 0 if abs(value) >= 100 else 2  # noqa: PLR2004 - as it is read
        return f"{value:,.{decimals}f}" if value % 1 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
