"""Times of day in Japanese: 「9時00分」, 「9時00分から17時50分まで10分ごと」.

Imports the readings; called by ``japanese.py``.
"""

from collections.abc import Sequence
from itertools import product

from app.schemas.words.japanese_days import listed
from app.schemas.words.reading import ClockRule
from app.schemas.words.sequences import (
    even_step_of,
    hourly_spans_of,
    pieces_of,
    runs_of,
    step_of,
)

# So many times of day are listed; more are said by what they have in common.
_LISTED_MAX = 8
_LISTED_REGULAR_MAX = 4
_FIXED = "（時計の時刻で数える）"
_ELAPSED = "（経過時間で数える）"


def times_phrase(clock: ClockRule, *, jumps: bool) -> tuple[str, bool]:
    """Write the times of a day, and tell whether the phrase begins with a time (「9時…」).

    Where the zone's clock ``jumps``, rules that follow elapsed time and rules of fixed times run
    differently; the phrase says which it is, unless its form does.
    """
    text, begins_with_time, looks_elapsed = _phrase(clock)
    if jumps and clock.elapsed != looks_elapsed:
        text += _ELAPSED if clock.elapsed else _FIXED
    return text, begins_with_time


def _phrase(clock: ClockRule) -> tuple[str, bool, bool]:
    """Return the phrase, whether it begins with a time, and which kind of rule it looks like."""
    if _is_listed(clock):
        times = product(clock.hours, clock.minutes, clock.seconds)
        seconds = not clock.whole_minutes
        return listed([_time(h, m, s if seconds else None) for h, m, s in times]), True, False
    if not clock.whole_minutes:
        return _secondly(clock), not clock.all_hours, clock.all_hours or clock.every_minute
    if len(clock.minutes) == 1:
        return _hourly(clock)
    looks_elapsed = clock.all_hours or even_step_of(clock.minutes) is not None
    return _minutely(clock), not clock.all_hours, looks_elapsed


def _is_listed(clock: ClockRule) -> bool:
    count = len(clock.hours) * len(clock.minutes) * len(clock.seconds)
    if count == 1:
        return True
    if clock.elapsed:
        return False
    if clock.whole_minutes and (even_step_of(clock.minutes) or _is_stepped(clock)):
        return count <= _LISTED_REGULAR_MAX
    return count <= _LISTED_MAX


def _is_stepped(clock: ClockRule) -> bool:
    spans = _spans(clock)
    in_spans = bool(spans) and all(first != last for first, last in spans)
    return len(clock.minutes) == 1 and (in_spans or step_of(clock.hours) is not None)


def _hourly(clock: ClockRule) -> tuple[str, bool, bool]:
    minute = clock.minutes[0]
    if clock.all_hours:
        return f"毎時{minute}分", False, True
    spans = _spans(clock)
    if spans and all(first != last for first, last in spans):
        return f"{_from_to(clock, spans)}1時間ごと", True, False
    step = step_of(clock.hours)
    if step is not None:
        first, last = clock.hours[0], clock.hours[-1]
        return f"{_time(first, minute)}から{_time(last, minute)}まで{step}時間ごと", True, True
    return f"{_hours(clock)}の毎時{minute}分", True, False


def _minutely(clock: ClockRule) -> str:
    spans = _spans(clock)
    step = even_step_of(clock.minutes)
    if step is not None:
        every = _every(step, "分")
        if clock.all_hours and clock.minutes[0] == 0:
            return every
        if clock.all_hours:
            return f"毎時{clock.minutes[0]}分から{clock.minutes[-1]}分まで{every}"
        if spans:
            return f"{_from_to(clock, spans)}{every}"
        if clock.minutes[0] == 0:
            return f"{_hours(clock)}に{every}"
    of_hours = "" if clock.all_hours else f"{_hours(clock)}の"
    return f"{of_hours}毎時{_steps(clock.minutes, '分')}"


def _secondly(clock: ClockRule) -> str:
    step = even_step_of(clock.seconds)
    if step is not None and clock.seconds[0] == 0:
        seconds, dated = _every(step, "秒"), False
    else:
        seconds, dated = _steps(clock.seconds, "秒"), True
    hours = "" if clock.all_hours else _hours(clock)
    if clock.every_minute:
        joint = f"{hours}の" if hours else ""
        if dated:
            return f"{joint}毎分{seconds}"
        return f"{hours}に{seconds}" if hours else seconds
    minutes = listed(_numbers(clock.minutes, "分"))
    joint = f"{hours}の" if hours else ""
    return f"{joint}毎時{minutes}の{seconds}" if dated else f"{joint}毎時{minutes}に{seconds}"


def _every(step: int, unit: str) -> str:
    return f"毎{unit}" if step == 1 else f"{step}{unit}ごと"


def _steps(values: Sequence[int], unit: str) -> str:
    step = step_of(values)
    if step is None:
        return listed(_numbers(values, unit))
    return f"{values[0]}{unit}から{values[-1]}{unit}まで{_every(step, unit)}"


def _spans(clock: ClockRule) -> list[tuple[int, int]]:
    over_midnight = clock.any_day and clock.years is None
    return hourly_spans_of(clock.hours, over_midnight=over_midnight)


def _from_to(clock: ClockRule, spans: Sequence[tuple[int, int]]) -> str:
    first, last = clock.minutes[0], clock.minutes[-1]
    texts = []
    for begin, end in spans:
        morrow = "翌" if end < begin else ""
        texts.append(f"{_time(begin, first)}から{morrow}{_time(end, last)}まで")
    # After several spans a comma: the step belongs to all of them.
    return texts[0] if len(texts) == 1 else f"{'と'.join(texts)}、"


def _hours(clock: ClockRule) -> str:
    """Write 「9時台から11時台」 or 「8・10・14時台」."""
    runs = runs_of(clock.hours)
    if len(runs) == 1 and len(clock.hours) > 2:  # noqa: PLR2004 - two hours are named
        return f"{clock.hours[0]}時台から{clock.hours[-1]}時台"
    numbers = pieces_of(runs, one=str, many=lambda first, last: f"{first}〜{last}")
    return f"{'・'.join(numbers)}時台"


def _numbers(values: Sequence[int], unit: str) -> list[str]:
    return pieces_of(
        runs_of(values),
        one=lambda value: f"{value}{unit}",
        many=lambda first, last: f"{first}〜{last}{unit}",
    )


def _time(hour: int, minute: int, second: int | None = None) -> str:
    text = f"{hour}時{minute:02}分"
    return text if second is None else f"{text}{second:02}秒"
