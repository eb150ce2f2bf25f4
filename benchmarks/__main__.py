"""``python -m benchmarks run herd --jobs 1000 [--json]``: figures of this machine, at this moment.

Also ``python -m benchmarks run hostile [--kind NAME] [--seconds N] [--same-host] [--json]``,
``python -m benchmarks run verify [--rows N] [--jobs N] [--json]`` and
``python -m benchmarks run history [--rows N] [--jobs N] [--json]``.
Compare ratios of runs made together; single figures of a shared machine say little.
"""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.herd import as_rows, run_herd
from benchmarks.history import as_rows as history_rows
from benchmarks.history import run_history
from benchmarks.history_rows import Size
from benchmarks.hostile import KINDS, HostileOptions, HostileRow, run_hostile
from benchmarks.verify import as_rows as verify_rows
from benchmarks.verify import run_verify

app = typer.Typer(help=__doc__, no_args_is_help=False)
run = typer.Typer(help="Measure one scenario.")
app.add_typer(run, name="run")
# Elsewhere than on a terminal a table is not folded.
_PIPED_WIDTH = 200
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COLUMNS = (
    "quiet_p50_ms",
    "quiet_p99_ms",
    "p50_ms",
    "p99_ms",
    "api_p99_ms",
    "memory_mib",
    "cpu_percent",
    "attempts",
    "overdue",
    "longest_ms",
)


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: a herd of a thousand."""
    if context.invoked_subcommand is None:
        herd()


@run.command()
def herd(
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="Jobs due at once.")] = 1000,
    host_concurrency: Annotated[int, typer.Option(min=1, help="Attempts at once.")] = 200,
    *,
    as_json: _AsJson = False,
) -> None:
    """Measure a herd: many jobs due at one instant."""
    with Progress(console=Console(stderr=True)) as progress:
        result = run_herd(jobs, host_concurrency=host_concurrency, progress=progress)
    title = f"herd: {jobs} jobs due at one instant"
    _show(title, asdict(result), as_rows(result), as_json=as_json)


@run.command()
def history(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the history.")] = 1_000_000,
    jobs: Annotated[int, typer.Option(min=10, help="Jobs beside those with history.")] = 1000,
    *,
    as_json: _AsJson = False,
) -> None:
    """Measure pages of a large history and list, and what pruning costs the API."""
    with Progress(console=Console(stderr=True)) as progress:
        result = run_history(Size(rows=rows, jobs=jobs), progress=progress)
    title = f"history: {rows} rows, {jobs} jobs"
    _show(title, asdict(result), history_rows(result), as_json=as_json)


@run.command()
def verify(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the ledger.")] = 1_000_000,
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="Jobs they belong to.")] = 100,
    *,
    as_json: _AsJson = False,
) -> None:
    """Measure the proof of a large ledger, in which one row is missing."""
    with Progress(console=Console(stderr=True)) as progress:
        result = run_verify(rows, jobs=jobs, progress=progress)
    title = f"verify: {rows} rows of {jobs} jobs"
    _show(title, asdict(result), verify_rows(result), as_json=as_json)


@run.command()
def hostile(
    host_concurrency: Annotated[int, typer.Option(min=1, help="Attempts at once.")] = 200,
    kind: Annotated[list[str] | None, typer.Option(help="Only this; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Time per kind.")] = 6,
    *,
    same_host: Annotated[bool, typer.Option("--same-host", help="One host for all.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Measure innocent jobs beside hostile ones; a row that fails makes the exit code 1."""
    unknown = sorted(set(kind or ()) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(KINDS)}")
    options = HostileOptions(
        kinds=kind or KINDS,
        seconds=seconds,
        host_concurrency=host_concurrency,
        same_host=same_host,
    )
    with Progress(console=Console(stderr=True)) as progress:
        rows = run_hostile(options, progress=progress)
    _show_hostile(rows, as_json=as_json)
    sys.exit(any(row.failures for row in rows))


def _show(
    title: str, figures: dict[str, object], rows: list[tuple[str, str]], *, as_json: bool
) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in rows:
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)


def _show_hostile(rows: list[HostileRow], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) | {"failures": row.failures} for row in rows]))
        return
    table = Table(title="hostile: innocent lateness, without and with 50 hostile jobs beside")
    table.add_column("kind", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("outcome")
    table.add_column("verdict")
    for row in rows:
        figures = [f"{getattr(row, name):g}" for name in _COLUMNS]
        table.add_row(row.kind, *figures, row.outcome, ", ".join(row.failures) or "pass")
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(table)
    passed = sum(not row.failures for row in rows)
    print(f"{passed} of {len(rows)} kinds pass")


if __name__ == "__main__":
    app()
