"""``myscheduler serve``."""

from typing import Annotated

import typer

from app.cli.printing import fail
from app.cli.settings import load
from app.domain.errors import SchedulerError


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
    settings = load({name: text for name, text in flags.items() if text is not None})
    from app.main import serve as run

    try:
        code = run(settings)
    except SchedulerError as error:
        fail(error)
    raise typer.Exit(code)
