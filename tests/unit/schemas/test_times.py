from datetime import UTC, date, datetime

import pytest

from app.domain.errors import InvalidScheduleError
from app.domain.schedule import DstFold, DstGap
from app.schemas.times import JumpRule, read_instant, show_instant, zone_abbreviation


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2035-01-01T10:00:00", "Asia/Tokyo", "2035-01-01T01:00:00"),
        ("2035-01-01T10:00:00+02:00", "Asia/Tokyo", "2035-01-01T08:00:00"),
        # the clock goes from 2:00 to 3:00: the first moment after the jump
        ("2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-03-29T02:00:00", "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-03-29T02:59:59.999999", "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-03-29T03:00:00", "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-03-29T01:59:59", "Europe/Berlin", "2026-03-29T00:59:59"),
        # half an hour is skipped here, and a whole day there
        ("2026-10-04T02:15:00", "Australia/Lord_Howe", "2026-10-03T15:30:00"),
        ("2011-12-30T12:00:00", "Pacific/Apia", "2011-12-30T10:00:00"),
        # the clock goes from 3:00 back to 2:00: the first of the two
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00"),
        ("2026-10-25T03:00:00", "Europe/Berlin", "2026-10-25T02:00:00"),
    ],
)
def test_reading(text, zone, utc):
    """A local time is read in its zone; in a gap as its end, in a fold as the first of the two."""
    expected = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert read_instant(datetime.fromisoformat(text), zone) == expected


@pytest.mark.parametrize(
    ("text", "rule", "utc"),
    [
        ("2026-03-29T02:30:00", JumpRule(gap=DstGap.SHIFT), "2026-03-29T01:30:00"),
        ("2026-10-25T02:30:00", JumpRule(fold=DstFold.SECOND), "2026-10-25T01:30:00"),
        # one run cannot be at both
        ("2026-10-25T02:30:00", JumpRule(fold=DstFold.BOTH), "2026-10-25T00:30:00"),
        ("2026-06-01T02:30:00", JumpRule(gap=DstGap.SKIP, fold=DstFold.SECOND),
         "2026-06-01T00:30:00"),
    ],
)  # fmt: skip
def test_reading_by_a_rule(text, rule, utc):
    """A rule for jumps of the clock says where a missing time goes and which double one counts."""
    expected = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert read_instant(datetime.fromisoformat(text), "Europe/Berlin", rule=rule) == expected


def test_a_missing_time_that_is_to_be_skipped():
    """Under dst_gap=skip a time that does not exist is refused, with what to change."""
    with pytest.raises(InvalidScheduleError, match=r"does not exist in Europe/Berlin.*dst_gap"):
        read_instant(
            datetime.fromisoformat("2026-03-29T02:30:00"),
            "Europe/Berlin",
            rule=JumpRule(gap=DstGap.SKIP),
        )


@pytest.mark.parametrize(
    ("day", "zone", "utc"),
    [
        (date(2035, 1, 1), "Asia/Tokyo", datetime(2034, 12, 31, 15, tzinfo=UTC)),
        # midnight itself is skipped: the day begins at one
        (date(2026, 4, 24), "Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),
    ],
)
def test_a_bare_date(day, zone, utc):
    """A bare date is the first moment of the day in its zone."""
    assert read_instant(day, zone) == utc


def test_the_ends_of_the_calendar():
    """A time whose UTC instant is beyond the calendar is an overflow, not another time."""
    with pytest.raises(OverflowError):
        read_instant(date(1, 1, 1), "Asia/Tokyo")
    with pytest.raises(OverflowError):
        read_instant(datetime.fromisoformat("9999-12-31T23:59:59-01:00"), "UTC")


def test_an_unknown_zone():
    """A zone that does not exist is refused."""
    with pytest.raises(InvalidScheduleError):
        read_instant(date(2035, 1, 1), "Mars/Olympus")


def test_showing():
    """An instant is shown with the offset its zone has then; None stays None."""
    summer, winter = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    assert show_instant(summer, "Europe/Berlin") == "2026-07-01T02:00:00+02:00"
    assert show_instant(winter, "Europe/Berlin") == "2026-12-01T01:00:00+01:00"
    assert show_instant(None, "UTC") is None


def test_abbreviations():
    """A zone's own name for its time is used, its offset where it has none."""
    summer, winter = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    assert zone_abbreviation(summer, "Asia/Tokyo") == "JST"
    assert zone_abbreviation(summer, "Europe/Berlin") == "CEST"
    assert zone_abbreviation(winter, "Europe/Berlin") == "CET"
    assert zone_abbreviation(winter, "America/Sao_Paulo") == "-03"
