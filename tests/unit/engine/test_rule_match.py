"""The nearest instant before a time, and the fields of a rule that a time does not fit."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.ids import JobId
from app.domain.job import Change, JobState
from app.domain.revision import Revision
from app.engine.rule_match import Asked, find_previous, match_rule
from app.engine.triggers import build_trigger
from tests.support.builders import NOON, make_policy
from tests.support.schedules import cron_of, crontab_of, date_of, interval_of

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


@pytest.mark.parametrize(
    "schedule",
    [
        cron_of(second="*"),
        crontab_of("*/7 * * * *"),
        crontab_of("0 9 * * mon-fri"),
        crontab_of("0 9 29 2 *"),
        interval_of(timedelta(seconds=97)),
        interval_of(400 * DAY),
        date_of(NOON - 3 * DAY),
    ],
)
@pytest.mark.parametrize("back", [SECOND, 40 * MINUTE, 30 * DAY, 2200 * DAY])
def test_the_instant_before_is_the_one_that_leads_here(schedule, back):
    """The instant before a time is after the floor, and the next one is not before the time."""
    floor = NOON - back
    trigger = build_trigger(schedule, anchor=NOON - 2000 * DAY)
    found = find_previous(trigger, NOON, floor=floor)

    if found is None:
        first = trigger.next_after(floor)
        assert first is None or first >= NOON
    else:
        assert floor < found < NOON
        following = trigger.next_after(found)
        assert following is None or following >= NOON


def make_revision(schedule, since: datetime = NOON - DAY) -> Revision:
    """The first revision of a job, a day old."""
    return Revision(
        number=1,
        change=Change.CREATED,
        changed_at=since,
        actor=None,
        state=JobState.ACTIVE,
        schedule=schedule,
        policy=make_policy(),
        anchor=since,
        clock_epoch=0,
        since=since,
        until=None,
    )


def match(schedule, at: datetime, grain: timedelta = MINUTE, **changes):
    """Hold a schedule against a time."""
    asked = Asked(begin=at, grain=grain, **changes)
    revision = make_revision(schedule)
    return match_rule(revision, asked, job_id=JobId("job"), floor=revision.since)


def test_a_rule_that_cannot_be_followed_matches_nothing():
    """Without a rule, or with one that is refused now, nothing is claimed."""
    assert match(None, NOON) is None
    assert match(crontab_of("0 9 * * *", timezone="Mars/Olympus"), NOON) is None


@pytest.mark.parametrize("hour", range(24))
def test_every_hour_is_told_apart(hour):
    """The hour is named as what does not fit exactly when it is another, the last one included."""
    at = datetime(2026, 6, 1, 14, 59, 59, tzinfo=UTC)  # 23:59:59 in Tokyo
    found = match(cron_of(hour=str(hour), minute="59", second="59"), at, SECOND)

    assert found is not None
    assert (found.due == at) == (hour == 23)
    assert [one.field for one in found.mismatches] == ([] if hour == 23 else ["hour"])


def test_the_last_second_of_a_day_fits_its_minute():
    """At the end of a day and of an hour a mere second out of place is told as that."""
    at = datetime(2026, 6, 1, 14, 59, 58, tzinfo=UTC)
    found = match(cron_of(hour="23", minute="59", second="59"), at, SECOND)

    assert found is not None
    assert [(one.field, one.wanted, one.found) for one in found.mismatches] == [
        ("second", "59", "58")
    ]


def test_a_time_before_the_revision_is_too_early_for_it():
    """An instant of the rule before the revision's time is not its own."""
    found = match(crontab_of("* * * * *"), NOON - DAY - MINUTE, 2 * MINUTE)

    assert found is not None
    assert (found.due, found.too_early) == (None, True)
