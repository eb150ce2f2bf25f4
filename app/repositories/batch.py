"""Many rows as one parameter, and as one answer, so that a statement is one call of the database.

Row by row, each call of SQLite costs a turn of the interpreter's lock, and on PostgreSQL a message.
A batch is one JSON text; the statement reads it as a table (SQLite: ``json_each``, PostgreSQL:
``jsonb_array_elements``) whose columns have names and types. May import SQLAlchemy only.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_TEXT = sa.Text()
_INTEGER = sa.BigInteger()
# Rows of a long answer that come together: some milliseconds of reading and making objects.
_PIECE = 1000


class Batch:
    """A table of rows that come with the call: ``rows.c.name`` in the statement.

    ``text`` columns come first in each row, then the ``integers``. Any value may be None.
    """

    def __init__(self, *, text: Sequence[str] = (), integers: Sequence[str] = ()) -> None:
        self.names = (*text, *integers)
        elements = _Elements if len(self.names) == 1 else _KeptElements
        self._table = elements(sa.bindparam("batch", type_=_TEXT)).table_valued(
            sa.column("value"), name="batch"
        )
        self._columns = {
            name: (_TextAt if place < len(text) else _IntegerAt)(
                self._table.c.value, sa.literal_column(str(place))
            )
            for place, name in enumerate(self.names)
        }

    @property
    def table(self) -> Any:
        """The rows, where a statement names its tables."""
        return self._table

    def __getitem__(self, name: str) -> Any:
        """A column, where a statement computes."""
        return self._columns[name]

    def holds(self, column: Any, name: str) -> Any:
        """Say that a row of the batch has a table's column as its ``name``."""
        return _Holds(column, self._selected(name))

    def joins(self, column: Any, name: str) -> Any:
        """Say that the batch's row has a table's column as its ``name``, where both are joined."""
        return sa.and_(column == self._columns[name], _LookedUp(column, self._selected(name)))

    def _selected(self, name: str) -> Any:
        rows = sa.select(self._columns[name]).select_from(self._table)
        return rows.correlate(None).scalar_subquery()


class Gathered:
    """A statement whose rows come as one, in one call of the database.

    SQLite gives the interpreter's lock away for every row that it steps to, and has to wait for it
    again; as one JSON text, rows cost that once. Columns are texts, integers and None.
    """

    def __init__(self, statement: sa.Select[Any]) -> None:
        self._rows = statement
        columns = statement.subquery("gathered").c
        self._text = sa.select(sa.func.json_group_array(sa.func.json_array(*columns)))

    def fetch(self, connection: Any, values: dict[str, object]) -> Sequence[Sequence[Any]]:
        """Run it and tell its rows, in any order."""
        found: Sequence[Sequence[Any]]
        if connection.dialect.name == "sqlite":
            found = json.loads(connection.execute(self._text, values).scalar_one())
        else:
            found = connection.execute(self._rows, values).fetchall()
        return found


class LongAnswer:
    """A statement with thousands of rows, which come a thousand at a time.

    All at once they would keep everybody else from the interpreter for as long as they are read,
    one at a time SQLite would give its lock away for each. Columns are texts, integers and None.
    """

    def __init__(self, statement: sa.Select[Any], *, order: str) -> None:
        """``order``: the column by which the statement orders its rows."""
        self._rows = statement.order_by(statement.selected_columns[order])
        rows = self._rows.subquery("gathered")
        place = sa.func.row_number().over(order_by=rows.c[order]).label("place")
        numbered = sa.select(place, *rows.c).subquery("numbered")
        size = sa.literal_column(str(_PIECE), _INTEGER)
        piece = (numbered.c.place - sa.literal_column("1", _INTEGER)) // size
        text = sa.func.json_group_array(sa.func.json_array(*numbered.c))
        self._pieces = sa.select(text).group_by(piece)

    def fetch(
        self, connection: Any, values: dict[str, object]
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Run it and tell its rows in their order, piece by piece."""
        if connection.dialect.name == "sqlite":
            for text in connection.execute(self._pieces, values).scalars():
                yield [row[1:] for row in sorted(json.loads(text), key=itemgetter(0))]
        else:
            piecewise = {"yield_per": _PIECE}
            found = connection.execute(self._rows, values, execution_options=piecewise)
            yield from found.partitions()


def parameters(rows: Sequence[Sequence[object]], **others: object) -> dict[str, object]:
    """Make the parameters of a statement over a batch; ``others`` are the same for all rows."""
    return {"batch": json.dumps(rows), **others}


def id_parameters(ids: Iterable[str], **others: object) -> dict[str, object]:
    """Make the parameters of a statement over ``IDS``."""
    return parameters([(one,) for one in ids], **others)


class _Elements(FunctionElement[Any]):
    """The elements of a JSON array, a row each."""

    inherit_cache = True


class _KeptElements(_Elements):
    """The same, for elements of which several columns are taken.

    Read through, SQLite's table writes an element out anew for each column taken from it; the limit
    makes rows of their own of them.
    """

    inherit_cache = True


class _TextAt(FunctionElement[str]):
    """The text at a place of an element."""

    type = _TEXT
    inherit_cache = True


class _IntegerAt(FunctionElement[int]):
    """The integer at a place of an element."""

    type = _INTEGER
    inherit_cache = True


class _Holds(FunctionElement[bool]):
    """Whether a column's value is among those of a subquery."""

    # No Boolean: for SQLite that is compared with 1, and then the planner reads the whole table.
    type: Any = sa.types.NULLTYPE
    inherit_cache = True


class _LookedUp(_Holds):
    """The same once more, where a join says it already: PostgreSQL might join by reading it all.

    It takes a batch for a hundred rows, an array for ten.
    """

    inherit_cache = True


IDS = Batch(text=("id",))
"""Rows of an id each, for statements about many jobs or executions."""


@compiles(_Elements, "sqlite")
def _sqlite_elements(element: _Elements, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_KeptElements, "sqlite")
def _sqlite_kept_elements(element: _KeptElements, compiler: Any, **options: Any) -> str:
    given = compiler.process(element.clauses, **options)
    return f"(SELECT value FROM json_each({given}) LIMIT -1)"  # noqa: S608 - compiled, no text of users


@compiles(_Elements, "postgresql")
@compiles(_KeptElements, "postgresql")
def _postgres_elements(element: _Elements, compiler: Any, **options: Any) -> str:
    # An element of JSON (not JSONB) would be parsed anew for each column taken from it.
    return f"jsonb_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSONB))"


@compiles(_TextAt, "sqlite")
@compiles(_IntegerAt, "sqlite")
def _sqlite_at(element: FunctionElement[Any], compiler: Any, **options: Any) -> str:
    value, place = (compiler.process(clause, **options) for clause in element.clauses)
    return f"json_extract({value}, '$[{place}]')"


@compiles(_TextAt, "postgresql")
def _postgres_text_at(element: _TextAt, compiler: Any, **options: Any) -> str:
    value, place = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({value} ->> {place})"


@compiles(_IntegerAt, "postgresql")
def _postgres_integer_at(element: _IntegerAt, compiler: Any, **options: Any) -> str:
    value, place = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST({value} ->> {place} AS BIGINT)"


@compiles(_Holds, "sqlite")
def _sqlite_holds(element: _Holds, compiler: Any, **options: Any) -> str:
    column, selected = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN {selected}"


@compiles(_LookedUp, "sqlite")
def _sqlite_looked_up(_element: _LookedUp, _compiler: Any, **_options: Any) -> str:
    return "1"


@compiles(_Holds, "postgresql")
@compiles(_LookedUp, "postgresql")
def _postgres_holds(element: _Holds, compiler: Any, **options: Any) -> str:
    # As an array it is looked up in the index; as a table it would be joined, at times by a scan.
    column, selected = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY (ARRAY{selected})"
