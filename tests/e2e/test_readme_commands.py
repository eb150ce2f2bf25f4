"""The README's commands, typed one after the other into a shell, and what they answer."""

import shlex
from pathlib import Path

import pytest

from app.core.config import SETTING_NAMES
from app.db.migrate import migrate
from app.db.session import DatabaseOptions
from tests.e2e.world import CLOCK, run_python
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.readme import ENGLISH, Example, Reader, read_examples
from tests.support.service import Service, eventually

EXAMPLES = read_examples(ENGLISH.read_text(encoding="utf-8"))
# From the page's first request until its history is shown, at most, on a busy machine.
PAGE_SECONDS = 20


@pytest.mark.slow
async def test_a_reader_gets_the_printed_answers(home: Home):
    """Whoever types the page's requests in order gets the answers that are printed below them."""
    # The first job runs at full minutes; the page shows its history before that.
    await eventually(lambda: CLOCK.now().second <= 60 - PAGE_SECONDS, seconds=PAGE_SECONDS + 5)
    async with Service(home) as service:
        reader = Reader(address=f"localhost:{service.port}", folder=home.folder)
        requests = [example for example in EXAMPLES if example.program == "curl"]
        for example in requests:
            assert example.answer
            await reader.follow(example)
    assert len(requests) >= 10


@pytest.mark.only_on(DatabaseKind.SQLITE, because="the backups of a server are its own")
async def test_the_command_line_is_as_printed(tmp_path: Path):
    """The page's own commands succeed: they show every setting, make a backup, find all well."""
    await migrate(DatabaseOptions(url=f"sqlite:///{tmp_path / 'data' / 'jobs.db'}"))
    told = {}
    for example in EXAMPLES:
        if example.program == ".venv/bin/myscheduler":
            _, *arguments = shlex.split(example.command)
            code, told[arguments[0]], err = await run_python(tmp_path, "-m", "app", *arguments)
            assert (code, err) == (0, "")

    assert set(told) == {"config", "backup", "check"}
    shown = told["config"].splitlines()[1:]
    assert {line.split()[0] for line in shown} == {*SETTING_NAMES} - {"TZ"}


@pytest.mark.parametrize(
    ("told", "agrees"),
    [
        ('{"id":"exe_aaaaaaaaaaaaaaaaaaaaaaaa","x_ms":123,"at":"2027-01-01T10:02:00+09:00"}', True),
        (
            '{"id":"exe_aaaaaaaaaaaaaaaaaaaaaaaa","x_ms":123,"at":"2027-01-01T10:02:01+09:00"}',
            False,
        ),
        (
            '{"id":"exe_aaaaaaaaaaaaaaaaaaaaaaaa","x_ms":123,"at":"2027-01-01T10:02:00+00:00"}',
            False,
        ),
        ('{"id":"exe_aaaaaaaaaaaaaaaaaaaaaaaa","x_ms":-1,"at":"2027-01-01T10:02:00+09:00"}', False),
        ('{"id":"exe_short","x_ms":123,"at":"2027-01-01T10:02:00+09:00"}', False),
        ('{"id":"exe_aaaaaaaaaaaaaaaaaaaaaaaa","x_ms":123}', False),
    ],
)
def test_answers_are_compared_by_shape(tmp_path: Path, told: str, *, agrees: bool):
    """Ids, times and milliseconds may vary within their shape, and nothing else may."""
    printed = '{"id":"exe_bbbbbbbbbbbbbbbbbbbbbbbb","x_ms":5,"at":"2026-11-22T09:31:00+09:00"}'

    assert Reader(address="localhost:1", folder=tmp_path).recognise(printed, told) is agrees


def test_an_id_is_the_same_all_along(tmp_path: Path):
    """A printed id stands for one real id: in later answers, and in later commands."""
    reader = Reader(address="localhost:1", folder=tmp_path)
    one, other, real = ("exe_" + letter * 24 for letter in "abc")

    assert reader.recognise(one, real)
    assert reader.recognise(f"...\n{one}", f"more\n{real}")
    assert not reader.recognise(one, other)
    assert not reader.recognise(f"{other} {other}", f"{one} {real}")


async def test_a_wrong_answer_is_shown(tmp_path: Path):
    """An answer that differs from the printed one fails, and both can be read."""
    reader = Reader(address="localhost:1", folder=tmp_path)

    with pytest.raises(AssertionError, match=r"\$ echo -d yes\n-d yes\n\n\nis not .*:\n\nno"):
        await reader.follow(Example("echo -d yes", "no"))
