"""Every test that has a database runs on SQLite and on PostgreSQL, or says why not."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests").rglob("*.py"))
# What gives a service its database, and what gives a test one kind of it alone.
MAKES_ONE_KIND = {"sqlite_home", "Home"}
# Where that is made; replicas, which share a server; what counts the calls of one driver.
ALLOWED = {
    "tests/support/homes.py",
    "tests/support/replicas.py",
    "tests/integration/engine/test_cost.py",
}
SKIPS = {"skip", "skipif", "xfail"}


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_home_is_given_by_the_fixture(path: Path):
    """A service's home is the fixture's, which is one on each kind of database."""
    made = {call.func.id for call in calls(path) if isinstance(call.func, ast.Name)}
    if name_of(path) not in ALLOWED and not name_of(path).startswith("tests/integration/postgres/"):
        assert made & MAKES_ONE_KIND == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_test_is_left_out_without_a_reason(path: Path):
    """A skip, an expected failure and a test of one database alone state their reason."""
    for call in calls(path):
        if isinstance(call.func, ast.Attribute) and call.func.attr in SKIPS:
            words = [*call.args, *(keyword.value for keyword in call.keywords)]
            assert any(map(_is_text, words)), f"line {call.lineno}"
        if isinstance(call.func, ast.Attribute) and call.func.attr == "only_on":
            assert [word.arg for word in call.keywords] == ["because"], f"line {call.lineno}"


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr) or (
        isinstance(value, ast.Constant) and isinstance(value.value, str) and bool(value.value)
    )


def test_tests_of_services_are_made_twice():
    """What asks for a home is collected on each kind of database, but for what is marked."""
    chosen = ["tests/integration/test_head.py", "tests/chaos/test_restore.py"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert [line.rpartition("[")[2] for line in collected] == ["sqlite]", "postgres]", "sqlite]"]
