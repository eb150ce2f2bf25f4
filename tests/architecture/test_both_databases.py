"""Every test that has a database runs on SQLite and on PostgreSQL, or says why not."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
# Fixtures and helpers that give one kind, and calls that do so if they are told which.
FIXTURES = {"sqlite", "postgres"}
HELPERS = {"mortal_postgres"}
MAKES_A_DATABASE = {"migrated", "empty", "shared"}
# The first says it by its name; the others start no database.
ABOUT_ONE_KIND = ("tests/integration/postgres/", "tests/architecture/", "tests/support/")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_runs_on_one_kind_says_why(path: Path):
    """A test whose database is of one kind alone, by itself or by its helpers, gives a reason."""
    if name_of(path).startswith(ABOUT_ONE_KIND):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = marks_in(tree)
    if "pytestmark" in marks:
        return
    tests = [node for node in one_kind(tree) if node.name.startswith("test_")]
    assert [node.name for node in tests if not _has_one_of(node.decorator_list, marks)] == []


def test_one_kind_is_noticed():
    """A database of one kind is found in parameters, fixtures, calls and addresses."""
    source = """
def through(tmp_path):
    return Options(url=f"sqlite:///{tmp_path}")
def test_address(): through(1)
@pytest.fixture
def made(): through(2)
def test_fixture(made): pass
def test_parameter(postgres): pass
async def test_call(databases):
    async with databases.migrated(DatabaseKind.SQLITE): pass
def test_server():
    with mortal_postgres(): pass
def test_both(database, home):
    sqlite = through_no_fixture(made=database.kind)
"""
    found = [node.name for node in one_kind(ast.parse(source))]
    assert found == [
        "through", "test_address", "made", "test_fixture", "test_parameter", "test_call",
        "test_server",
    ]  # fmt: skip


def one_kind(tree: ast.Module) -> Iterator[Definition]:
    """Find the functions and classes of a module that have to do with one kind alone."""
    definitions = [node for node in tree.body if isinstance(node, Definition)]
    fixtures, helpers, before = set(FIXTURES), set(HELPERS), 0
    while before < len(fixtures | helpers):
        before = len(fixtures | helpers)
        for node in definitions:
            if _parameters(node) & fixtures or _words(node) & helpers or _makes_one_kind(node):
                (fixtures if _is_fixture(node) else helpers).add(node.name)
    return (node for node in definitions if node.name in fixtures | helpers)


def _is_fixture(definition: Definition) -> bool:
    marks = (node for mark in definition.decorator_list for node in ast.walk(mark))
    return any(isinstance(node, ast.Attribute) and node.attr == "fixture" for node in marks)


def _parameters(definition: Definition) -> set[str]:
    if isinstance(definition, ast.ClassDef):
        return set()
    return {argument.arg for argument in definition.args.args}


def _words(definition: Definition) -> set[str]:
    """Give the names that a function or class reads, in its decorators too."""
    parts = [*definition.decorator_list, *definition.body]
    inside = (node for part in parts for node in ast.walk(part))
    return {node.id for node in inside if isinstance(node, ast.Name)}


def _makes_one_kind(definition: Definition) -> bool:
    return any(map(_asks_for_one_kind, ast.walk(definition))) or any(
        isinstance(node, ast.JoinedStr)
        and isinstance(node.values[0], ast.Constant)
        and str(node.values[0].value).startswith("sqlite:///")
        for node in ast.walk(definition)
    )


def _asks_for_one_kind(node: ast.AST) -> bool:
    """Tell whether this is a call such as ``databases.migrated(DatabaseKind.SQLITE)``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MAKES_A_DATABASE
        and any(
            isinstance(word, ast.Attribute)
            and isinstance(word.value, ast.Name)
            and word.value.id == "DatabaseKind"
            for word in node.args
        )
    )


def marks_in(tree: ast.Module) -> set[str]:
    """Give ``only_on`` and what else a module calls it; ``pytestmark`` is for all its tests."""
    marks = {"only_on"}
    for node in tree.body:
        if isinstance(node, ast.Assign) and _has_one_of([node.value], marks):
            marks |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return marks


def _has_one_of(values: Sequence[ast.expr], marks: set[str]) -> bool:
    inside = (node for value in values for node in ast.walk(value))
    return any(
        (isinstance(node, ast.Attribute) and node.attr in marks)
        or (isinstance(node, ast.Name) and node.id in marks)
        for node in inside
    )


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
