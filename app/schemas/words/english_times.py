"""Times of day in English: "At 09:00", "Every 10 minutes from 09:00 to 17:50".

Imports the readings and ``english_days.py``; called by ``english.py``.
"""

from collections.abc import Sequence
from itertools import product

from app.schemas.words.english_days import listed
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
_PAST = " past the minute"
_FIXED = ", at fixed local times"
_ELAPSED = ", by elapsed time"


def times_phrase(clock: ClockRule, *, jumps: bool) -> tuple[str, bool]:
    """Write the times of a day, and tell whether they are a plain list ("At 09:00 and 13:00").

    Where the zone's clock ``jumps``, rules that follow elapsed time and rules of fixed times run
    differently; the phrase says which it is, unless its form does.
    """
    text, is_list, looks_elapsed = _phrase(clock)
    if jumps and clock.elapsed != looks_elapsed:
        text += _ELAPSED if clock.elapsed else _FIXED
    return text, is_list


def _phrase(clock: ClockRule) -> tuple[str, bool, bool]:
    """Return the phrase, whether it lists times, and which of both kinds of rule it looks like."""
    if _is_listed(clock):
        times = [_time(*at) for at in product(clock.hours, clock.minutes, clock.seconds)]
        if not clock.whole_minutes:
            return f"At {listed(times)}", True, False
        return f"At {listed([text[:5] for text in times])}", True, False
    if not clock.whole_minutes:
        return _seconds(clock), False, clock.all_hours or clock.every_minute
    if len(clock.minutes) == 1:
        return _hourly(clock)
    return _minutely(clock), False, clock.all_hours or even_step_of(clock.minutes) is not None


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
        text = "Every hour" if minute == 0 else f"At {_count(minute, 'minute')} past every hour"
        return text, False, True
    spans = _spans(clock)
    if spans and all(first != last for first, last in spans):
        return f"Every hour {_from_to(clock, spans)}", False, False
    step = step_of(clock.hours)
    if step is not None:
        first, last = clock.hours[0], clock.hours[-1]
        ends = f"from {_time(first, minute)} to {_time(last, minute)}"
        return f"Every {step} hours {ends}", False, True
    return f"At {_count(minute, 'minute')} past the {_hours(clock)}", False, False


def _minutely(clock: ClockRule) -> str:
    step = even_step_of(clock.minutes)
    if step is not None and (phrase := _evenly(clock, step)) is not None:
        return phrase
    past = _steps(clock.minutes, "minute")
    if clock.all_hours:
        return f"{past} past every hour"
    spans = _spans(clock)
    return (
        f"{past} past the hour, {_from_to(clock, spans)}"
        if spans
        else (f"{past} past the {_hours(clock)}")
    )


def _evenly(clock: ClockRule, step: int) -> str | None:
    """Write minutes that go on evenly; None where only numbers say which they are."""
    every = "Every minute" if step == 1 else f"Every {step} minutes"
    first, last = clock.minutes[0], clock.minutes[-1]
    spans = _spans(clock)
    if clock.all_hours:
        return every if first == 0 else f"{every} from {first} to {last} minutes past every hour"
    if spans:
        return f"{every} {_from_to(clock, spans)}"
    return f"{every} in the {_hours(clock)}" if first == 0 else None


def _seconds(clock: ClockRule) -> str:
    if len(clock.seconds) == 60:  # noqa: PLR2004 - seconds of a minute
        text, past = "Every second", ""
    elif even_step_of(clock.seconds) and clock.seconds[0] == 0:
        text, past = f"Every {clock.seconds[1]} seconds", ""
    else:
        text, past = _steps(clock.seconds, "second"), _PAST
    if clock.every_minute:
        if past:
            text, past = f"{text} past every minute", ""
        return text + _in_hours(clock)
    minutes = listed(_numbers(clock.minutes))
    noun = "minute" if len(clock.minutes) == 1 else "minutes"
    hours = " of every hour" if clock.all_hours else f" of the {_hours(clock)}"
    return f"{text}{past} in {noun} {minutes}{hours}"


def _in_hours(clock: ClockRule) -> str:
    if clock.all_hours:
        return ""
    spans = _spans(clock)
    return f" {_from_to(clock, spans)}" if spans else f" in the {_hours(clock)}"


def _steps(values: Sequence[int], unit: str) -> str:
    """Write minutes past an hour, or seconds past a minute."""
    step = step_of(values)
    if step is not None:
        every = f"Every {unit}" if step == 1 else f"Every {step} {unit}s"
        return f"{every} from {values[0]} to {_count(values[-1], unit)}"
    return f"At {listed(_numbers(values))} {unit}{'' if values == (1,) else 's'}"


def _spans(clock: ClockRule) -> list[tuple[int, int]]:
    over_midnight = clock.any_day and clock.years is None
    return hourly_spans_of(clock.hours, over_midnight=over_midnight)


def _from_to(clock: ClockRule, spans: Sequence[tuple[int, int]]) -> str:
    first, last = clock.minutes[0], clock.minutes[-1]
    return listed([f"from {_time(a, first)} to {_time(b, last)}" for a, b in spans])


def _hours(clock: ClockRule) -> str:
    noun = "hour" if len(clock.hours) == 1 else "hours"
    return f"{noun} {listed(_numbers(clock.hours))}"


def _numbers(values: Sequence[int]) -> list[str]:
    return pieces_of(runs_of(values), one=str, many=lambda first, last: f"{first} to {last}")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _time(hour: int, minute: int, second: int | None = None) -> str:
    text = f"{hour:02}:{minute:02}"
    return text if second is None else f"{text}:{second:02}"
