import json
from pathlib import Path

from benchmarks.contenders import REHEARSAL, Wish, never_due
from benchmarks.installed import BULLMQ, Installed
from benchmarks.machine import wall_seconds
from benchmarks.rivals import to_json


def test_rivals_read_instants_in_whole_milliseconds() -> None:
    """A job reaches a rival's program by name and due instant, to the millisecond."""
    wish = Wish(name="job-1", due=1_800_000_000.1234, url="http://127.0.0.1:1/ok/job-1")
    assert json.loads(to_json([wish])) == [{"name": "job-1", "due_ms": 1_800_000_000_123}]


def test_rehearsed_jobs_are_never_due() -> None:
    """What is stored to tell how long storing takes differs by name and is due in ten years."""
    wishes = never_due()
    assert len({wish.name for wish in wishes}) == REHEARSAL
    assert min(wish.due for wish in wishes) > wall_seconds() + 10 * 365 * 86_400


def test_what_is_missing_is_told_by_name(tmp_path: Path) -> None:
    """A contender takes part only if everything it needs could be installed."""
    installed = Installed(tmp_path)
    installed.missing["redis-server"] = "there is no apt-get to get it"
    assert installed.has("bullmq")
    assert not installed.has("bullmq", "redis-server")


def test_programs_unpacked_into_the_folder_are_found_there(tmp_path: Path) -> None:
    """A program that the machine lacks is looked for among Debian's packages in the folder."""
    found = Installed(tmp_path).program("no-such-program")
    assert found == str(tmp_path / "debian" / "usr" / "bin" / "no-such-program")


def test_packages_of_npm_are_pinned_to_one_version() -> None:
    """Every package that BullMQ's worker uses has an exact version, so runs can be repeated."""
    packages = json.loads((BULLMQ / "package.json").read_text(encoding="utf-8"))
    assert all(version[0].isdigit() for version in packages["dependencies"].values())
