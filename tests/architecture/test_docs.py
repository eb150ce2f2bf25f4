"""The pages in docs/: made from the code, or complete when held against it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api import errors as api_errors
from app.core.config import SETTING_NAMES
from app.domain.errors import SchedulerError
from app.domain.execution import Reason
from tests.support.readme import CONFIGURATION, ERRORS, ROOT, configuration_page

LABELS = ["- Cause: ", "- Fix: ", "- 原因：", "- 対処："]
UNUSED = ("Not used in this version", "This version has no entry for it")
UNUSED_JA = "このバージョン"


def read_entries(part: str) -> dict[str, list[str]]:
    """Return the lines of each entry in one of the two parts of docs/errors.md."""
    parts = re.split(r"^## ", ERRORS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [text for text in parts if text.startswith(part)]
    found = re.findall(r"^#### `(\w+)`\n\n((?:- .*\n)+)", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "an entry comes twice"
    return {name: lines.splitlines() for name, lines in found}


REASONS = read_entries("Reasons")
CODES = read_entries("Error codes")


def leaves(family: type[SchedulerError]) -> Iterator[type[SchedulerError]]:
    """Yield the errors that are raised: those without children."""
    children = family.__subclasses__()
    if not children:
        yield family
    for child in children:
        yield from leaves(child)


def names_used(owner: str) -> set[str]:
    """Return the members of a class that the program, beside the domain, speaks of."""
    return {
        node.attr
        for path in (ROOT / "app").rglob("*.py")
        if "domain" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    }


def classes_made() -> set[str]:
    """Return the names of the classes that the program, beside the domain, calls or raises."""
    made = [
        node.func if isinstance(node, ast.Call) else node.exc
        for path in (ROOT / "app").rglob("*.py")
        if "domain" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.Raise)
    ]
    return {name.id for name in made if isinstance(name, ast.Name)}


def is_said_unused(lines: list[str]) -> bool:
    """Tell whether an entry says that this version does not use it, in both languages."""
    in_english = any(sentence in lines[0] for sentence in UNUSED)
    assert in_english == (UNUSED_JA in lines[2]), lines
    return in_english


def test_every_reason_has_an_entry() -> None:
    """docs/errors.md explains each reason that an execution can have, and no other."""
    assert set(REASONS) == {reason.value for reason in Reason}


def test_every_error_code_has_an_entry() -> None:
    """docs/errors.md explains each code that an error answer can have, and no other."""
    ours = {"malformed_request", "bad_request", "internal_error"}
    source = Path(api_errors.__file__).read_text(encoding="utf-8")
    assert {code for code in ours if f'"{code}"' not in source} == set()

    raised = {error.code for error in leaves(SchedulerError)}
    assert set(CODES) == raised | ours | set(api_errors._HTTP_CODES.values())


@pytest.mark.parametrize(
    ("name", "lines"),
    [*REASONS.items(), *CODES.items()],
    ids=[*(f"reason-{name}" for name in REASONS), *(f"code-{name}" for name in CODES)],
)
def test_entries_say_cause_and_fix(name: str, lines: list[str]) -> None:
    """Each entry has cause and fix as sentences, in English and in Japanese."""
    assert len(lines) == len(LABELS), name
    for line, label in zip(lines, LABELS, strict=True):
        assert line.startswith(label)
        is_japanese = re.search("[ぁ-ん]", line) is not None
        assert is_japanese == (label in LABELS[2:])
        assert line.endswith("。" if is_japanese else ".")


def test_unused_reasons_are_said_to_be() -> None:
    """A reason is told to be without use exactly while nothing in the program gives it."""
    used = {Reason[name].value for name in names_used("Reason")}

    assert {name for name, lines in REASONS.items() if is_said_unused(lines)} == (
        set(REASONS) - used
    )


def test_unused_codes_are_said_to_be() -> None:
    """A code is told to be without use exactly while nothing in the program raises it."""
    made = classes_made()
    unused = {error.code for error in leaves(SchedulerError) if error.__name__ not in made}

    assert {name for name, lines in CODES.items() if is_said_unused(lines)} == unused


def test_the_configuration_page_is_made_from_the_settings() -> None:
    """docs/configuration.md is what `python -m tests.support.readme` writes."""
    assert CONFIGURATION.read_text(encoding="utf-8") == configuration_page()


def test_every_setting_is_on_the_configuration_page() -> None:
    """Each name that is read has its place in docs/configuration.md."""
    headings = re.findall(r"^## (.+)$", configuration_page(), re.MULTILINE)

    assert [name for line in headings for name in re.findall(r"`(\w+)`", line)] == [*SETTING_NAMES]


def test_settings_that_entries_name_exist() -> None:
    """A fix does not send anybody to a setting that is not there."""
    named = set(re.findall(r"MYSCHEDULER_\w+", ERRORS.read_text(encoding="utf-8")))

    assert named - set(SETTING_NAMES) == set()


def test_the_changelog_keeps_its_form() -> None:
    """CHANGELOG.md begins with what is unreleased, in the groups of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    groups = re.findall(r"^### (\w+)", text, re.MULTILINE)

    assert releases[0] == "[Unreleased]"
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
