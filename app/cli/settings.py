"""``myscheduler config`` and ``version``, and the settings that the other commands run with."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app import __version__
from app.cli.printing import MISUSED, PIPED_WIDTH, AsJson, print_notes

if TYPE_CHECKING:
    from app.core.config import SettingRow, Settings

_ENV_FILE = Path(".env")


def load(flags: Mapping[str, str]) -> "Settings":
    """Read the settings; end with 2 and every problem if they cannot be used."""
    from app.core.config import ConfigError, load_settings

    try:
        settings = load_settings(os.environ, env_file=_ENV_FILE, flags=flags)
    except ConfigError as error:
        print_notes(problems=error.problems, warnings=error.warnings)
        raise typer.Exit(MISUSED) from error
    print_notes(problems=(), warnings=settings.warnings)
    return settings


def config(*, as_json: AsJson = False) -> None:
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
        print_notes(problems=survey.problems, warnings=survey.warnings)
    if survey.problems:
        raise typer.Exit(MISUSED)


def version(*, as_json: AsJson = False) -> None:
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


def _print_rows(rows: "Iterable[SettingRow]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Elsewhere than on a terminal, a row is a line: wide enough for grep.
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
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
