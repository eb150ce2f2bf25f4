"""Notes, waits and states in words."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.job import JobState
from app.engine.occurrences import NoteCode
from app.engine.simulation import Fate
from app.schemas.words.notes import describe_fate, describe_note, describe_state, describe_wait

WALL = datetime(2026, 3, 8, 2, 30, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("wait", "en", "ja"),
    [
        (timedelta(0), "now", "今すぐ"),
        (timedelta(seconds=59), "in 59 seconds", "59秒後"),
        (timedelta(minutes=5, seconds=3), "in 5 minutes and 3 seconds", "5分3秒後"),
        (timedelta(hours=3, minutes=2, seconds=1), "in 3 hours and 2 minutes", "3時間2分後"),
        (timedelta(days=2, hours=3, minutes=2), "in 2 days and 3 hours", "2日3時間後"),
        (timedelta(days=365), "in 1 year", "1年後"),
        (timedelta(days=366), "in 1 year and 1 day", "1年と1日後"),
        (timedelta(days=800, hours=9), "in 2 years and 70 days", "2年と70日後"),
    ],
)
def test_waits(wait, en, ja):
    """How far off an instant is, is said in its two largest units."""
    assert describe_wait(wait) == (en, ja)


@pytest.mark.parametrize("code", NoteCode)
def test_every_note_names_the_local_time(code):
    """Each note says in both languages which local time it speaks of."""
    en, ja = describe_note(code, WALL)
    assert "8 March 2026, 02:30" in en
    assert "2026年3月8日2時30分" in ja


def test_notes_differ():
    """No two codes, and no two fates, share a text."""
    notes = {describe_note(code, WALL) for code in NoteCode}
    fates = {describe_fate(fate) for fate in Fate}
    assert (len(notes), len(fates)) == (len(NoteCode), len(Fate))


def test_states():
    """A job that runs needs no words; each other state says why nothing of it will run."""
    said = {state: describe_state(state) for state in JobState}
    assert said.pop(JobState.ACTIVE) is None
    assert all(words is not None and words[0].startswith("The job is") for words in said.values())
    assert said[JobState.PAUSED] != said[JobState.FINISHED]
