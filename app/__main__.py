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
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from app import __version__
from app.domain.errors import InvalidError, SchedulerError

if TYPE_CHECKING:
    from app.core.config import SettingRow, Settings
    from app.schemas.schedule_answer import JobTransitionsAnswer, PreviewAnswer, TransitionAnswer

_ENV_FILE = Path(".env")
_FAILED = 1
_MISUSED = 2
_PIPED_WIDTH = 200
# A report names so many local times of a transition; JSON has them all.
_SHOWN = 5
_FIRST = {"en": "First", "ja": "初回"}

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
_Language = Annotated[
    Literal["en", "ja"], typer.Option("--lang", help="The language of sentences.")
]


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


@_app.command("next")
def show_next(
    line: Annotated[
        str | None,
        typer.Argument(metavar="SCHEDULE", help="A crontab line or an @macro, in quotes."),
    ] = None,
    *,
    every: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="An interval instead, such as 10m or 1h30m."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--tz", metavar="ZONE", help="An IANA name (TZ; Asia/Tokyo).")
    ] = None,
    count: Annotated[
        int, typer.Option("-n", min=1, max=1000, metavar="NUMBER", help="How many times to show.")
    ] = 5,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Where to begin, in ISO 8601 (now)."),
    ] = None,
    language: _Language = "en",
    as_json: _AsJson = False,
) -> None:
    """Show what a schedule means and when it fires next; no database is needed.

    Try it: [bold]myscheduler next "0 9 * * mon-fri" --tz Asia/Tokyo[/bold]
    """
    from app.domain.clock import SystemClock
    from app.schemas.schedule_line import ScheduleLine, preview_line

    zone = zone or _load({}).timezone
    asked = ScheduleLine(line=line, every=every, zone=zone, begin=begin)
    try:
        answer = preview_line(asked, count=count, now=SystemClock().now().replace(microsecond=0))
    except InvalidError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_MISUSED) from error
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _print_preview(answer, language, says_when=begin is None)


@_app.command()
def dst_report(
    *,
    year: Annotated[
        int | None,
        typer.Option(min=1971, max=2198, metavar="YEAR", help="The year to look at (this one)."),
    ] = None,
    language: _Language = "en",
    as_json: _AsJson = False,
) -> None:
    """Show what each stored job does where its zone's clock jumps in a year.

    The database is only read; the service may be running.
    """
    settings = _load({})
    from app.main import report_transitions
    from app.schemas.schedule_answer import to_job_transitions

    try:
        found = report_transitions(settings, year=year)
    except SchedulerError as error:
        _fail(error)
    jobs = [to_job_transitions(job) for job in found]
    if as_json:
        typer.echo(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2))
    else:
        _print_report(jobs, language)


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


def _print_preview(answer: "PreviewAnswer", language: str, *, says_when: bool) -> None:
    typer.echo(getattr(answer.schedule, language))
    for warning in answer.warnings:
        typer.echo(warning, err=True)
    # A local time that does not exist stands where the clock jumps over it.
    rows = [
        *((at.transition_utc, "-", at.local, getattr(at.note, language)) for at in answer.dropped),
        *(
            (utc, utc, at.scheduled_for_local, getattr(at.note, language, ""))
            for at in answer.occurrences
            if (utc := at.scheduled_for_utc)
        ),
    ]
    rows.sort(key=lambda row: row[0])
    _print_table(("UTC", "Local", "Note"), [row[1:] for row in rows])
    if answer.dropped_omitted:
        typer.echo(f"and {answer.dropped_omitted} more local times that do not exist")
    if says_when and answer.first_fires_in is not None:
        typer.echo(f"{_FIRST[language]}: {getattr(answer.first_fires_in, language)}")


def _print_report(jobs: "Sequence[JobTransitionsAnswer]", language: str) -> None:
    rows = [row for job in jobs for row in _report_rows(job, language)]
    _print_table(("Job", "Status", "Zone", "Clock jumps", "What happens"), rows)
    if not jobs:
        typer.echo("There are no jobs")


def _report_rows(
    job: "JobTransitionsAnswer", language: str
) -> "list[tuple[str, str, str, str, str]]":
    head = (job.job_id, job.status, job.timezone or "")
    if job.problem is not None:
        return [(*head, "", f"unreadable: {job.problem}")]
    if not job.transitions:
        return [(*head, "never", "")]
    return [(*head, *_transition_cells(found, language)) for found in job.transitions]


def _transition_cells(found: "TransitionAnswer", language: str) -> tuple[str, str]:
    jump = f"{found.kind} {found.first_local} to {found.end_local[11:]}"
    fates = [f"{wall.local[11:]} {getattr(wall.note, language)}" for wall in found.walls[:_SHOWN]]
    more = len(found.walls) - len(fates) + found.walls_omitted
    if more:
        fates.append(f"and {more} more")
    return jump, "; ".join(fates) or "not affected"


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
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
