"""Days in English: "Monday to Friday", "on the 1st and 15th of every month".

Imports the readings; called by ``english.py``.
"""

import re
from collections.abc import Sequence

from app.schemas.words.reading import EVEN_DAYS, LAST, ODD_DAYS, ClockRule, DayTerms
from app.schemas.words.sequences import cyclic_runs_of, pieces_of, runs_of, step_of

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = {LAST: "last", 1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_RARE_FROM = 29  # not every month has these days
# More pieces of a list of years than this are not read, so the field itself is shown.
_YEARS_MAX = 12
_TEENS = range(11, 14)
_DAYS_LISTED_MAX = 4
_WEEKS_LISTED_MAX = 8


def listed(texts: Sequence[str], *, conjunction: str = "and") -> str:
    """Join texts: "a, b and c"."""
    head = ", ".join(texts[:-1])
    return f"{head} {conjunction} {texts[-1]}" if head else texts[-1]


def days_phrase(clock: ClockRule, *, at_times: bool) -> str:
    """Write the days, with what joins them to the times before; empty if it goes without saying.

    ``at_times`` tells that the times are a plain list.
    """
    phrase = _which_days(clock, at_times=at_times)
    for period in (_weeks(clock), _years(clock)):
        if period:
            phrase += f"{',' if ',' in phrase else ''} {period}"
    return phrase


def _which_days(clock: ClockRule, *, at_times: bool) -> str:
    if clock.terms:
        phrase = _dated(clock)
        starts_bare = not phrase.startswith("on ")
        return (", " if starts_bare or not at_times else " ") + phrase
    comma = "" if at_times else ","
    if clock.months is not None:
        return f"{comma} every day {_in_months(clock.months)}"
    if at_times or not clock.all_hours:
        return f"{comma} every day"
    return ""


def _dated(clock: ClockRule) -> str:
    first, *rest = clock.terms
    phrase = _alternatives(first, clock.months)
    for term in rest:
        day = "it" if first.one_day else "the day"
        phrase += f", but only if {day} falls {listed(_as_condition(term), conjunction='or')}"
    return phrase


def _alternatives(term: DayTerms, months: tuple[int, ...] | None) -> str:
    phrases = []
    if term.dated:
        phrases.append(_of_month(term, months))
    if term.weekdays:
        joins = bool(phrases)
        weekdays = _weekdays(term.weekdays, joins=joins)
        phrases.append(weekdays if months is None else f"{weekdays} {_in_months(months)}")
    return ", and ".join(phrases)


def _of_month(term: DayTerms, months: tuple[int, ...] | None) -> str:
    pieces = _day_pieces(term.days)
    if term.last_day:
        pieces.append("the last day")
    if term.last_workday:
        pieces.append("the last weekday (Monday to Friday)")
    pieces += [f"the {_ORDINALS[nth]} {WEEKDAYS[weekday]}" for nth, weekday in term.nth]
    return f"on {_share_article(pieces)} of {_months_of(months)}{_rare(term, months)}"


def _share_article(pieces: list[str]) -> str:
    """Write "the 1st and 15th": numbers alone share one article."""
    if all(re.fullmatch(r"the \d+..", piece) for piece in pieces):
        pieces = [pieces[0], *(piece.removeprefix("the ") for piece in pieces[1:])]
    return listed(pieces)


def _rare(term: DayTerms, months: tuple[int, ...] | None) -> str:
    """Say so where a month or a year may lack the day."""
    only_days = not (term.last_day or term.last_workday)
    if months == (2,) and term.days == (29,) and only_days and not term.nth:
        return " (leap years only)"
    fifths = all(nth == 5 for nth, _ in term.nth)  # noqa: PLR2004 - no month has a sixth
    late = all(day >= _RARE_FROM for day in term.days)
    return " that has one" if months is None and only_days and fifths and late else ""


def _months_of(months: tuple[int, ...] | None) -> str:
    if months is None:
        return "every month"
    runs = cyclic_runs_of(months, lowest=1, highest=12)
    if any(_length(run) > 2 for run in runs):  # noqa: PLR2004 - such runs are said by their ends
        return f"each month {_from_months(months)}"
    return listed(_month_pieces(months))


def _from_months(months: tuple[int, ...]) -> str:
    pieces = _month_pieces(months)
    return f"from {pieces[0]}" if len(pieces) == 1 else f"in {listed(pieces)}"


def _in_months(months: tuple[int, ...]) -> str:
    pieces = _month_pieces(months)
    if len(pieces) == 1 and " to " in pieces[0]:
        return f"from {pieces[0]}"
    return f"in {listed(pieces)}"


def _length(run: tuple[int, int]) -> int:
    first, last = run
    return (last - first) % 12 + 1


def _month_pieces(months: tuple[int, ...]) -> list[str]:
    return pieces_of(
        cyclic_runs_of(months, lowest=1, highest=12),
        one=lambda month: MONTHS[month - 1],
        many=lambda first, last: f"{MONTHS[first - 1]} to {MONTHS[last - 1]}",
        lowest=1,
        highest=12,
    )


def _weekdays(weekdays: tuple[int, ...], *, joins: bool) -> str:
    pieces = _weekday_pieces(weekdays, plural=not joins)
    if len(pieces) == 1 and " to " in pieces[0]:
        return f"on every day from {pieces[0]}" if joins else pieces[0]
    if joins and any(" to " in piece for piece in pieces):
        return f"on every {listed(pieces)}"
    return (
        f"on {listed([f'every {piece}' for piece in pieces])}" if joins else f"on {listed(pieces)}"
    )


def _weekday_pieces(weekdays: tuple[int, ...], *, plural: bool) -> list[str]:
    monday_first = sorted((weekday - 1) % 7 for weekday in weekdays)
    ending = "s" if plural else ""
    return pieces_of(
        cyclic_runs_of(monday_first, lowest=0, highest=6),
        one=lambda day: WEEKDAYS[(day + 1) % 7] + ending,
        many=lambda first, last: f"{WEEKDAYS[(first + 1) % 7]} to {WEEKDAYS[(last + 1) % 7]}",
        lowest=0,
        highest=6,
    )


def _as_condition(term: DayTerms) -> list[str]:
    weekdays = _weekday_pieces(term.weekdays, plural=False)
    return [
        *(_falls(piece) for piece in weekdays),
        *(f"on the {_ORDINALS[nth]} {WEEKDAYS[weekday]} of the month" for nth, weekday in term.nth),
    ]


def _falls(weekdays: str) -> str:
    first, _, last = weekdays.partition(" to ")
    return f"between {first} and {last}" if last else f"on a {first}"


def _day_pieces(days: tuple[int, ...]) -> list[str]:
    step = step_of(days)
    if days in {ODD_DAYS, EVEN_DAYS}:
        return ["odd-numbered days" if days == ODD_DAYS else "even-numbered days"]
    if step is not None and step > 1 and len(days) > _DAYS_LISTED_MAX:
        return [
            f"every {_ordinal(step)} day from the {_ordinal(days[0])} to the {_ordinal(days[-1])}"
        ]
    return pieces_of(
        runs_of(days),
        one=lambda day: f"the {_ordinal(day)}",
        many=lambda first, last: f"the {_ordinal(first)} to the {_ordinal(last)}",
    )


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number in _TEENS else endings.get(number % 10, 'th')}"


def _weeks(clock: ClockRule) -> str:
    if clock.weeks is None:
        return ""
    step = step_of(clock.weeks)
    first, last = clock.weeks[0], clock.weeks[-1]
    if step is not None and step > 1 and len(clock.weeks) > _WEEKS_LISTED_MAX:
        return f"in every {_ordinal(step)} ISO week from {first} to {last}"
    noun = "week" if len(clock.weeks) == 1 else "weeks"
    return f"in ISO {noun} {listed(_numbers(clock.weeks))}"


def _years(clock: ClockRule) -> str:
    if clock.years is None:
        return ""
    step = step_of(clock.years)
    first, last = clock.years[0], clock.years[-1]
    if step == 1:
        return f"from {first} to {last}"
    if step is not None and len(clock.years) > _YEARS_MAX:
        return f"in every {_ordinal(step)} year from {first} to {last}"
    pieces = _numbers(clock.years)
    if len(pieces) > _YEARS_MAX:
        return f"in the years {clock.years_text}"
    return f"in {listed(pieces)}"


def _numbers(values: tuple[int, ...]) -> list[str]:
    return pieces_of(runs_of(values), one=str, many=lambda first, last: f"{first} to {last}")
