"""What schedules mean: ``myscheduler next`` and ``dst-report``."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.printing import MISUSED, AsJson, fail, print_table
from app.cli.settings import load
from app.domain.errors import InvalidError, SchedulerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.schemas.schedule_answer import JobTransitionsAnswer, PreviewAnswer, TransitionAnswer

# A report names so many local times of a transition; JSON has them all.
_SHOWN = 5
_FIRST = {"en": "First", "ja": "初回"}

_Language = Annotated[
    Literal["en", "ja"], typer.Option("--lang", help="The language of sentences.")
]


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
    as_json: AsJson = False,
) -> None:
    """Show what a schedule means and when it fires next; no database is needed.

    Try it: [bold]myscheduler next "0 9 * * mon-fri" --tz Asia/Tokyo[/bold]
    """
    from app.domain.clock import SystemClock
    from app.schemas.schedule_line import ScheduleLine, preview_line

    zone = zone or load({}).timezone
    asked = ScheduleLine(line=line, every=every, zone=zone, begin=begin)
    try:
        answer = preview_line(asked, count=count, now=SystemClock().now().replace(microsecond=0))
    except InvalidError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSED) from error
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _print_preview(answer, language, says_when=begin is None)


def dst_report(
    *,
    year: Annotated[
        int | None,
        typer.Option(min=1971, max=2198, metavar="YEAR", help="The year to look at (this one)."),
    ] = None,
    language: _Language = "en",
    as_json: AsJson = False,
) -> None:
    """Show what each stored job does where its zone's clock jumps in a year.

    The database is only read; the service may be running.
    """
    settings = load({})
    from app.main import report_transitions
    from app.schemas.schedule_answer import to_job_transitions

    try:
        found = report_transitions(settings, year=year)
    except SchedulerError as error:
        fail(error)
    jobs = [to_job_transitions(job) for job in found]
    if as_json:
        typer.echo(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2))
    else:
        _print_report(jobs, language)


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
    print_table(("UTC", "Local", "Note"), [row[1:] for row in rows])
    if answer.dropped_omitted:
        typer.echo(f"and {answer.dropped_omitted} more local times that do not exist")
    if says_when and answer.first_fires_in is not None:
        typer.echo(f"{_FIRST[language]}: {getattr(answer.first_fires_in, language)}")


def _print_report(jobs: "Sequence[JobTransitionsAnswer]", language: str) -> None:
    rows = [row for job in jobs for row in _report_rows(job, language)]
    print_table(("Job", "Status", "Zone", "Clock jumps", "What happens"), rows)
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
