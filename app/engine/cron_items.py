"""The grammar that crontab lines and ``cron`` objects share: one item of a comma-separated list.

An item is ``*``, a value, a range (which may wrap: ``fri-mon``, ``22-2``), each with an optional
``/step``. Imports ``domain`` only; called by ``cron_fields.py`` and ``crontab.py``.

Sentences name the field and the item's position and never repeat the text itself.
"""

import re
from dataclasses import dataclass

from app.domain.errors import InvalidScheduleError

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_ITEM = re.compile(
    r"(?P<first>\*|[0-9]{1,4}|[a-z]+)(?:-(?P<last>[0-9]{1,4}|[a-z]+))?(?:/(?P<step>[0-9]{1,4}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRange:
    """The values of one field.

    ``names[0]`` means ``names_from``. ``cycle`` is how many values there are before they repeat;
    None for a field that does not (``year``), whose ranges cannot wrap.
    """

    label: str
    lowest: int
    highest: int
    cycle: int | None
    names: tuple[str, ...] = ()
    names_from: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item. ``first`` is None for ``*``; ``last`` is None for a single value."""

    field: FieldRange
    first: int | None
    last: int | None
    step: int | None

    @property
    def wraps(self) -> bool:
        """Tell whether the range runs over the end of its field."""
        return self.first is not None and self.last is not None and self.first > self.last

    def values(self) -> tuple[int, ...]:
        """List what the item means, in its own order; crontab's 7 for Sunday is given as 0."""
        low, high, cycle = self.field.lowest, self.field.highest, self.field.cycle
        first = low if self.first is None else self.first
        last = self.last
        if last is None:
            last = high if self.first is None or self.step is not None else first
        if cycle is None:
            return tuple(range(first, last + 1, self.step or 1))
        if first > last:
            last += cycle
        each = ((value - low) % cycle + low for value in range(first, last + 1, self.step or 1))
        return tuple(dict.fromkeys(each))

    def text(self) -> str:
        """Write the item in digits, as both evaluators read it.

        A wrapped range becomes a list. So does a range of one value: cronsim reads ``0-0/5`` as
        ``0/5``, and APScheduler refuses it.
        """
        if self.first is not None and (self.wraps or len(self.values()) == 1):
            return ",".join(map(str, self.values()))
        head = "*" if self.first is None else str(self.first)
        tail = "" if self.last is None else f"-{self.last}"
        return head + tail + ("" if self.step is None else f"/{self.step}")


def split_items(text: str, *, where: str) -> list[str]:
    """Split a field's list into lower-case items; an empty one is refused."""
    items = [item.strip().lower() for item in text.split(",")]
    if items == [""]:
        raise InvalidScheduleError(f"{where} is empty; write * for every value")
    if "" in items:
        position = items.index("") + 1
        raise InvalidScheduleError(
            f"{where}, item {position} of the list is empty; remove the extra comma"
        )
    return items


def parse_item(text: str, *, field: FieldRange, where: str) -> Item:
    """Read one lower-case item; ``where`` begins the sentence of a refusal."""
    match = _ITEM.fullmatch(text)
    if match is None:
        raise InvalidScheduleError(_not_an_item(text, field, where))
    first_text, last_text, step_text = match.group("first", "last", "step")
    if first_text == "*" and last_text is not None:
        raise InvalidScheduleError(f"{where}: a range cannot start with *; write * alone")
    item = Item(
        field=field,
        first=None if first_text == "*" else parse_value(first_text, field=field, where=where),
        last=None if last_text is None else parse_value(last_text, field=field, where=where),
        step=None if step_text is None else int(step_text),
    )
    if item.step == 0:
        raise InvalidScheduleError(f"{where}: the step after / must be at least 1")
    if item.wraps and field.cycle is None:
        raise InvalidScheduleError(f"{where}: the range ends before it begins; swap its ends")
    return item


def parse_value(text: str, *, field: FieldRange, where: str) -> int:
    """Read a number or a name of the field."""
    if text in field.names:
        return field.names.index(text) + field.names_from
    if not text.isdecimal():
        raise InvalidScheduleError(f"{where}: {_unknown_name(text, field)}")
    value = int(text)
    if not field.lowest <= value <= field.highest:
        raise InvalidScheduleError(f"{where}: a number lies outside {field.lowest}-{field.highest}")
    return value


def _not_an_item(text: str, field: FieldRange, where: str) -> str:
    if "?" in text:
        return f"{where}: ? is not understood; write * for every value"
    return (
        f"{where}: not understood; write a value {field.lowest}-{field.highest}, "
        "a range such as 1-5, * for every value, or one of these with a step such as */2"
    )


def _unknown_name(text: str, field: FieldRange) -> str:
    if not field.names:
        return f"{field.label} takes numbers {field.lowest}-{field.highest}, not names"
    short = text[:3]
    if short in field.names:
        return f"unknown name; did you mean {short}?"
    return f"unknown name; use {', '.join(field.names)}"
