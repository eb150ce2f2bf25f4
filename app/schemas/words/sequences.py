"""Sorted numbers, grouped as people say them: runs, and steps of equal length.

Imports the standard library only; called by the writers of texts.
"""

from collections.abc import Callable, Sequence

# From three numbers on a run is said by its ends.
_RUN_MIN = 3
# From three numbers on equal distances are said as a step.
_STEPS_MIN = 3


def step_of(values: Sequence[int]) -> int | None:
    """Return the distance between neighbours if there are three or more and it is always one."""
    if len(values) < _STEPS_MIN:
        return None
    step = values[1] - values[0]
    same = all(values[i + 1] - values[i] == step for i in range(len(values) - 1))
    return step if same else None


def even_step_of(values: Sequence[int]) -> int | None:
    """Return the distance at which minutes (or seconds) go on evenly over the end of the hour."""
    if len(values) == 1:
        return None
    step = values[1] - values[0]
    evenly = 60 % step == 0 and values[0] < step
    return step if evenly and tuple(values) == tuple(range(values[0], 60, step)) else None


def runs_of(values: Sequence[int]) -> list[tuple[int, int]]:
    """Group sorted numbers into runs without a hole."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return runs


def cyclic_runs_of(values: Sequence[int], *, lowest: int, highest: int) -> list[tuple[int, int]]:
    """Group as ``runs_of``, but let a run go on over the end of the cycle (first above last)."""
    runs = runs_of(values)
    if len(runs) > 1 and runs[0][0] == lowest and runs[-1][1] == highest:
        return [*runs[1:-1], (runs[-1][0], runs[0][1])]
    return runs


def hourly_spans_of(
    hours: Sequence[int], *, over_midnight: bool, spans_max: int = 3
) -> list[tuple[int, int]]:
    """Group hours into a few spans; none if that would be many.

    They go ``over_midnight`` only where it does not matter to which day an hour belongs.
    """
    runs = cyclic_runs_of(hours, lowest=0, highest=23) if over_midnight else runs_of(hours)
    return runs if len(runs) <= spans_max else []


def pieces_of(
    runs: Sequence[tuple[int, int]],
    *,
    one: Callable[[int], str],
    many: Callable[[int, int], str],
    highest: int | None = None,
    lowest: int = 0,
) -> list[str]:
    """Write runs: short ones number by number, longer ones by their ends.

    ``highest`` and ``lowest`` unfold a run that goes on over the end of its cycle.
    """
    pieces: list[str] = []
    for first, last in runs:
        numbers = _unfold(first, last, lowest=lowest, highest=highest)
        if len(numbers) >= _RUN_MIN:
            pieces.append(many(first, last))
        else:
            pieces += [one(number) for number in numbers]
    return pieces


def _unfold(first: int, last: int, *, lowest: int, highest: int | None) -> list[int]:
    if first <= last:
        return list(range(first, last + 1))
    assert highest is not None, "only a cycle has runs over its end"
    return [*range(first, highest + 1), *range(lowest, last + 1)]
