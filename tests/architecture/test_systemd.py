"""The units in systemd/: without a complaint of systemd's own check, and locked down."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import SETTING_NAMES, Settings
from app.core.settings import Role

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
PROGRAM = "/opt/myscheduler/.venv/bin/myscheduler"
ALL_IN_ONE, TEMPLATE = "myscheduler.service", "myscheduler@.service"
INSTANCES = [ALL_IN_ONE, *(f"myscheduler@{role}.service" for role in Role)]
BOTH = pytest.mark.parametrize("name", [ALL_IN_ONE, TEMPLATE])
Lines = list[tuple[str, str]]


def read(name: str) -> Lines:
    """Return the keys and values of a unit's [Service] part."""
    text = (UNITS / name).read_text(encoding="utf-8")
    part = text.partition("[Service]\n")[2].partition("\n[")[0]
    pairs = (line.partition("=") for line in part.splitlines() if re.match(r"\w+=", line))
    return [(key, value) for key, _, value in pairs]


def verify(folder: Path, name: str, text: str) -> str:
    """Return what systemd says of a unit, with the program where it is on this machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: the files are read all the same")
    here = Path(sys.executable).with_name("myscheduler")
    unit = folder / name
    unit.write_text(text.replace(PROGRAM, str(here)), encoding="utf-8")
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    # An unknown key is told and does not count as a failure.
    return told.stderr + ("" if told.returncode == 0 else f"exit code {told.returncode}")


def test_no_other_file_lies_there() -> None:
    """There is one unit for all in one process, and one for each role."""
    assert sorted(path.name for path in UNITS.iterdir()) == sorted((ALL_IN_ONE, TEMPLATE))


@pytest.mark.parametrize("name", INSTANCES)
def test_systemd_has_no_complaint(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` says nothing about the unit, nor about any of its instances."""
    file = name if name == ALL_IN_ONE else TEMPLATE

    assert verify(tmp_path, name, (UNITS / file).read_text(encoding="utf-8")) == ""


def test_a_misspelt_key_is_noticed(tmp_path: Path) -> None:
    """The check tells a key that systemd does not know."""
    text = (UNITS / ALL_IN_ONE).read_text(encoding="utf-8")

    assert "NoNewPrivilege" in verify(
        tmp_path, ALL_IN_ONE, text.replace("NoNewPrivileges", "NoNewPrivilege")
    )


@BOTH
def test_units_run_without_privilege(name: str) -> None:
    """No user of the machine, no capability, nothing writable but the unit's own state."""
    lines = read(name)
    for wanted in (
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("SystemCallFilter", "@system-service"),
        ("UMask", "0077"),
    ):
        assert wanted in lines
    assert [key for key, _ in lines if key == "ReadWritePaths"] == []


@BOTH
def test_runs_may_end_before_the_kill(name: str) -> None:
    """The unit waits longer than attempts under way may take, and starts a service that died."""
    values = dict(read(name))

    assert int(values["TimeoutStopSec"]) - Settings().shutdown_grace_seconds >= 10
    assert values["Restart"] == "on-failure"


@BOTH
def test_what_passes_is_tried_again_and_what_does_not_is_not(name: str) -> None:
    """A database that is away is waited for without end; a wrong setting ends the unit at once."""
    text = (UNITS / name).read_text(encoding="utf-8")

    assert "\nStartLimitIntervalSec=0\n" in text.partition("[Service]")[0]
    assert ("RestartPreventExitStatus", "2") in read(name)


@BOTH
def test_settings_are_known(name: str) -> None:
    """Each variable that a unit sets is a setting, given itself or as a file."""
    given = [value.split("=", 1)[0] for key, value in read(name) if key == "Environment"]

    assert {variable.removesuffix("_FILE") for variable in given} <= set(SETTING_NAMES)


def test_the_file_is_where_the_unit_may_write() -> None:
    """The all-in-one unit keeps its SQLite file in the state directory that systemd makes."""
    lines = read(ALL_IN_ONE)

    assert ("StateDirectory", "myscheduler") in lines
    assert ("Environment", "DATABASE_URL=sqlite:////var/lib/myscheduler/jobs.db") in lines


def test_a_role_is_an_instance() -> None:
    """The name of an instance is its role, and its database's address stays with root."""
    lines = read(TEMPLATE)

    assert ("ExecStart", f"{PROGRAM} serve --role %i") in lines
    assert ("LoadCredential", "database-url:/etc/myscheduler/database-url") in lines
    assert ("Environment", "DATABASE_URL_FILE=%d/database-url") in lines
    assert ("StateDirectory", "myscheduler") not in lines
