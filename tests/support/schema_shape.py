"""What programs rely on in a schema, and which changes take it from those that are running."""

import re
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_LITERAL = re.compile(r"'[^']*'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column as a program sees it that does not know what it is for."""

    type: str
    nullable: bool
    has_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with all that may refuse a row; ``rules`` are named, checks with their text."""

    columns: dict[str, Column] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)


Shape = dict[str, Table]


def read_shape(connection: Connection) -> Shape:
    """Read the tables that there are."""
    inspector = sa.inspect(connection)
    return {name: _read_table(inspector, name) for name in inspector.get_table_names()}


def narrowings(before: Shape, after: Shape) -> list[str]:
    """List what a program that was written for ``before`` would miss or be refused in ``after``.

    A trigger is for review: its text does not tell whom it refuses.
    """
    found = [f"table {name} is gone" for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        found += _column_narrowings(name, before[name].columns, after[name].columns)
        found += _rule_narrowings(name, before[name].rules, after[name].rules)
    return sorted(found)


def _column_narrowings(
    table: str, before: dict[str, Column], after: dict[str, Column]
) -> list[str]:
    found = [f"column {table}.{name} is gone" for name in before.keys() - after.keys()]
    for name, column in after.items():
        old = before.get(name)
        must_be_given = not (column.nullable or column.has_default)
        if old is None and must_be_given:
            found.append(f"column {table}.{name} must be given, and is new")
        elif old is not None and old.type != column.type:
            found.append(f"column {table}.{name} has another type")
        elif old is not None and must_be_given and (old.nullable or old.has_default):
            found.append(f"column {table}.{name} must be given now")
    return found


def _rule_narrowings(table: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A check may change only by letting more values in."""
    return [
        f"rule {name} of {table} is new or narrower"
        for name, text in after.items()
        if name not in before or not _values(before[name]) <= _values(text)
    ]


def _values(text: str) -> set[str]:
    return set(_LITERAL.findall(text))


def _read_table(inspector: sa.Inspector, name: str) -> Table:
    columns = {
        column["name"]: Column(
            type=str(column["type"]),
            nullable=column["nullable"],
            has_default=column.get("default") is not None or column.get("identity") is not None,
        )
        for column in inspector.get_columns(name)
    }
    unique = [index for index in inspector.get_indexes(name) if index["unique"]]
    rules = [
        *(
            (str(check["name"]), check["sqltext"])
            for check in inspector.get_check_constraints(name)
        ),
        *((str(key["name"]), "") for key in inspector.get_unique_constraints(name)),
        *((str(index["name"]), "") for index in unique),
        *((str(key["name"]), "") for key in inspector.get_foreign_keys(name)),
    ]
    return Table(columns=columns, rules=dict(rules))
