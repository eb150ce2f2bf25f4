"""What the documents print, in a form that tests can hold to the truth.

A fenced block that begins with ```` ```console ```` holds commands, each after ``$ ``, and below
each what it answers. A command goes on over lines that end with a backslash or inside quotes. In an
answer a line of ``...`` stands for any lines left out; ids, times, milliseconds and the names of
replicas are compared by shape, all else as printed. A printed id stands for the same real one
wherever it comes again, in later commands too.

``python -m tests.support.readme`` writes the tables and pages that are made from the code.
"""

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.config import SettingRow, Settings, describe_settings
from tests.support.errors_page import errors_page
from tests.support.service import eventually

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "README.md"
JAPANESE = ROOT / "README.ja.md"
CONFIGURATION = ROOT / "docs/configuration.md"
ERRORS = ROOT / "docs/errors.md"

PRINTED_ADDRESS = "localhost:8003"
_COMMAND_SECONDS = 20.0
_MARK = "<!-- settings: {} -->"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARYING = re.compile(
    r"(?P<id>exe_[a-z2-7]{24})"
    r"|(?P<day>\d{4}-\d\d-\d\d)T(?P<clock>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?"
    r"(?P<offset>[+-]\d\d:\d\d)"
    r'|(?P<key>"[a-z_]+_ms": ?)(?P<number>\d+)'
    r'|(?P<replica>"replica": ?)"[^"]+"'
)


@dataclass(frozen=True, slots=True)
class Example:
    """A command as printed, and what a reader is told it answers."""

    command: str
    answer: str

    @property
    def program(self) -> str:
        """Tell the program that is called."""
        return shlex.split(self.command)[0]

    @property
    def only_reads(self) -> bool:
        """Tell whether it may be asked again until what it tells about has happened."""
        return not re.search(r"\s(-X|-d|--data|--json)\s", self.command)


def read_examples(text: str) -> list[Example]:
    """List the commands of a document's console blocks, in order."""
    return [example for block in _BLOCK.findall(text) for example in _split(block)]


def _split(block: str) -> Iterator[Example]:
    lines = block.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            raise ValueError(f"a console block begins with an answer: {line}")
        command = line.removeprefix("$ ")
        while _goes_on(command):
            command += "\n" + lines.pop(0)
        answer = []
        while lines and not lines[0].startswith("$ "):
            answer.append(lines.pop(0))
        yield Example(command, "\n".join(answer).strip())


def _goes_on(command: str) -> bool:
    if command.endswith("\\"):
        return True
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


@dataclass(slots=True)
class Reader:
    """Somebody who types the commands of a document, one after the other.

    ``address`` is where the service really listens; ``ids`` and ``typed`` are what was learnt.
    """

    address: str
    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    typed: str = ""

    async def follow(self, example: Example) -> None:
        """Run a command and compare; one that only reads is asked until its answer is there."""
        command = self._real(example.command)
        self.typed += example.command
        told = ""

        async def agrees() -> bool:
            nonlocal told
            told = await self._run(command)
            return self.recognise(example.answer, told)

        try:
            if example.only_reads:
                await eventually(agrees, every=0.1)
            else:
                assert await agrees()
        except AssertionError as error:
            raise AssertionError(
                f"\n$ {command}\n{told}\n\nis not what is printed:\n\n{example.answer}"
            ) from error

    def recognise(self, printed: str, told: str) -> bool:
        """Tell whether an answer is the printed one; then remember which ids it named."""
        found = re.fullmatch(self._pattern(printed), told.rstrip("\n") + "\n")
        if found is None:
            return False
        self.ids.update({name: id_ for name, id_ in found.groupdict().items() if id_})
        return True

    def _real(self, text: str) -> str:
        text = text.replace(PRINTED_ADDRESS, self.address)
        for printed, real in self.ids.items():
            text = text.replace(printed, real)
        return text

    async def _run(self, command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f"set -o pipefail\n{command}",
            cwd=self.folder,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(_COMMAND_SECONDS):
            told, _ = await process.communicate()
        return told.decode()

    def _pattern(self, printed: str) -> str:
        seen: set[str] = set()
        lines = [
            r"(?:.*\n)*" if line.strip() == "..." else self._line(line, seen) + r"\n"
            for line in printed.splitlines()
        ]
        return "".join(lines) or r"\n"

    def _line(self, line: str, seen: set[str]) -> str:
        pattern, end = "", 0
        for found in _VARYING.finditer(line):
            pattern += re.escape(self._real(line[end : found.start()]))
            pattern += self._shape(found, seen)
            end = found.end()
        return pattern + re.escape(self._real(line[end:]))

    def _shape(self, found: re.Match[str], seen: set[str]) -> str:
        if name := found["id"]:
            if name in self.ids:
                return self.ids[name]
            if name in seen:
                return f"(?P={name})"
            seen.add(name)
            return f"(?P<{name}>exe_[a-z2-7]{{24}})"
        for name, shape in (("key", r"\d+"), ("replica", r'"[^"]+"')):
            if found[name]:
                return re.escape(found[name]) + shape
        if f"{found['day']}T{found['clock']}" in self.typed:
            return re.escape(found[0])
        # Whole minutes and hours are part of what is told.
        zeros = 0 if found["fraction"] else len(re.findall(r":00(?=(?::00)*$)", found["clock"]))
        clock = r"\d\d" + r":\d\d" * (2 - zeros) + ":00" * zeros
        if found["fraction"]:
            clock += r"(?:\.\d{6})?"
        return r"\d{4}-\d\d-\d\dT" + clock + re.escape(found["offset"])


def read_table(text: str, *, heading: str) -> list[list[str]]:
    """Read the cells of the first table under a heading, without its head."""
    _, found, rest = text.partition(f"\n{heading}\n")
    if not found:
        raise ValueError(f"there is no heading {heading}")
    rows = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    if rows is None:
        raise ValueError(f"there is no table under {heading}")
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def settings_rows() -> list[SettingRow]:
    """List the settings, none of them given."""
    return describe_settings(Settings())


def setting_cells(row: SettingRow) -> tuple[str, str]:
    """Write a setting's names and default as the tables show them, in any language."""
    names = ", ".join(f"`{name}`" for name in (row.name, *row.other_names))
    return names, f"{_plain(row.default)} {row.unit}".strip()


def _plain(value: Any) -> str:
    if value in ("", []):
        return "–"
    if isinstance(value, list):
        return f"`{','.join(value)}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def short_settings_table() -> str:
    """Make the table of README.md."""
    rows = (f"| {' | '.join(setting_cells(row))} | {row.description} |" for row in settings_rows())
    return "\n".join(("| Setting | Default | Meaning |", "|---|---|---|", *rows))


def configuration_page() -> str:
    """Make docs/configuration.md."""
    return _CONFIGURATION_PAGE.format("\n".join(_section(row) for row in settings_rows()))


def _section(row: SettingRow) -> str:
    names, default = setting_cells(row)
    return f"## {names}\n\n{row.description}\n\n- Default: {default}\n- Accepted: {row.allowed}\n"


def put_table(text: str, table: str) -> str:
    """Return a document with the table between its marks replaced."""
    begin, end = _MARK.format("begin"), _MARK.format("end")
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"there is no table between {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> None:
    """Write what is made from the code."""
    readme = ENGLISH.read_text(encoding="utf-8")
    ENGLISH.write_text(put_table(readme, short_settings_table()), encoding="utf-8")
    CONFIGURATION.write_text(configuration_page(), encoding="utf-8")
    ERRORS.write_text(errors_page(), encoding="utf-8")


_CONFIGURATION_PAGE = """\
# Configuration

<!-- Made from app/core/settings.py by `python -m tests.support.readme`; do not edit. -->

Every setting has a default. Settings are read from, the later wins:

1. the defaults below,
2. the file `.env` in the working directory,
3. the environment,
4. flags of `myscheduler serve` (`--host`, `--port`, `--database-url`, `--log-level`, `--role`).

Each `NAME` may instead be given as `NAME_FILE`, the path of a file that holds the value.

`myscheduler config` shows the value of each setting and where it came from, with passwords masked.
A configuration that cannot be used stops the start with exit code 2, and all problems are listed at
once.

With an SQLite file one process does everything, and a second one on the same file is refused.
Several replicas share a PostgreSQL database: one of them leads, and each obeys its own limits.

{}"""


if __name__ == "__main__":
    main()
