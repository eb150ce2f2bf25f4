"""What the commands print, and how they end. Loads rich only when something is printed with it."""

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, NoReturn

import typer

from app.domain.errors import SchedulerError

FAILED = 1
MISUSED = 2
# Elsewhere than on a terminal, a row is a line: wide enough for grep.
PIPED_WIDTH = 200
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def fail(error: SchedulerError) -> NoReturn:
    """End with 1 and the error's sentence."""
    typer.echo(str(error), err=True)
    raise typer.Exit(FAILED) from error


def print_notes(*, problems: Sequence[str], warnings: Iterable[str]) -> None:
    """List on stderr what is wrong, a line each; none of it is taken for markup."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        console.print(Text(f"The configuration has {len(problems)} {noun}:", style="bold red"))
    for problem in problems:
        console.print(Text(f"  - {problem}"))
    for warning in warnings:
        console.print(Text.assemble(("Warning: ", "yellow"), warning))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns; elsewhere than on a terminal, a row is a line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
