"""Figures of this machine, at this moment: ``python -m benchmarks run NAME [--json]``.

Without a command a short suite runs; ``compare`` measures other schedulers beside ours, and
``scale`` reckons what clusters carry. Compare ratios of runs made together; single figures of a
shared machine say little. docs/performance.md says what each figure means.
"""

import typer

from benchmarks import (
    compare,
    creation,
    fairness,
    herd,
    history,
    hostile,
    interval,
    lone,
    overload,
    parts,
    replicas,
    retries,
    scale,
    slow_disk,
    slow_targets,
    soak,
    stored,
    suite,
    verify,
)
from benchmarks.printing import AsJson

app = typer.Typer(help=__doc__, no_args_is_help=False)
run = typer.Typer(help="Measure one scenario.", no_args_is_help=True)
app.add_typer(run, name="run")
for name, scenario in {
    "herd": herd,
    "lone": lone,
    "interval": interval,
    "overload": overload,
    "retries": retries,
    "creation": creation,
    "api": fairness,
    "slow-targets": slow_targets,
    "slow-disk": slow_disk,
    "stored": stored,
    "history": history,
    "verify": verify,
    "hostile": hostile,
    "soak": soak,
    "parts": parts,
    "replicas": replicas,
}.items():
    run.command(name)(scenario.command)
app.command("compare")(compare.command)
app.command("scale")(scale.command)


@app.callback(invoke_without_command=True)
def default(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Without a command: the short suite."""
    if context.invoked_subcommand is None:
        suite.command(as_json=as_json)


if __name__ == "__main__":
    app()
