"""What a comparison found, medians and ratios of its rounds, and the tables that show them."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.bout import Bout
from benchmarks.queues import QueueFigures, TickFigures

Table = list[tuple[str, ...]]

_NONE = "–"
# How many digits follow the point in figures of at least so much.
_DIGITS = ((100, 0), (10, 1), (0, 2))
# Of the first kind the other's figure is divided by ours, of the second ours by the other's.
_LESS_IS_BETTER: dict[str, Callable[[Bout], float]] = {
    "lateness p99": lambda bout: bout.lateness_ms.p99,
    "CPU per run": lambda bout: bout.cpu_ms_per_run,
    "CPU per run, databases included": lambda bout: (
        bout.cpu_ms_per_run + bout.stores_cpu_ms_per_run
    ),
}
_MORE_IS_BETTER: dict[str, Callable[[Bout], float]] = {
    "runs per second": lambda bout: bout.per_second,
    "jobs created per second": lambda bout: bout.created_per_second,
}
_COLUMNS: dict[str, Callable[[Bout], float]] = {
    "runs/s": lambda bout: bout.per_second,
    "lateness p50 ms": lambda bout: bout.lateness_ms.p50,
    "p99 ms": lambda bout: bout.lateness_ms.p99,
    "max ms": lambda bout: bout.lateness_ms.max,
    "lone p50 ms": lambda bout: bout.lone_ms.p50,
    "lone max ms": lambda bout: bout.lone_ms.max,
    "created/s": lambda bout: bout.created_per_second,
    "CPU ms/run": lambda bout: bout.cpu_ms_per_run,
    "databases CPU ms/run": lambda bout: bout.stores_cpu_ms_per_run,
    "memory MiB": lambda bout: bout.memory_mib,
}


@dataclass(slots=True, kw_only=True)
class Comparison:
    """All that was measured, in its order; ``failed`` are turns that came to nothing, and why."""

    surroundings: dict[str, str]
    missing: dict[str, str]
    rounds: int
    ceiling_per_second: list[float] = field(default_factory=list)
    bouts: list[Bout] = field(default_factory=list)
    queues: list[QueueFigures] = field(default_factory=list)
    ticks: list[TickFigures] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle:
    """The median of rounds, with the least and the greatest; NaN if no round has the figure."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Middle":
        """Compute; what is NaN or infinite is left out."""
        known = sorted(value for value in values if math.isfinite(value))
        if not known:
            return cls(median=math.nan, least=math.nan, greatest=math.nan)
        return cls(median=statistics.median(known), least=known[0], greatest=known[-1])


def as_markdown(found: Comparison, ours: Sequence[str]) -> str:
    """Write all of it as Markdown; the contenders named in ``ours`` are held against the others."""
    parts = [f"Medians of {found.rounds} interleaved rounds."]
    parts.append("\n".join(f"- {name}: {what}" for name, what in found.surroundings.items()))
    parts += [f"Without {name}: {why}." for name, why in found.missing.items()]
    parts += [f"Failed: {what}." for what in found.failed]
    if found.ceiling_per_second:
        ceiling = _show(Middle.of(found.ceiling_per_second).median)
        parts.append(f"The target's ceiling, by wrk: {ceiling} requests/s.")
    for jobs in dict.fromkeys(bout.jobs for bout in found.bouts):
        bouts = [bout for bout in found.bouts if bout.jobs == jobs]
        names = {bout.contender for bout in bouts}
        parts += [f"{jobs:,} jobs due at one instant:", markdown(figure_table(bouts))]
        parts += [markdown(ratio_table(bouts, name)) for name in ours if names > {name}]
    if found.queues:
        parts.append(markdown(queue_table(found.queues)))
    parts += [_tick_line(found.ticks)] if found.ticks else []
    return "\n\n".join(part for part in parts if part)


def ratios(ours: Sequence[Bout], others: Sequence[Bout]) -> dict[str, Middle]:
    """Tell how many times better the first is, round by round: above 1 is better.

    Only rounds in which both took part count.
    """
    theirs = {bout.round_number: bout for bout in others}
    rounds = [(bout, theirs[bout.round_number]) for bout in ours if bout.round_number in theirs]
    better = {
        name: Middle.of(_over(figure(our), figure(other)) for our, other in rounds)
        for name, figure in _MORE_IS_BETTER.items()
    }
    return better | {
        name: Middle.of(_over(figure(other), figure(our)) for our, other in rounds)
        for name, figure in _LESS_IS_BETTER.items()
    }


def figure_table(bouts: Sequence[Bout]) -> Table:
    """Write the medians, a row for each contender, with a head; of losses the worst round."""
    names = list(dict.fromkeys(bout.contender for bout in bouts))
    table: Table = [("contender", *_COLUMNS, "lost", "doubled", "without a row")]
    for name in names:
        mine = [bout for bout in bouts if bout.contender == name]
        cut = any(bout.was_cut for bout in mine)
        table.append(
            (
                name,
                *(_show(Middle.of(map(figure, mine)).median) for figure in _COLUMNS.values()),
                f"{max(bout.lost for bout in mine):,}{' (cut)' if cut else ''}",
                f"{max(bout.doubled for bout in mine):,}",
                f"{max(bout.unrecorded for bout in mine):,}",
            )
        )
    return table


def ratio_table(bouts: Sequence[Bout], ours: str) -> Table:
    """Write how many times better ``ours`` is than each of the others, with least and greatest."""
    names = [name for name in dict.fromkeys(bout.contender for bout in bouts) if name != ours]
    mine = [bout for bout in bouts if bout.contender == ours]
    table: Table = [(f"{ours} against", *_MORE_IS_BETTER, *_LESS_IS_BETTER)]
    for name in names:
        found = ratios(mine, [bout for bout in bouts if bout.contender == name])
        table.append((name, *(_show_ratio(found[figure]) for figure in table[0][1:])))
    return table


def queue_table(queues: Sequence[QueueFigures]) -> Table:
    """Write the medians of each queue with each number of processes, and of both after another."""
    rates = ("enqueued_per_second", "claimed_per_second", "drained_per_second", "cycles_per_second")
    kinds = dict.fromkeys((figures.queue, figures.processes) for figures in queues)
    table: Table = [("queue", "processes", *(name.replace("_per_second", "/s") for name in rates))]
    for queue, processes in kinds:
        mine = [one for one in queues if (one.queue, one.processes) == (queue, processes)]
        middles = [Middle.of(getattr(one, name) for one in mine) for name in rates]
        table.append((queue, str(processes), *(_show(middle.median) for middle in middles)))
    for processes in dict.fromkeys(processes for _, processes in kinds):
        both = [one for one in queues if one.processes == processes]
        if len({one.queue for one in both}) > 1:
            table.append(("both", str(processes), _NONE, _NONE, _NONE, _show(_in_turn(both))))
    return table


def markdown(table: Table) -> str:
    """Write a table as Markdown; all columns but the first are figures."""
    head, *rows = table
    rule = ("---", *("---:" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _in_turn(queues: Sequence[QueueFigures]) -> float:
    """Tell how many cycles per second are left to runs that go through all of these queues."""
    names = {one.queue for one in queues}
    seconds = (
        Middle.of(1 / one.cycles_per_second for one in queues if one.queue == name).median
        for name in names
    )
    return 1 / sum(seconds)


def _tick_line(ticks: Sequence[TickFigures]) -> str:
    bare = _show(Middle.of(tick.bare_ms for tick in ticks).median)
    queued = _show(Middle.of(tick.queued_ms for tick in ticks).median)
    more = _show_ratio(Middle.of(tick.queued_ms / tick.bare_ms for tick in ticks))
    return (
        f"A transaction of {ticks[0].rows} rows of the ledger: {bare} ms; with as many jobs of"
        f" PgQueuer in it: {queued} ms, {more} times as long."
    )


def _over(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor else math.nan


def _show(value: float) -> str:
    if not math.isfinite(value):
        return _NONE
    digits = next(digits for least, digits in _DIGITS if abs(value) >= least)
    return f"{value:,.{digits}f}"


def _show_ratio(middle: Middle) -> str:
    if math.isnan(middle.median):
        return _NONE
    return f"{_show(middle.median)} ({_show(middle.least)}–{_show(middle.greatest)})"
