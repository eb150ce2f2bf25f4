"""The two README: equal in what they promise, and true to the code as far as that can be read.

What their commands answer is tested in ``tests/e2e/test_readme_commands.py``.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from app import __version__
from app.core.config import Settings
from app.main import create_app
from tests.support.readme import (
    ENGLISH,
    JAPANESE,
    Example,
    put_table,
    read_examples,
    read_table,
    setting_cells,
    settings_rows,
    short_settings_table,
)

ROOT = Path(__file__).resolve().parents[2]
BOTH = pytest.mark.parametrize("path", [ENGLISH, JAPANESE], ids=["en", "ja"])
# The tests run these programs' commands; the others are read.
RUN = {"curl", ".venv/bin/myscheduler"}
READ = {"make", "docker", "kubectl"}


def read(path: Path) -> str:
    """Return a document's text."""
    return path.read_text(encoding="utf-8")


def commands(program: str) -> list[list[str]]:
    """Return the words of the commands on the page that call this program."""
    return [e.command.split() for e in read_examples(read(ENGLISH)) if e.program == program]


def test_both_say_the_same_commands_and_answers() -> None:
    """Every command and every answer is the same in both languages, in the same order."""
    assert read_examples(read(JAPANESE)) == read_examples(read(ENGLISH))


def test_both_have_the_same_parts() -> None:
    """Headings of the same levels follow each other in both languages."""
    levels = [re.findall(r"^#+(?= )", read(path), re.MULTILINE) for path in (ENGLISH, JAPANESE)]

    assert levels[0] == levels[1]


def test_both_have_the_same_items() -> None:
    """Lists and tables are as long in both languages, and name the same code."""
    rows = [re.findall(r"^(- |\|)", read(path), re.MULTILINE) for path in (ENGLISH, JAPANESE)]

    assert rows[0] == rows[1]


@BOTH
def test_every_command_is_of_a_known_kind(path: Path) -> None:
    """No command on the page escapes both kinds of test."""
    assert {example.program for example in read_examples(read(path))} == RUN | READ


@BOTH
def test_every_fenced_block_is_a_console(path: Path) -> None:
    """Nothing is printed as code that the tests would not see."""
    fences = re.findall(r"^ *```(.*)$", read(path), re.MULTILINE)

    assert set(fences) == {"console", ""}
    assert fences[::2] == ["console"] * (len(fences) // 2)


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    """A make target on the page is one that make can plan."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MAKE", "MFLAGS"))}
    planned = subprocess.run(
        [*words, "--dry-run"],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert planned.returncode == 0, planned.stderr


def test_docker_commands_fit_the_dockerfile() -> None:
    """What is built is what is run, on the port and the volume that the Dockerfile declares."""
    build, run, _compose = commands("docker")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (port,) = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
    (volume,) = re.findall(r'^VOLUME \["(.+)"\]$', dockerfile, re.MULTILINE)
    stop_timeout = int(run[run.index("--stop-timeout") + 1])

    assert build == ["docker", "build", "-t", f"myscheduler:{__version__}", "."]
    assert run[-1] == build[3]
    assert run[run.index("-p") + 1] == f"127.0.0.1:{port}:{port}"
    assert run[run.index("-v") + 1].endswith(f":{volume}")
    assert stop_timeout > Settings().shutdown_grace_seconds


def test_compose_finds_its_file() -> None:
    """`docker compose up` without a name reads the file that is there."""
    _build, _run, compose = commands("docker")

    assert compose == ["docker", "compose", "up", "--detach", "--wait"]
    assert (ROOT / "compose.yaml").is_file()


@pytest.mark.parametrize("words", commands("kubectl"), ids=" ".join)
def test_the_cluster_runs_the_image_of_the_page(words: list[str]) -> None:
    """`kubectl apply -k` names a kustomization whose image is the one that the page builds."""
    assert words[:3] == ["kubectl", "apply", "-k"]
    folder = ROOT / words[3]
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    (image,) = kustomization["images"]

    assert f"{image['name']}:{image['newTag']}" == commands("docker")[0][3]
    assert [name for name in kustomization["resources"] if not (folder / name).exists()] == []


@BOTH
def test_the_api_table_is_complete(path: Path) -> None:
    """The table, and the line on what any call may answer, say what the OpenAPI document says."""
    paths = create_app(Settings()).openapi()["paths"]
    declared = {
        (method.upper(), f"`{route}`"): set(operation["responses"])
        for route, operations in paths.items()
        for method, operation in operations.items()
    }
    versioned = [codes for (_, route), codes in declared.items() if route.startswith("`/api/v1")]
    common = set.intersection(*versioned) - {"200"}
    _, _, section = read(path).partition("\n## API\n")
    (line,) = re.findall(r"^[^|\n]*`/api/v1`.*$", section, re.MULTILINE)
    told = {
        (method, route): {*success.split(", "), *errors.split(", ")} - {"–"}
        for method, route, success, errors, _ in read_table(read(path), heading="## API")
    }

    assert set(re.findall(r"\b[45]\d\d\b", line)) == common
    assert told == {
        (method, route): codes - common if route.startswith("`/api/v1") else codes
        for (method, route), codes in declared.items()
    }


def test_the_settings_table_is_made_from_the_settings() -> None:
    """README.md's table is what `python -m tests.support.readme` writes."""
    assert put_table(read(ENGLISH), short_settings_table()) == read(ENGLISH)


def test_the_japanese_settings_table_follows() -> None:
    """README.ja.md lists the same settings and defaults, each with a Japanese sentence."""
    told = read_table(read(JAPANESE), heading="## 設定")

    assert [(name, default) for name, default, _ in told] == [
        setting_cells(row) for row in settings_rows()
    ]
    assert [name for name, _, meaning in told if not re.search("[ぁ-ん]", meaning)] == []


@BOTH
def test_links_lead_somewhere(path: Path) -> None:
    """Every link within the repository names a file or a heading that is there."""
    headings = re.findall(r"^#+ (.+)$", read(path), re.MULTILINE)
    anchors = {f"#{heading.lower().replace(' ', '-')}" for heading in headings}
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", read(path))

    assert [to for to in links if to not in anchors and not (ROOT / to).is_file()] == []


def test_a_block_is_split_into_commands_and_answers() -> None:
    """A command goes on over backslashes and open quotes; what follows it is its answer."""
    block = "```console\n$ a \\\n  b\n$ c 'd\ne'\nf\ng\n```\n"

    assert read_examples(block) == [Example("a \\\n  b", ""), Example("c 'd\ne'", "f\ng")]
