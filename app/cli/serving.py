"""``myscheduler serve``, and its two other names among replicas."""

from typing import Annotated, NoReturn, TypeAlias

import typer

from app.cli.printing import fail
from app.cli.settings import load
from app.domain.errors import SchedulerError

_Host: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Address to listen on (HOST; 127.0.0.1)."),
]
_Port: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", help="Port to listen on, 0 for any free one (PORT; 8003)."),
]
_DatabaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where jobs are kept (DATABASE_URL; sqlite:///./data/jobs.db). Other users of "
        "this machine can read flags: give a password in the environment or a file.",
    ),
]
_LogLevel: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR (LOG_LEVEL; INFO)."),
]

scheduler = typer.Typer(
    name="scheduler", no_args_is_help=True, help="One replica that schedules: see run."
)
worker = typer.Typer(name="worker", no_args_is_help=True, help="One replica that sends: see run.")


def serve(
    host: _Host = None,
    port: _Port = None,
    database_url: _DatabaseUrl = None,
    log_level: _LogLevel = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="What this replica does on PostgreSQL: all, api, scheduler or worker "
            "(MYSCHEDULER_ROLE; all).",
        ),
    ] = None,
) -> None:
    """Run the service: the API, the schedule and the deliveries, until stopped.

    The database is made or migrated first. SIGTERM and Ctrl+C stop it after the attempts under way.

    Try it: [bold]myscheduler serve[/bold], then open http://127.0.0.1:8003/docs
    """
    _serve(host, port, database_url, log_level, role)


@scheduler.command("run")
def run_scheduler(
    host: _Host = None,
    port: _Port = None,
    database_url: _DatabaseUrl = None,
    log_level: _LogLevel = None,
) -> None:
    """Run a replica that may lead and does not send: [bold]serve --role scheduler[/bold].

    Needs PostgreSQL, and workers beside it. One such replica leads; the others stand by.
    """
    _serve(host, port, database_url, log_level, "scheduler")


@worker.command("run")
def run_worker(
    host: _Host = None,
    port: _Port = None,
    database_url: _DatabaseUrl = None,
    log_level: _LogLevel = None,
) -> None:
    """Run a replica that sends and never leads: [bold]serve --role worker[/bold].

    Needs PostgreSQL, and a scheduler beside it. As many as the deliveries need.
    """
    _serve(host, port, database_url, log_level, "worker")


def _serve(
    host: str | None,
    port: str | None,
    database_url: str | None,
    log_level: str | None,
    role: str | None,
) -> NoReturn:
    flags = {
        "HOST": host,
        "PORT": port,
        "DATABASE_URL": database_url,
        "LOG_LEVEL": log_level,
        "MYSCHEDULER_ROLE": role,
    }
    settings = load({name: text for name, text in flags.items() if text is not None})
    from app.main import serve as run

    try:
        code = run(settings)
    except SchedulerError as error:
        fail(error)
    raise typer.Exit(code)
