"""The limits that keep the code readable: sizes, docstrings of tests, import contracts."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 500

APP = sorted(p for p in (ROOT / "app").rglob("*.py") if "versions" not in p.parts)
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        rest = node.body[1:]
        return (node.end_lineno or 0) - rest[0].lineno + 1 if rest else 0
    return (node.end_lineno or 0) - first.lineno + 1


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", APP, ids=name_of)
def test_functions_and_modules_are_small(path: Path):
    """No function's body has more than 50 lines, no module more than 500."""
    long = {f.name: body_lines(f) for f in functions(path) if body_lines(f) > FUNCTION_LINES_MAX}
    assert long == {}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_each_test_says_what_it_proves(path: Path):
    """Every test has a docstring, the sentence it proves."""
    silent = [
        f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)
    ]
    assert silent == []


def test_imports_point_down():
    """The import contracts of pyproject.toml hold."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
