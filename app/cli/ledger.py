"""The proof of the ledger: ``myscheduler verify``."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.printing import FAILED, MISUSED, AsJson, fail, print_table
from app.cli.settings import load
from app.domain.errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.engine.auditor import AuditRequest
    from app.schemas.ledger_answer import UnaccountedAnswer, VerifyAnswer


def verify(
    *,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Only instants from then on, in ISO 8601."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Only instants before then.")
    ] = None,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this job, deleted or not.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that every due instant has its row in the ledger, and has it once.

    The due instants are computed again from the stored revisions of the jobs. The database is only
    read; the service may be running. Exits with 1 if something is missing or there twice.
    """
    settings = load({})
    from app.main import verify as run
    from app.schemas.ledger_answer import to_verify_answer

    request = _read_request(since, until, job, zone=settings.timezone)
    try:
        audit = run(settings, request)
    except SchedulerError as error:
        fail(error)
    answer = to_verify_answer(audit, request.span, settings.timezone)
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, by_alias=True))
    else:
        _print_answer(answer)
    if not answer.proven:
        raise typer.Exit(FAILED)


def _read_request(
    since: str | None, until: str | None, job: str | None, *, zone: str
) -> "AuditRequest":
    from pydantic import ValidationError

    from app.schemas.history_request import QueryError
    from app.schemas.ledger_request import VerifyRequest

    given = {"from": since, "to": until, "job_id": job}
    try:
        asked = VerifyRequest.model_validate(
            {name: text for name, text in given.items() if text is not None}
        )
        return asked.to_audit(zone)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]).removesuffix("_id")
            typer.echo(f"--{name}: {problem['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(MISUSED) from error
    except QueryError as error:
        typer.echo(f"--{error.parameter}: {error}", err=True)
        raise typer.Exit(MISUSED) from error


def _print_answer(answer: "VerifyAnswer") -> None:
    typer.echo(
        f"{answer.accounted} of {answer.expected} due instants are accounted for "
        f"(jobs {answer.jobs}, revisions {answer.revisions}, {answer.seconds:g} s)"
    )
    rows = list(_rows(answer))
    if rows:
        print_table(("Job", "Revision", "From", "To", "Instants", "Problem"), rows)
    if _is_cut(answer):
        typer.echo("There are more than are listed")
    if answer.unreadable_count:
        typer.echo(
            f"{answer.unreadable_count} revisions cannot be recomputed, the first of job "
            f"{answer.unreadable[0].job_id}: {answer.unreadable[0].problem}"
        )
    if answer.overdue_count:
        typer.echo(
            f"{answer.overdue_count} instants since {answer.overdue_since} are due and not "
            "accounted for yet; the service does that when it runs"
        )
    if answer.pruned_until is not None:
        typer.echo(f"Retention has removed rows up to {answer.pruned_until} or earlier")


def _is_cut(answer: "VerifyAnswer") -> bool:
    listed = sum(found.count for found in (*answer.unaccounted, *answer.duplicates))
    return listed < answer.unaccounted_count + answer.duplicates_count


def _rows(answer: "VerifyAnswer") -> "Iterator[tuple[str, ...]]":
    for missing in answer.unaccounted:
        yield (*_cells(missing), "unaccounted")
    for double in answer.duplicates:
        yield (*_cells(double), double.kind.value)


def _cells(found: "UnaccountedAnswer") -> tuple[str, ...]:
    revision = "" if found.revision is None else str(found.revision)
    return (
        found.job_id,
        revision,
        found.scheduled_for or "",
        found.until or "",
        str(found.count),
    )
