"""The commands of the benchmark program, held against the page that explains them."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.__main__ import app, run
from benchmarks.printing import read_settings

PAGE = Path(__file__).parents[3] / "docs/performance.md"
NAMES = [str(command.name) for command in run.registered_commands]


def test_the_page_explains_every_scenario():
    """docs/performance.md has a row for each scenario and for no other."""
    scenarios = PAGE.read_text(encoding="utf-8").partition("### What the figures mean")[0]

    assert re.findall(r"^\| `([a-z-]+)` \|", scenarios, re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_flags_that_exist(name: str):
    """Each flag in a scenario's row is one of its command, and every scenario prints JSON."""
    row = re.search(rf"^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    command = next(command for command in run.registered_commands if command.name == name)
    typed = typer.main.get_command_from_info(
        command, pretty_exceptions_short=True, rich_markup_mode=None
    )
    known = {option for parameter in typed.params for option in parameter.opts}

    assert row is not None
    assert set(re.findall(r"--[a-z-]+", row[0])) - known == set()
    assert "--json" in known


def test_settings_are_names_with_values():
    """A setting given by a flag wins over the scenario's own; one without = is refused."""
    assert read_settings(["A=1=2", "B="], A="0", C="3") == {"A": "1=2", "B": "", "C": "3"}
    with pytest.raises(typer.BadParameter):
        read_settings(["A"])


def test_an_unknown_scenario_is_refused():
    """A misspelt scenario ends the program with an error before anything starts."""
    assert CliRunner().invoke(app, ["run", "hurd"]).exit_code == 2
