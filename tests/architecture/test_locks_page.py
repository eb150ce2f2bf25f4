"""docs/locks.md: its example runs, and its numbers are the program's."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.backends.postgres.leader import LOCK_KEY
from app.locks.keeper import KeeperOptions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "locks.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Any]]:
    """Run the page's only block of code, on a database that is not there yet."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'jobs.db'}")
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/locks.md", "exec"), names)  # noqa: S102 - our own page
    return names


async def test_the_example_runs(
    example: dict[str, Callable[[], Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each function of the example does what the page says, one lock file for each name."""
    assert example["send_invoices"]() == "invoices sent"
    assert await example["fill_cache"]() == "cache filled"
    assert example["sweep"]() == "swept"
    assert capsys.readouterr().out == "mark\nremove\n"
    assert await example["refuse"]() == "refused: cache"
    files = await asyncio.to_thread(os.listdir, tmp_path)
    assert len(files) == 3
    assert all(re.fullmatch(r"jobs\.db\.[0-9a-f]{16}\.lock", name) for name in files)


def test_its_numbers_are_in_force() -> None:
    """How long a loss stays unnoticed, and the leader's key, are what the page says."""
    options = KeeperOptions()
    silence = options.waits * options.wait.total_seconds()

    assert (silence, options.prove_every.total_seconds()) == (5, 1)
    assert "does not answer for five seconds" in PAGE
    assert "a second, or six where nothing answers" in PAGE
    assert f"`{LOCK_KEY}`" in PAGE
