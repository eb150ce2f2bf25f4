"""Why a job did or did not run: ``myscheduler explain``."""

from typing import Annotated, Literal

import typer

from app.cli.printing import MISUSED, AsJson, fail
from app.cli.settings import load
from app.domain.errors import InvalidError, SchedulerError


def explain(
    job_id: Annotated[str, typer.Argument(metavar="JOB_ID", help="The job.")],
    *,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="When, in ISO 8601, by the job's own clock (now)."
        ),
    ] = None,
    language: Annotated[
        Literal["en", "ja"], typer.Option("--lang", help="The language of the sentence.")
    ] = "en",
    as_json: AsJson = False,
) -> None:
    """Say why a job did, did not, will or will not run at a time.

    The database is only read; the service may be running.

    Try it: [bold]myscheduler explain health-check --at 2026-11-22T09:00[/bold]
    """
    settings = load({})
    from app.main import explain as run
    from app.schemas.explain_answer import to_explain

    try:
        answer = to_explain(run(settings, job_id, at))
    except InvalidError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSED) from error
    except SchedulerError as error:
        fail(error)
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, by_alias=True))
    else:
        typer.echo(getattr(answer.sentence, language))
