"""The dialect of ``cron`` objects: APScheduler's fields, but weekdays counted as crontab does.

Turns what users write into what APScheduler's CronTrigger accepts: weekday digits (0 and 7 are
Sunday) become names, ranges that wrap become lists. APScheduler alone would read ``1-5`` as
Tuesday to Saturday, ignore what follows a name (``mon-fri/2``), and refuse ``fri-mon``.

Imports ``domain`` and the shared grammar; called by ``triggers.py`` and by the mapping to the wire.
"""

import re

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import CRON_FIELD_NAMES
from app.engine.cron_items import (
    MONTHS,
    WEEKDAYS,
    FieldRange,
    Item,
    parse_item,
    parse_value,
    split_items,
)

_POSITIONS = ("1st", "2nd", "3rd", "4th", "5th", "last")
_WEEKDAY_OF_MONTH = re.compile(r"(?P<position>[0-9a-z]+) +(?P<weekday>[0-9a-z]+)")
_MONDAY_FIRST = (*WEEKDAYS[1:], WEEKDAYS[0])

_FIELDS = {
    field.label: field
    for field in (
        FieldRange(label="year", lowest=1970, highest=9999, cycle=None),
        FieldRange(label="month", lowest=1, highest=12, cycle=12, names=MONTHS, names_from=1),
        FieldRange(label="day", lowest=1, highest=31, cycle=31),
        FieldRange(label="week", lowest=1, highest=53, cycle=53),
        FieldRange(label="day_of_week", lowest=0, highest=7, cycle=7, names=WEEKDAYS),
        FieldRange(label="hour", lowest=0, highest=23, cycle=24),
        FieldRange(label="minute", lowest=0, highest=59, cycle=60),
        FieldRange(label="second", lowest=0, highest=59, cycle=60),
    )
}


def normalise_cron_fields(fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rewrite the given fields so that APScheduler reads them as they are meant.

    Only the given fields are returned, in the order of ``CRON_FIELD_NAMES``; weekdays as names
    (``1-5`` → ``mon-fri``). Raises ``InvalidScheduleError`` naming the field and the item.
    """
    given = dict(fields)
    if len(given) != len(fields):
        raise InvalidScheduleError("cron names a field twice; give each field once")
    if not given:
        raise InvalidScheduleError("cron has no field; give at least one, such as minute")
    if not given.keys() <= set(CRON_FIELD_NAMES):
        raise InvalidScheduleError(
            f"cron has a field it does not know; its fields are {', '.join(CRON_FIELD_NAMES)}"
        )
    return tuple(
        (name, _normalise_field(name, given[name])) for name in CRON_FIELD_NAMES if name in given
    )


def follows_elapsed_time(fields: tuple[tuple[str, str], ...]) -> bool:
    """Tell whether hour or minute has a ``*`` or ``*/n``, or is not given, which means ``*``."""
    given = dict(fields)
    return any(
        item.startswith("*")
        for name in ("hour", "minute")
        for item in given.get(name, "*").split(",")
    )


def listed_values(fields: tuple[tuple[str, str], ...], name: str) -> frozenset[int] | None:
    """List the values of one normalised field; None where they depend on the month.

    A field that is not given has all its values; Sunday is 0.
    """
    items = dict(fields).get(name, "*").split(",")
    if any(item == "last" or " " in item for item in items):
        return None
    read = (parse_item(item, field=_FIELDS[name], where=name) for item in items)
    return frozenset(value for item in read for value in item.values())


def _normalise_field(name: str, text: str) -> str:
    items = split_items(text, where=f"cron.{name}")
    written = [
        _normalise_item(name, item, where=f"cron.{name}, item {position}")
        for position, item in enumerate(items, start=1)
    ]
    return ",".join(written)


def _normalise_item(name: str, text: str, *, where: str) -> str:
    if name == "day" and (special := _special_day(text, where=where)) is not None:
        return special
    if name == "day_of_week" and " " in text:
        raise InvalidScheduleError(
            f"{where}: a weekday's position in the month, such as '2nd fri', belongs to day"
        )
    item = parse_item(text, field=_FIELDS[name], where=where)
    if name == "day_of_week":
        return _weekday_names(item)
    _check_step(item, where=where)
    return item.text()


def _special_day(text: str, *, where: str) -> str | None:
    if text == "last":
        return text
    match = _WEEKDAY_OF_MONTH.fullmatch(text)
    if match is None:
        return None
    if match["position"] not in _POSITIONS:
        raise InvalidScheduleError(
            f"{where}: unknown position; use {', '.join(_POSITIONS)} before a weekday"
        )
    weekday = parse_value(match["weekday"], field=_FIELDS["day_of_week"], where=where)
    return f"{match['position']} {WEEKDAYS[weekday % 7]}"


def _weekday_names(item: Item) -> str:
    if item.first is None and item.step in {None, 1}:
        return "*"
    names = [WEEKDAYS[value] for value in item.values()]
    if len(names) == len(WEEKDAYS):
        return "mon-sun"
    begin = _MONDAY_FIRST.index(names[0])
    if len(names) > 1 and tuple(names) == _MONDAY_FIRST[begin : begin + len(names)]:
        return f"{names[0]}-{names[-1]}"
    return ",".join(names)


def _check_step(item: Item, *, where: str) -> None:
    if item.step is None or item.wraps:
        return
    first = item.field.lowest if item.first is None else item.first
    last = item.field.highest if item.last is None else item.last
    if item.step > max(last - first, 1):
        raise InvalidScheduleError(
            f"{where}: the step is larger than the range it steps over; "
            "write the single value instead, or use an interval schedule"
        )
