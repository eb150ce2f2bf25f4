"""What is done with the database beside serving from it: ``migrate``, ``backup``, ``check``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.cli.printing import FAILED, AsJson, fail, print_table
from app.cli.settings import load
from app.domain.errors import SchedulerError

_MEBIBYTE = 2**20


def migrate() -> None:
    """Bring the database to this version's schema, and exit.

    [bold]serve[/bold] does the same at start; run this before it where only an administrator's
    DATABASE_URL may change the schema.

    Safe to repeat, and safe while another process does the same.
    """
    settings = load({})
    from app.main import migrate as run

    try:
        revisions = run(settings)
    except SchedulerError as error:
        fail(error)
    for revision in revisions:
        typer.echo(f"Applied {revision}")
    if not revisions:
        typer.echo("The schema is up to date")


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file to write.")],
) -> None:
    """Copy the database to a new file, while the service runs or not.

    The copy is consistent and checked. To restore it, stop the service and put the file where
    DATABASE_URL points, with no -wal or -shm file beside it.

    Try it: [bold]myscheduler backup jobs-backup.db[/bold]
    """
    settings = load({})
    from app.main import backup as run

    try:
        made = run(settings, file)
    except SchedulerError as error:
        fail(error)
    typer.echo(
        f"Wrote {made.path} ({made.size_bytes / _MEBIBYTE:.1f} MiB, checked): "
        f"jobs {made.jobs}, executions {made.executions}, schema {made.revision}"
    )


def check(*, as_json: AsJson = False) -> None:
    """Check that the database is whole, and that every due run is accounted for.

    Nothing is changed. [bold]myscheduler verify[/bold] names what is missing, and proves a part.

    The service may be running. Exits with 1 if a check finds something wrong.
    """
    settings = load({})
    from app.main import check as run

    try:
        findings = run(settings)
    except SchedulerError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [(one.name, "ok" if one.well else "WRONG", one.detail) for one in findings]
        print_table(("Check", "Result", "Detail"), rows)
    if not all(finding.well for finding in findings):
        raise typer.Exit(FAILED)
