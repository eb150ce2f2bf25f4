"""Previews and simulations: what runs is the trigger's word, why is theirs."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import DstFold, DstGap, Schedule
from app.engine.occurrences import DROPPED_MAX, NoteCode, preview_schedule, preview_trigger
from app.engine.simulation import WALLS_MAX, Fate, simulate_schedule, simulate_year
from app.engine.transitions import TransitionKind, clock_jumps, list_transitions
from app.engine.triggers import build_trigger
from tests.support.cron_oracles import distinct_zones, table_changes
from tests.support.schedules import cron_of, crontab_of, date_of, interval_of

NEW_YORK = "America/New_York"
BEFORE_GAP = datetime(2026, 3, 8, 5, tzinfo=UTC)  # midnight; the clock jumps from 2 to 3
GAP = datetime(2026, 3, 8, 7, tzinfo=UTC)
BEFORE_FOLD = datetime(2026, 11, 1, 4, tzinfo=UTC)  # midnight; the clock shows 1 to 2 twice
FOLD = datetime(2026, 11, 1, 6, tzinfo=UTC)


def new_york(line: str, **options) -> Schedule:
    return crontab_of(line, timezone=NEW_YORK, **options)


def noted(schedule: Schedule, *, begin: datetime, count: int) -> list[tuple[str, list[str]]]:
    """List each occurrence's UTC time of day with its codes."""
    preview = preview_schedule(schedule, begin=begin, count=count)
    return [
        (f"{found.at:%d %H:%M}", [note.code.value for note in found.notes])
        for found in preview.occurrences
    ]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (new_york("30 2 * * *"), [("08 07:00", ["gap_run_after"]), ("09 06:30", [])]),
        (
            new_york("30 2 * * *", dst_gap=DstGap.SHIFT),
            [("08 07:30", ["gap_shift"]), ("09 06:30", [])],
        ),
        (new_york("30 2 * * *", dst_gap=DstGap.SKIP), [("09 06:30", []), ("10 06:30", [])]),
        (new_york("0 3 * * *"), [("08 07:00", []), ("09 07:00", [])]),
        (
            new_york("30 3 * * *", dst_gap=DstGap.SHIFT),
            [("08 07:30", []), ("09 07:30", [])],
        ),
    ],
)
def test_notes_at_a_gap(schedule, expected):
    """An occurrence that the clock's jump moved says so; one behind the jump does not."""
    assert expected == noted(schedule, begin=BEFORE_GAP, count=2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (new_york("30 1 * * *"), [("01 05:30", ["fold_first"]), ("02 06:30", [])]),
        (
            new_york("30 1 * * *", dst_fold=DstFold.SECOND),
            [("01 06:30", ["fold_second"]), ("02 06:30", [])],
        ),
        (
            new_york("30 1 * * *", dst_fold=DstFold.BOTH),
            [("01 05:30", ["fold_both_first"]), ("01 06:30", ["fold_both_second"])],
        ),
        (
            new_york("30 * * * *"),
            [("01 04:30", []), ("01 05:30", ["fold_both_first"])],
        ),
        (
            new_york("0 1 * * *", dst_fold=DstFold.BOTH),
            [("01 05:00", ["fold_both_first"]), ("01 06:00", ["fold_both_second"])],
        ),
        (new_york("0 2 * * *"), [("01 07:00", []), ("02 07:00", [])]),
    ],
)
def test_notes_at_a_fold(schedule, expected):
    """An occurrence whose local time comes twice says which of both it is."""
    assert expected == noted(schedule, begin=BEFORE_FOLD, count=2)


def test_instants_beside_a_jump_have_no_note():
    """Before a gap, and within its width behind it, an instant that no jump moved has no note."""
    schedule = new_york("59 1 * * *")
    assert noted(schedule, begin=BEFORE_GAP, count=1) == [("08 06:59", [])]
    schedule = new_york("30 3 * * *")
    assert noted(schedule, begin=BEFORE_GAP, count=1) == [("08 07:30", [])]
    schedule = new_york("59 0,2 * * *")
    assert noted(schedule, begin=BEFORE_FOLD, count=2) == [("01 04:59", []), ("01 07:59", [])]


def test_dropped_times_are_listed():
    """With dst_gap=skip the local time that does not exist is listed with the jump's instant."""
    schedule = new_york("30 2 * * *", dst_gap=DstGap.SKIP)
    preview = preview_schedule(schedule, begin=BEFORE_GAP, count=1)
    (dropped,) = preview.dropped
    assert dropped.wall.isoformat() == "2026-03-08T02:30:00"
    assert (dropped.at, dropped.code) == (GAP, NoteCode.GAP_SKIP)


def test_dropped_times_are_limited():
    """At most so many dropped times are listed, and the rest is counted."""
    schedule = crontab_of("* 2 * * *", timezone=NEW_YORK)
    preview = preview_schedule(schedule, begin=BEFORE_GAP, count=1000)
    assert (len(preview.dropped), preview.dropped_omitted) == (60, 0)
    two_years = preview_schedule(
        crontab_of("* 2 8-14 3 *", timezone=NEW_YORK), begin=BEFORE_GAP, count=1000
    )
    assert (
        len(two_years.dropped),
        two_years.dropped_omitted,
    ) == (DROPPED_MAX, 60 * 3 - DROPPED_MAX)


def test_nothing_is_dropped_outside_the_bounds():
    """A time that start_at excludes anyway is not said to be dropped."""
    schedule = new_york("30 2 * * *", dst_gap=DstGap.SKIP, start_at=GAP + timedelta(hours=1))
    assert preview_schedule(schedule, begin=BEFORE_GAP, count=3).dropped == ()


@pytest.mark.parametrize(
    "schedule", [interval_of(timedelta(hours=1)), date_of(datetime(2027, 1, 1, tzinfo=UTC))]
)
def test_rules_of_instants_have_no_notes(schedule):
    """An interval or a date is an instant by itself: nothing moves it."""
    preview = preview_schedule(schedule, begin=BEFORE_GAP, count=3)
    assert [()] * len(preview.occurrences) == [found.notes for found in preview.occurrences]
    assert preview.dropped == ()


def test_a_preview_shows_what_the_trigger_fires():
    """The instants are the trigger's, the first at the very beginning included."""
    schedule = crontab_of("*/7 * * * *")
    trigger = build_trigger(schedule, anchor=BEFORE_GAP)
    shown = preview_schedule(schedule, begin=BEFORE_GAP, count=50).occurrences
    expected: list[datetime] = []
    at = trigger.next_from(BEFORE_GAP)
    while at is not None and len(expected) < 50:
        expected.append(at)
        at = trigger.next_after(at)
    assert expected == [found.at for found in shown]


def test_fewer_occurrences_at_the_end():
    """A schedule that ends shows what is left, which may be nothing."""
    schedule = crontab_of("0 0 * * *", end_at=datetime(2026, 1, 3, tzinfo=UTC))
    trigger = build_trigger(schedule, anchor=BEFORE_GAP)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert len(preview_trigger(trigger, begin=begin, count=9).occurrences) == 2
    assert preview_trigger(trigger, begin=BEFORE_GAP, count=9).occurrences == ()


@pytest.mark.parametrize(
    ("schedule", "begin", "words"),
    [
        (crontab_of("0 0 31 2 *"), BEFORE_GAP, "never meet"),
        (date_of(datetime(2020, 1, 1, tzinfo=UTC)), BEFORE_GAP, "run_at lies in the past"),
        (crontab_of("0 0 * * *", timezone="Asia/Tokio"), BEFORE_GAP, "Asia/Tokyo"),
        (crontab_of("@daily"), datetime(1969, 12, 31, tzinfo=UTC), "1970"),
        (crontab_of("@daily"), datetime(2200, 1, 1, tzinfo=UTC), "2199"),
    ],
)
def test_refusals(schedule, begin, words):
    """What could not be created cannot be previewed, and the sentence says why."""
    with pytest.raises(InvalidScheduleError, match=words):
        preview_schedule(schedule, begin=begin, count=1)


@pytest.mark.parametrize(
    ("options", "gap_fate", "gap_at", "fold_fate", "fold_at"),
    [
        ({}, Fate.RUN_AFTER, ["07:00"], Fate.FIRST, ["05:30"]),
        (
            {"dst_gap": DstGap.SHIFT, "dst_fold": DstFold.SECOND},
            Fate.SHIFTED,
            ["07:30"],
            Fate.SECOND,
            ["06:30"],
        ),
        (
            {"dst_gap": DstGap.SKIP, "dst_fold": DstFold.BOTH},
            Fate.SKIPPED,
            [],
            Fate.TWICE,
            ["05:30", "06:30"],
        ),
        ({"end_at": datetime(2026, 1, 1, tzinfo=UTC)}, Fate.OUTSIDE, [], Fate.OUTSIDE, []),
        (
            {"dst_fold": DstFold.BOTH, "start_at": FOLD},
            Fate.OUTSIDE,
            [],
            Fate.SECOND,
            ["06:30"],
        ),
    ],
)
def test_fates(options, gap_fate, gap_at, fold_fate, fold_at):
    """What becomes of 02:30 in the gap and of 01:30 in the fold follows the policy and bounds."""
    schedule = new_york("30 1,2 * * *", **options)
    gap, fold = simulate_year(schedule, 2026)
    assert (gap.transition.at, gap.transition.kind) == (GAP, TransitionKind.GAP)
    assert (fold.transition.at, fold.transition.kind) == (FOLD, TransitionKind.FOLD)
    for found, wall, fate, at in (
        (gap, "02:30", gap_fate, gap_at),
        (fold, "01:30", fold_fate, fold_at),
    ):
        (only,) = found.walls
        assert (wall, fate) == (f"{only.wall:%H:%M}", only.fate)
        assert at == [f"{instant:%H:%M}" for instant in only.runs_at]


def test_elapsed_time_skips_and_repeats():
    """A rule with a wildcard does not run in a gap and runs twice in a fold, as time passes."""
    gap, fold = simulate_year(new_york("*/30 * * * *"), 2026)
    assert [wall.fate for wall in gap.walls] == [Fate.SKIPPED, Fate.SKIPPED]
    assert [wall.fate for wall in fold.walls] == [Fate.TWICE, Fate.TWICE]


@pytest.mark.parametrize("gap", DstGap)
@pytest.mark.parametrize("fold", DstFold)
@pytest.mark.parametrize("line", ["0,20,40 0-3 * * *", "*/20 * * * *", "0 2,3 * * *", "59 1 * * *"])
def test_simulated_runs_are_those_of_the_trigger(line, gap, fold):
    """Every instant at which a wall is said to run is one of the trigger's, in several zones."""
    for zone in (NEW_YORK, "Australia/Lord_Howe", "Europe/London"):
        schedule = crontab_of(line, timezone=zone, dst_gap=gap, dst_fold=fold)
        trigger = build_trigger(schedule, anchor=BEFORE_GAP)
        for found in simulate_year(schedule, 2026):
            runs = {at for wall in found.walls for at in wall.runs_at}
            assert all(trigger.next_from(at) == at for at in runs)


def test_walls_are_limited():
    """At most so many walls of a transition are listed, and the rest is counted."""
    schedule = cron_of(second="*")
    every_second = Schedule(rule=schedule.rule, timezone=NEW_YORK)
    gap, _ = simulate_year(every_second, 2026)
    assert (len(gap.walls), gap.omitted) == (WALLS_MAX, 3600 - WALLS_MAX)


def test_walls_over_midnight_are_counted():
    """The count goes on over midnight: Samoa skipped a whole day."""
    schedule = crontab_of("* * * * *", timezone="Pacific/Apia")
    found = simulate_schedule(
        schedule,
        begin=datetime(2011, 12, 30, tzinfo=UTC),
        end=datetime(2011, 12, 31, tzinfo=UTC),
    )
    assert [one.omitted for one in found] == [24 * 60 - WALLS_MAX]


def test_intervals_pass_transitions_untouched():
    """A transition lists no wall of a rule that has none."""
    schedule = Schedule(rule=interval_of(timedelta(hours=1)).rule, timezone=NEW_YORK)
    assert [found.walls for found in simulate_year(schedule, 2026)] == [(), ()]


def test_transitions_are_those_of_the_zones():
    """In every zone the transitions of two years are those of the zone's own table."""
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    for zone in distinct_zones()[::7]:
        expected = table_changes(zone, first_year=2026, last_year=2027)
        assert expected == [found.at for found in list_transitions(zone, begin, end)], zone


def test_a_jump_at_the_turn_of_a_year_is_one():
    """Samoa's jump of 30 December 2011 is listed once, though two years know it."""
    begin, end = datetime(2011, 12, 1, tzinfo=UTC), datetime(2012, 2, 1, tzinfo=UTC)
    (jump,) = list_transitions("Pacific/Apia", begin, end)
    assert (jump.at, jump.width) == (datetime(2011, 12, 30, 10, tzinfo=UTC), timedelta(days=1))


def test_zones_without_jumps():
    """Tokyo's clock does not jump nowadays, New York's does."""
    assert (clock_jumps("Asia/Tokyo"), clock_jumps(NEW_YORK)) == (False, True)
