"""The pages in docs/: made from the code, or complete when held against it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.api import errors as api_errors
from app.core.config import SETTING_NAMES
from app.domain.catalogue import all_errors, all_reasons
from app.domain.errors import SchedulerError
from app.domain.execution import Reason
from tests.support.errors_page import errors_page
from tests.support.readme import CONFIGURATION, ERRORS, ROOT, configuration_page


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


def test_the_page_on_errors_is_made_from_the_catalogue() -> None:
    """docs/errors.md is what `python -m tests.support.readme` writes."""
    assert ERRORS.read_text(encoding="utf-8") == errors_page()


def test_the_page_on_errors_has_each_entry_once() -> None:
    """docs/errors.md explains each reason and each error code, in its part, and no other."""
    reasons, codes = re.split(r"^## Error codes", errors_page(), flags=re.MULTILINE)

    assert re.findall(r"^#### `(\w+)`$", reasons, re.MULTILINE) == [*all_reasons()]
    assert re.findall(r"^#### `(\w+)`$", codes, re.MULTILINE) == [*all_errors()]


def test_unused_reasons_are_said_to_be() -> None:
    """A reason is told to be without use exactly while nothing in the program gives it."""
    used = {Reason[name] for name in names_used("Reason")}
    unused = {reason for reason, entry in all_reasons().items() if not entry.in_use}
    marked = re.findall(
        r"^#### `(\w+)`\n(?:(?!####).*\n)*?- Cause:.* Not used in this version\.\n"
        r".*\n- 原因：.*このバージョンでは使われません。\n",
        errors_page(),
        re.MULTILINE,
    )

    assert unused == set(Reason) - used
    assert set(marked) == unused


def test_every_error_code_has_an_entry() -> None:
    """The catalogue explains each code that an error answer can have, and no other."""
    ours = {"malformed_request", "bad_request", "internal_error"}
    source = Path(api_errors.__file__).read_text(encoding="utf-8")
    assert {code for code in ours if f'"{code}"' not in source} == set()

    raised = {error.code for error in leaves(SchedulerError)}
    assert set(all_errors()) == raised | ours | set(api_errors._HTTP_CODES.values())
    assert set(api_errors.http_statuses()) == set(all_errors())


def test_every_error_is_raised() -> None:
    """No error has an entry that nothing in the program raises."""
    made = classes_made()

    assert [e.code for e in leaves(SchedulerError) if e.__name__ not in made] == []


def test_the_configuration_page_is_made_from_the_settings() -> None:
    """docs/configuration.md is what `python -m tests.support.readme` writes."""
    assert CONFIGURATION.read_text(encoding="utf-8") == configuration_page()


def test_every_setting_is_on_the_configuration_page() -> None:
    """Each name that is read has its place in docs/configuration.md."""
    headings = re.findall(r"^## (.+)$", configuration_page(), re.MULTILINE)

    assert [name for line in headings for name in re.findall(r"`(\w+)`", line)] == [*SETTING_NAMES]


def test_settings_that_entries_name_exist() -> None:
    """A fix does not send anybody to a setting that is not there."""
    named = set(re.findall(r"MYSCHEDULER_\w+", errors_page()))

    assert named - set(SETTING_NAMES) == set()


def test_the_changelog_keeps_its_form() -> None:
    """CHANGELOG.md begins with what is unreleased, in the groups of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    groups = re.findall(r"^### (\w+)", text, re.MULTILINE)

    assert releases[0] == "[Unreleased]"
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
