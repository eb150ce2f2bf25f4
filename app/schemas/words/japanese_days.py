"""Days in Japanese: 「毎週月〜金曜日」, 「毎月1日と15日」.

Imports the readings; called by ``japanese.py``.
"""

from collections.abc import Sequence

from app.schemas.words.reading import EVEN_DAYS, LAST, ODD_DAYS, ClockRule, DayTerms
from app.schemas.words.sequences import cyclic_runs_of, pieces_of, runs_of, step_of

WEEKDAYS = "日月火水木金土"
_EVERY_DAY = "毎日"
_RARE_FROM = 29  # not every month has these days
# More pieces of a list of years than this are not read, so the field itself is shown.
_YEARS_MAX = 12
_PAIR = 2
_DAYS_LISTED_MAX = 4
_WEEKS_LISTED_MAX = 8


def listed(texts: Sequence[str]) -> str:
    """Join texts: 「aとb」, 「a、b、c」."""
    return ("と" if len(texts) == _PAIR else "、").join(texts)


def days_phrase(clock: ClockRule, *, plain: bool) -> str:
    """Write the days; empty if every day goes without saying, which ``plain`` times let it."""
    period = _years(clock) + _weeks(clock)
    if clock.months is not None and clock.years is not None and len(clock.years) == 1:
        period = period.replace("年の", "年", 1) if clock.weeks is None else period
    if clock.terms:
        return period + _dated(clock)
    if clock.months is not None:
        return f"{period}{listed(_month_pieces(clock.months))}の{_EVERY_DAY}"
    if plain and clock.all_hours:
        return period.removesuffix("の")
    return f"{period}{_EVERY_DAY}"


def _dated(clock: ClockRule) -> str:
    first, *rest = clock.terms
    phrase = _alternatives(first, clock.months)
    for term in rest:
        condition = "または".join(_as_condition(term))
        if first.one_day:
            phrase += f"（{condition}に当たる場合のみ）"
        else:
            phrase += f"のうち{condition}に当たる日"
    return phrase


def _alternatives(term: DayTerms, months: tuple[int, ...] | None) -> str:
    phrases = []
    if term.dated:
        phrases.append(_of_month(term, months))
    if term.weekdays:
        weekdays = f"毎週{_weekdays(term.weekdays)}"
        phrases.append(
            weekdays if months is None else f"{listed(_month_pieces(months))}の{weekdays}"
        )
    return "、および".join(phrases)


def _of_month(term: DayTerms, months: tuple[int, ...] | None) -> str:
    pieces = _day_pieces(term.days)
    if term.last_day:
        pieces.append("末日")
    if term.last_workday:
        pieces.append("最後の平日（月〜金曜日）")
    pieces += [_nth(nth, weekday) for nth, weekday in term.nth]
    return f"{_of_months(months)}{listed(pieces)}{_rare(term, months)}"


def _of_months(months: tuple[int, ...] | None) -> str:
    if months is None:
        return "毎月"
    pieces = _month_pieces(months)
    if len(months) == 1:
        return pieces[0]
    return f"{listed(pieces)}の"


def _rare(term: DayTerms, months: tuple[int, ...] | None) -> str:
    """Say so where a month or a year may lack the day."""
    only_days = not (term.last_day or term.last_workday)
    if months == (2,) and term.days == (29,) and only_days and not term.nth:
        return "（うるう年のみ）"
    fifths = all(nth == 5 for nth, _ in term.nth)  # noqa: PLR2004 - no month has a sixth
    late = all(day >= _RARE_FROM for day in term.days)
    return "（その日のある月のみ）" if months is None and only_days and fifths and late else ""


def _day_pieces(days: tuple[int, ...]) -> list[str]:
    step = step_of(days)
    if days in {ODD_DAYS, EVEN_DAYS}:
        return ["奇数日" if days == ODD_DAYS else "偶数日"]
    if step is not None and step > 1 and len(days) > _DAYS_LISTED_MAX:
        return [f"{days[0]}日〜{days[-1]}日（{step}日ごと）"]
    return pieces_of(runs_of(days), one=lambda day: f"{day}日", many=lambda a, b: f"{a}日〜{b}日")


def _nth(nth: int, weekday: int) -> str:
    return f"{'最終' if nth == LAST else f'第{nth}'}{WEEKDAYS[weekday]}曜日"


def _as_condition(term: DayTerms) -> list[str]:
    weekdays = [_weekdays(term.weekdays)] if term.weekdays else []
    return [*weekdays, *(_nth(nth, weekday) for nth, weekday in term.nth)]


def _weekdays(weekdays: tuple[int, ...]) -> str:
    monday_first = sorted((weekday - 1) % 7 for weekday in weekdays)
    pieces = pieces_of(
        cyclic_runs_of(monday_first, lowest=0, highest=6),
        one=lambda day: WEEKDAYS[(day + 1) % 7],
        many=lambda first, last: f"{WEEKDAYS[(first + 1) % 7]}〜{WEEKDAYS[(last + 1) % 7]}",
        lowest=0,
        highest=6,
    )
    return f"{'・'.join(pieces)}曜日"


def _month_pieces(months: tuple[int, ...]) -> list[str]:
    return pieces_of(
        cyclic_runs_of(months, lowest=1, highest=12),
        one=lambda month: f"{month}月",
        many=lambda first, last: f"{first}月〜{last}月",
        lowest=1,
        highest=12,
    )


def _weeks(clock: ClockRule) -> str:
    if clock.weeks is None:
        return ""
    step = step_of(clock.weeks)
    if step is not None and step > 1 and len(clock.weeks) > _WEEKS_LISTED_MAX:
        return f"ISO週番号{clock.weeks[0]}〜{clock.weeks[-1]}（{step}週ごと）の週の"
    pieces = pieces_of(runs_of(clock.weeks), one=str, many=lambda a, b: f"{a}〜{b}")
    return f"ISO週番号{'・'.join(pieces)}の週の"


def _years(clock: ClockRule) -> str:
    if clock.years is None:
        return ""
    step = step_of(clock.years)
    first, last = clock.years[0], clock.years[-1]
    if step == 1:
        return f"{first}年〜{last}年の"
    if step is not None and len(clock.years) > _YEARS_MAX:
        return f"{first}年〜{last}年（{step}年ごと）の"
    pieces = pieces_of(
        runs_of(clock.years), one=lambda y: f"{y}年", many=lambda a, b: f"{a}〜{b}年"
    )
    if len(pieces) > _YEARS_MAX:
        return f"{clock.years_text}に当たる年の"
    return f"{listed(pieces)}の"
