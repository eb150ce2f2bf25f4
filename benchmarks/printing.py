"""What every command shares: its common flags, the progress bars, a table or JSON."""

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.figures import to_json, to_rows

T = TypeVar("T")

# Elsewhere than on a terminal a table is not folded.
_PIPED_WIDTH = 200

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="A PostgreSQL server, on which a database is made and removed; else a SQLite file.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--setting", help="NAME=VALUE for the service's environment; repeatable."),
]
HostConcurrency = Annotated[int, typer.Option(min=1, help="Attempts at once against one host.")]


def read_settings(given: Sequence[str] | None, **defaults: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` over defaults. Raises ``typer.BadParameter``."""
    settings = dict(defaults)
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text} is not NAME=VALUE")
        settings[name] = value
    return settings


def open_bars() -> Progress:
    """Make the progress bars; they are drawn on standard error."""
    return Progress(console=Console(stderr=True))


def measure(scenario: Callable[[Progress], Awaitable[T]]) -> T:
    """Run a scenario with its progress bars; if it cannot be measured, end the program with 1."""

    async def run(progress: Progress) -> T:
        return await scenario(progress)

    try:
        with open_bars() as progress:
            return uvloop.run(run(progress))
    except RuntimeError as error:
        typer.echo(f"not measured: {error}", err=True)
        raise typer.Exit(1) from error


def show(title: str, result: Any, *, as_json: bool) -> None:
    """Print a result's figures: JSON in one line, or a table."""
    show_rows(title, result, to_rows(result), as_json=as_json)


def show_rows(title: str, result: Any, rows: Iterable[tuple[str, str]], *, as_json: bool) -> None:
    """Print a result as JSON in one line, or as a table of its own rows."""
    if as_json:
        print(json.dumps(to_json(result)))
    else:
        print_table(title, ("figure", "value"), list(rows))


def show_list(title: str, results: list[Any], *, as_json: bool) -> None:
    """Print results of one kind: JSON, or a table with a row for each."""
    if as_json:
        print(json.dumps(to_json(results)))
        return
    names = [field.name.replace("_", " ") for field in fields(results[0])]
    rows = [tuple(text for _, text in to_rows(result)) for result in results]
    print_table(title, names, rows)


def print_table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; all columns but the first are figures."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)
