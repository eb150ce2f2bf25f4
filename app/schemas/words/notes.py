"""What a zone's clock does to an occurrence, in words.

Imports the engine's codes and the writers of local times; called by the answers on schedules.
A pair is English and Japanese.
"""

from datetime import datetime, timedelta
from typing import assert_never

from app.domain.job import JobState
from app.engine.occurrences import NoteCode
from app.engine.simulation import Fate
from app.schemas.words import english, japanese

Pair = tuple[str, str]

_NOTES: dict[NoteCode, Pair] = {
    NoteCode.GAP_RUN_AFTER: (
        "Meant for {en}, which the clock jumps over; runs right after the jump",
        "{ja}は時計が進んで存在しないため、進んだ直後に実行",
    ),
    NoteCode.GAP_SHIFT: (
        "Meant for {en}, which the clock jumps over; runs as much later as the clock jumps",
        "{ja}は時計が進んで存在しないため、進んだ分だけ遅らせて実行",
    ),
    NoteCode.GAP_SKIP: (
        "{en} does not exist, because the clock jumps over it; not run (dst_gap: skip)",
        "{ja}は時計が進んで存在しないため、実行しない（dst_gap: skip）",
    ),
    NoteCode.GAP_ELAPSED: (
        "{en} does not exist, because the clock jumps over it; not run (by elapsed time)",
        "{ja}は時計が進んで存在しない。経過時間で数える規則のため、実行しない",
    ),
    NoteCode.FOLD_FIRST: (
        "The clock shows {en} twice; runs the first time only",
        "{ja}は時計が戻って2度ある。1度目だけ実行",
    ),
    NoteCode.FOLD_SECOND: (
        "The clock shows {en} twice; runs the second time only",
        "{ja}は時計が戻って2度ある。2度目だけ実行",
    ),
    NoteCode.FOLD_BOTH_FIRST: (
        "The clock shows {en} twice and it runs both times; this is the first",
        "{ja}は時計が戻って2度あり、2度とも実行。これは1度目",
    ),
    NoteCode.FOLD_BOTH_SECOND: (
        "The clock shows {en} twice and it runs both times; this is the second",
        "{ja}は時計が戻って2度あり、2度とも実行。これは2度目",
    ),
}
_FATES: dict[Fate, Pair] = {
    Fate.RUN_AFTER: ("runs right after the jump", "進んだ直後に実行"),
    Fate.SHIFTED: ("runs as much later as the clock jumps", "進んだ分だけ遅らせて実行"),
    Fate.SKIPPED: ("not run", "実行しない"),
    Fate.FIRST: ("runs once, the first time", "1度目だけ実行"),
    Fate.SECOND: ("runs once, the second time", "2度目だけ実行"),
    Fate.TWICE: ("runs twice", "2度とも実行"),
    Fate.OUTSIDE: ("outside start_at and end_at", "start_at〜end_atの範囲外"),
}
_DAYS_PER_YEAR = 365


def describe_note(code: NoteCode, wall: datetime) -> Pair:
    """Write a note on one local time."""
    en, ja = _NOTES[code]
    return en.format(en=english.format_wall(wall)), ja.format(ja=japanese.format_wall(wall))


def describe_fate(fate: Fate) -> Pair:
    """Write what becomes of a local time."""
    return _FATES[fate]


def describe_wait(wait: timedelta) -> Pair:
    """Write how far off an instant is, to its two largest units."""
    days, seconds = wait.days, wait.seconds
    if wait < timedelta(seconds=1):
        return "now", "今すぐ"
    if days >= _DAYS_PER_YEAR:
        years, rest = divmod(days, _DAYS_PER_YEAR)
        en = f"in {years} year{'' if years == 1 else 's'}"
        return (f"{en} and {_days(rest)}" if rest else en), (
            f"{years}年と{rest}日後" if rest else f"{years}年後"
        )
    if days:
        seconds -= seconds % 3600
    elif seconds >= 3600:  # noqa: PLR2004 - an hour
        seconds -= seconds % 60
    coarse = timedelta(days=days, seconds=seconds)
    return f"in {english.format_period(coarse)}", f"{japanese.format_period(coarse)}後"


def describe_state(state: JobState) -> Pair | None:
    """Say why what is shown will not run, if the job's state keeps it from running."""
    match state:
        case JobState.ACTIVE:
            return None
        case JobState.PAUSED:
            return (
                "The job is paused: none of this runs until it is resumed",
                "このジョブは一時停止中のため、再開するまで実行されません",
            )
        case JobState.FINISHED:
            return (
                "The job is completed: its schedule has no further time",
                "このジョブは完了しています。これ以降の予定はありません",
            )
        case JobState.BROKEN | JobState.DELETED:
            return (
                "The job is broken: none of this runs until it is sent again",
                "このジョブは壊れているため、送り直すまで実行されません",
            )
        case _:
            assert_never(state)


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
