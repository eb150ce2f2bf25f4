"""``myscheduler move``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app.cli.printing import MISUSED, AsJson, fail, print_table
from app.cli.settings import load
from app.domain.errors import SchedulerError

if TYPE_CHECKING:
    from app.core.config import Settings


def move(
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="The SQLite file; DATABASE_URL if left out."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="URL",
            help="The PostgreSQL database, itself and not a proxy that pools; if left out, "
            "MYSCHEDULER_DATABASE_DIRECT_URL or DATABASE_URL. Other users of this machine can "
            "read flags: give a password in the environment or a file.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move jobs, their revisions and the whole history from SQLite to PostgreSQL.

    Stop the service first. Ids and counters are kept, and both sides are compared at the end. The
    SQLite file is only read: it stays as a backup, but must not be served from any more.

    Safe to repeat: an interrupted move goes on where it stopped.

    Try it: [bold]myscheduler move --from sqlite:///data/jobs.db --to postgresql://…[/bold]
    """
    settings = load({})
    from app.db.move import MoveOutcome
    from app.main import move as run

    addresses = _check(source, target, settings)
    try:
        moved = run(settings, *addresses)
    except SchedulerError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(asdict(moved), indent=2))
        return
    rows = [(name, str(one.rows), one.digest) for name, one in moved.sums.items()]
    print_table(("Table", "Rows", "Checksum of both"), rows)
    if moved.outcome is MoveOutcome.NOTHING_TO_DO:
        typer.echo("This was moved already; there is nothing to do")
    else:
        typer.echo(
            "Everything is moved. Let DATABASE_URL name the new database, start the service, and "
            "never serve from the SQLite file again: its jobs would run twice"
        )


def _check(source: str | None, target: str | None, settings: "Settings") -> tuple[str, str]:
    """Return both addresses, or end with 2."""
    from app.core.database_url import check_database_url, check_direct_url

    source = source or settings.database_url
    target = target or settings.session_url
    for flag, check, url in (
        ("--from", check_database_url, source),
        ("--to", check_direct_url, target),
    ):
        try:
            check(url)
        except ValueError as error:
            _misused(f"{flag} {error}")
    if not source.startswith("sqlite"):
        _misused("--from must be an SQLite file: sqlite:///path/to/jobs.db")
    return source, target


def _misused(problem: str) -> NoReturn:
    typer.echo(problem, err=True)
    raise typer.Exit(MISUSED)
