"""``python -m benchmarks run herd --jobs 1000 [--json]``: figures of this machine, at this moment.

Compare ratios of runs made together; single figures of a shared machine say little.
"""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.herd import as_rows, run_herd

app = typer.Typer(help=__doc__, no_args_is_help=False)


class Scenario(StrEnum):
    """What can be measured."""

    HERD = "herd"


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: a herd of a thousand."""
    if context.invoked_subcommand is None:
        run(Scenario.HERD)


@app.command()
def run(
    scenario: Annotated[Scenario, typer.Argument(help="What to measure.")],
    jobs: Annotated[int, typer.Option(min=1, max=100_000, help="One-off jobs due at once.")] = 1000,
    host_concurrency: Annotated[int, typer.Option(min=1, help="Attempts at once.")] = 200,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure one scenario."""
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        result = run_herd(jobs, host_concurrency=host_concurrency, progress=progress)
    if as_json:
        print(json.dumps(asdict(result)))
        return
    table = Table(title=f"{scenario.value}: {jobs} jobs due at one instant")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in as_rows(result):
        table.add_row(name, value)
    Console().print(table)


if __name__ == "__main__":
    app()
