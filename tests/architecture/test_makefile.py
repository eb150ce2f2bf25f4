"""The commands of the Makefile, and the scripts that people and machines start by hand."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ("sqlite://", "http://127.0.0.1:")
TARGETS = ["run", "test", "check", "fmt", "bench", "sweep", "clean", "help"]
BY_HAND = [
    "Makefile",
    ".ci/run",
    "scripts/*",
    "Dockerfile",
    ".dockerignore",
    ".pre-commit-config.yaml",
    ".env.example",
    ".github/workflows/*.yml",
    "k8s/**/*.yaml",
    "k8s/**/*.env",
    "pyproject.toml",
    "README.md",
    "docs/**/*.md",
    "tests/architecture/*.py",
]


def run_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a terminal, and not as a part of the make that runs these tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_targets_exist(target: str) -> None:
    """Every command that the documents name is there, and nothing in it is misspelt."""
    planned = run_make("--dry-run", "--warn-undefined-variables", target)

    assert planned.returncode == 0, planned.stderr
    assert "warning" not in planned.stderr
    assert "Nothing to be done" not in planned.stdout


def test_an_unknown_target_is_an_error() -> None:
    """A misspelt target is refused."""
    assert run_make("--dry-run", "tests-please").returncode == 2


def test_help_names_every_target() -> None:
    """`make` alone says what there is; measuring is offered once there is something to measure."""
    offered = re.findall(r"^ +make (\w+)", run_make().stdout, re.MULTILINE)
    bench = ["bench"] if (ROOT / "benchmarks/__main__.py").exists() else []

    assert sorted(offered) == sorted([*set(TARGETS) - {"bench"}, *bench])


@pytest.mark.parametrize(
    "tool",
    [
        "ruff format --check",
        "ruff check",
        "mypy",
        "lint-imports",
        "deptry",
        "hadolint Dockerfile",
        "app.db.migrations check",
        "tests/unit tests/architecture tests/property",
    ],
)
def test_check_leaves_nothing_out(tool: str) -> None:
    """Each of the rules that the documents call checked is checked by `make check`."""
    assert tool in run_make("--dry-run", "check").stdout


def test_a_failing_step_stops_the_check(tmp_path: Path) -> None:
    """The first failing step ends `make check` with an error and with all that it said."""
    for name in ("Makefile", "uv.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    uv = tmp_path / ".tools/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "told: $*"\ncase "$*" in *mypy*) exit 3;; esac\n', "utf-8")
    uv.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.dev-ready").touch()

    checked = run_make("-C", str(tmp_path), "check")

    assert checked.returncode == 2
    assert re.findall(r"^  (\w+) +(\w+)$", checked.stdout, re.MULTILINE) == [
        ("format", "ok"),
        ("lint", "ok"),
        ("types", "FAILED"),
    ]
    assert "told: run --no-sync mypy" in checked.stdout


def read_commands(path: str) -> list[str]:
    """Return the lines of a script that are not comments."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_ci_runs_what_developers_run() -> None:
    """CI's script runs `make check`, then `make test`, and nothing speaks after it."""
    assert read_commands(".ci/run")[-2:] == ["make check", "make test"]


def test_github_runs_the_same_script() -> None:
    """The workflow tests with the same script, by actions pinned to a commit."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    actions = [step["uses"] for step in steps if "uses" in step]

    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_hooks_are_make_targets() -> None:
    """A hook is a command that a person can run too, and needs nothing from elsewhere."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = hooks["repos"]
    entries = [hook["entry"].split() for hook in repository["hooks"]]

    assert repository["repo"] == "local"
    assert [entry for entry in entries if entry[0] != "make" or entry[1] not in TARGETS] == []


@pytest.mark.parametrize(
    ("path", "shell"), [(".ci/run", "bash"), ("scripts/setup", "sh")], ids=["ci", "setup"]
)
def test_scripts_can_be_started(path: str, shell: str) -> None:
    """The script is executable and its shell can read it."""
    parsed = subprocess.run(
        [shell, "-n", ROOT / path], check=False, capture_output=True, text=True, timeout=30
    )

    assert os.access(ROOT / path, os.X_OK)
    assert (parsed.returncode, parsed.stderr) == (0, "")


def written_by_hand() -> list[Path]:
    """Return the files that no tool writes."""
    return sorted({path for pattern in BY_HAND for path in ROOT.glob(pattern) if path.is_file()})


@pytest.mark.parametrize("path", written_by_hand(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_fit_every_machine(path: Path) -> None:
    """No file names a package index or a directory of the machine on which it was written."""
    text = path.read_text(encoding="utf-8")
    index = (
        r"(?:py|python)[\w-]*\.org/simple|index[-_]url\s*=|find[-_]links\s*=|\[\[tool\.uv\.index"
    )
    directory = r"(?<![\w./$}])/(?:work|home|Users|root)/\w"

    assert re.findall(index, text, re.IGNORECASE) == []
    assert re.findall(directory, text) == []


@pytest.mark.parametrize(
    "path", ["Makefile", ".ci/run", "scripts/setup", "scripts/uv.txt", "Dockerfile"]
)
def test_setting_up_names_no_host(path: str) -> None:
    """Where packages come from is the machine's business: setting up names no address."""
    addresses = re.findall(r"\w+://[^\s'\"]+", (ROOT / path).read_text(encoding="utf-8"))

    assert [found for found in addresses if not found.startswith(LOCAL)] == []
