"""The command line: ``myscheduler``, also ``python -m app``.

Exit codes: 0 done, 1 it could not be done (one sentence says why), 2 the command or the
configuration is wrong. One module per group of commands. Only what every command needs is imported
at the top of them: ``--help`` and ``version`` answer before the libraries of the service would be
loaded.
"""

import io
import sys

import typer

from app.cli import data, explaining, ledger, moving, schedules, serving, settings

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
_app.command()(serving.serve)
_app.add_typer(serving.scheduler)
_app.add_typer(serving.worker)
_app.command()(data.migrate)
_app.command()(moving.move)
_app.command()(data.backup)
_app.command()(data.check)
_app.command()(ledger.verify)
_app.command()(settings.config)
_app.command()(settings.version)
_app.command()(explaining.explain)
_app.command("next")(schedules.show_next)
_app.command()(schedules.dst_report)


def main() -> None:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A value that the terminal's encoding lacks is escaped, as it already is on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    _app(prog_name="myscheduler")
