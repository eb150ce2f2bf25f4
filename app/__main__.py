"""The command line: ``myscheduler``, also ``python -m app``.

Exit codes: 0 done, 1 it could not be done (one sentence says why), 2 the command or the
configuration is wrong. Only what every command needs is imported here: ``--help`` and ``version``
answer before the libraries of the service would be loaded.
"""

import io
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app import __version__
from app.domain.errors import SchedulerError

if TYPE_CHECKING:
    from app.core.config import SettingRow, Settings

_ENV_FILE = Path(".env")
_FAILED = 1
_MISUSED = 2
_PIPED_WIDTH = 200

_EPILOG = (
    "Settings are read from .env, then the environment, then flags; the later wins. "
    "Each variable NAME may instead be given as NAME_FILE, the path of a file that holds "
    "the value. [bold]myscheduler config[/bold] lists them all."
)

_app = typer.Typer(
    name="myscheduler",
    help="A self-hosted scheduler for HTTP webhooks: every due run is made, retried sensibly, "
    "and accounted for.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # Their tracebacks print local variables, which hold secrets.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A value that the terminal's encoding lacks is escaped, as it already is on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    _app(prog_name="myscheduler")


@_app.command()
def serve(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address to listen on (HOST; 127.0.0.1)."),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Port to listen on, 0 for any free one (PORT; 8003)."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where jobs are kept (DATABASE_URL; sqlite:///./data/jobs.db). Other users of "
            "this machine can read flags: give a password in the environment or a file.",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR (LOG_LEVEL; INFO)."),
    ] = None,
) -> None:
    """Run the service: the API, the schedule and the deliveries, until stopped.

    The database is made or migrated first. SIGTERM and Ctrl+C stop it after the attempts under way.

    Try it: [bold]myscheduler serve[/bold], then open http://127.0.0.1:8003/docs
    """
    flags = {"HOST": host, "PORT": port, "DATABASE_URL": database_url, "LOG_LEVEL": log_level}
    settings = _load({name: text for name, text in flags.items() if text is not None})
    from app.main import serve as run

    try:
        code = run(settings)
    except SchedulerError as error:
        _fail(error)
    raise typer.Exit(code)


@_app.command()
def migrate() -> None:
    """Bring the database to this version's schema, and exit.

    [bold]serve[/bold] does the same at start; run this before it where only an administrator's
    DATABASE_URL may change the schema.

    Safe to repeat, and safe while another process does the same.
    """
    settings = _load({})
    from app.main import migrate as run

    try:
        revisions = run(settings)
    except SchedulerError as error:
        _fail(error)
    for revision in revisions:
        typer.echo(f"Applied {revision}")
    if not revisions:
        typer.echo("The schema is up to date")


@_app.command()
def config(*, as_json: _AsJson = False) -> None:
    """Show every setting: its value, and where that came from.

    Passwords are masked. Exits with 2, and says why, if the configuration cannot be used.
    """
    from app.core.config import survey_settings

    survey = survey_settings(os.environ, env_file=_ENV_FILE)
    if as_json:
        shown = {
            "settings": [asdict(row) for row in survey.rows],
            "problems": survey.problems,
            "warnings": survey.warnings,
        }
        typer.echo(json.dumps(shown, indent=2))
    else:
        _print_rows(survey.rows)
        _print_notes(problems=survey.problems, warnings=survey.warnings)
    if survey.problems:
        raise typer.Exit(_MISUSED)


@_app.command()
def version(*, as_json: _AsJson = False) -> None:
    """Show the version of this program and of Python."""
    versions = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
    if as_json:
        typer.echo(json.dumps(versions))
    else:
        typer.echo(
            f"myscheduler {versions['version']} "
            f"(Python {versions['python']}, {versions['platform']})"
        )


def _load(flags: Mapping[str, str]) -> "Settings":
    from app.core.config import ConfigError, load_settings

    try:
        settings = load_settings(os.environ, env_file=_ENV_FILE, flags=flags)
    except ConfigError as error:
        _print_notes(problems=error.problems, warnings=error.warnings)
        raise typer.Exit(_MISUSED) from error
    _print_notes(problems=(), warnings=settings.warnings)
    return settings


def _print_notes(*, problems: Sequence[str], warnings: Iterable[str]) -> None:
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


def _print_rows(rows: "Iterable[SettingRow]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Elsewhere than on a terminal, a row is a line: wide enough for grep.
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    for row in rows:
        style = "dim" if row.origin == "default" else ""
        source = f"{row.origin} {row.place}" if row.origin == "file" else str(row.origin)
        cells = (row.name, _format_value(row), source)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)


def _format_value(row: "SettingRow") -> str:
    match row.value:
        case str():
            return row.value
        case list():
            return ", ".join(row.value)
        case _:
            return f"{json.dumps(row.value)} {row.unit}".strip()


def _fail(error: SchedulerError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(_FAILED) from error


if __name__ == "__main__":
    main()
