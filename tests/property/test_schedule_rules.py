"""What random rules have in common, and what they mean without a zone's jumps."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DstFold,
    DstGap,
    IntervalRule,
    Rule,
    Schedule,
)
from app.engine.crontab import CrontabPattern
from app.engine.triggers import CronPattern, ScheduleTrigger, build_trigger, jitter_delay
from app.engine.zones import zone_names

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "day_of_week": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
RANGES = {
    "minute": (0, 59, 60),
    "hour": (0, 23, 24),
    "day": (1, 31, 31),
    "month": (1, 12, 12),
    "day_of_week": (0, 7, 7),
}

instants = st.datetimes(
    min_value=datetime(1975, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    max_value=datetime(2060, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    timezones=st.just(UTC),
)
zones = st.sampled_from(zone_names())


@st.composite
def field_items(draw, name: str) -> tuple[str, frozenset[int]]:
    """Draw one item and the values it means, by the definition of the grammar."""
    low, high, cycle = RANGES[name]
    values = st.integers(low, high)
    first, last = draw(values), draw(values)

    def written(value: int) -> str:
        names = NAMES.get(name)
        sunday_as_7 = name == "day_of_week" and value == 7  # sun is 0: 0-sun is one day, 0-7 all
        if names is None or sunday_as_7 or draw(st.booleans()):
            return str(value)
        known = names[(value - (name == "month")) % len(names)]
        return known.upper() if draw(st.booleans()) else known

    kind = draw(st.sampled_from(["one", "range", "step", "range step"]))
    step = draw(st.integers(1, max((last - first) % cycle, 1)))
    if kind == "one":
        return written(first), frozenset({first % 7 if name == "day_of_week" else first})
    if kind == "step":
        step = draw(st.integers(1, high - low))
        return f"*/{step}", frozenset(
            value % 7 if name == "day_of_week" else value for value in range(low, high + 1, step)
        )
    run = list(range(first, last + 1))
    if first > last:
        length = (last - first) % cycle + 1
        run = [(first - low + number) % cycle + low for number in range(length)]
    text = f"{written(first)}-{written(last)}"
    if kind == "range step":
        text, run = f"{text}/{step}", run[::step]
    return text, frozenset(value % 7 if name == "day_of_week" else value for value in run)


@st.composite
def fields(draw, name: str) -> tuple[str, frozenset[int]]:
    """Draw a list of items, or a star."""
    low, _, cycle = RANGES[name]
    if draw(st.booleans()):
        return "*", frozenset(range(low, low + cycle))
    items = draw(st.lists(field_items(name), min_size=1, max_size=3))
    return ",".join(text for text, _ in items), frozenset().union(*(means for _, means in items))


@st.composite
def crontab_lines(draw) -> tuple[str, tuple[frozenset[int], ...]]:
    """Draw a line and what its five fields mean; 30 and 31 come with months that have them."""
    drawn = [draw(fields(name)) for name in RANGES]
    if not drawn[2][1] & frozenset(range(1, 29)):
        drawn[3] = ("*", frozenset(range(1, 13)))
    return " ".join(text for text, _ in drawn), tuple(means for _, means in drawn)


def trigger_of(rule: Rule, zone: str = "UTC", **options) -> ScheduleTrigger:
    """Build the trigger of a rule."""
    return build_trigger(Schedule(rule=rule, timezone=zone, **options), anchor=ANCHOR)


def day_matches(line: str, means: tuple[frozenset[int], ...], day: date) -> bool:
    """Judge a day as cron does: day or weekday, but both where one begins with a star."""
    _, _, days, months, weekdays = means
    by_day, by_weekday = day.day in days, day.isoweekday() % 7 in weekdays
    both = any(field.startswith("*") for field in (line.split()[2], line.split()[4]))
    return day.month in months and ((by_day and by_weekday) if both else (by_day or by_weekday))


@settings(max_examples=300, deadline=None)
@given(line=crontab_lines(), begin=instants)
def test_a_crontab_line_means_what_its_grammar_says(line, begin):
    """In UTC the next instant matches every field, and no minute before it does."""
    expression, means = line
    fire = trigger_of(CrontabRule(expression=expression)).next_after(begin)
    assert fire is not None
    minutes, hours = means[:2]
    assert day_matches(expression, means, fire.date())
    assert (fire.hour in hours, fire.minute in minutes, fire.second) == (True, True, 0)
    day = begin.date()
    while day < fire.date():
        times_left = day > begin.date() or any(
            (hour, minute) > (begin.hour, begin.minute) for hour in hours for minute in minutes
        )
        assert not (times_left and day_matches(expression, means, day))
        day += timedelta(days=1)
    earlier = [
        (hour, minute)
        for hour in hours
        for minute in minutes
        if (hour, minute) < (fire.hour, fire.minute)
    ]
    if begin.date() == fire.date():
        earlier = [time for time in earlier if time > (begin.hour, begin.minute)]
    assert earlier == []


@settings(max_examples=200, deadline=None)
@given(line=crontab_lines(), begin=instants)
@example(line=("0 12 * * 1-5", ()), begin=datetime(2026, 11, 20, 13, tzinfo=UTC))
def test_the_fast_path_of_crontab_is_cronsims_search(line, begin):
    """Looking at eight days and then searching finds what cronsim alone finds."""
    pattern = CrontabPattern(line[0])
    wall = begin.replace(tzinfo=None, microsecond=0)
    assert pattern.search(wall) == pattern.first_from(wall)


@settings(max_examples=200, deadline=None)
@given(
    texts=st.fixed_dictionaries(
        {name: fields(name) for name in ("hour", "minute", "day_of_week", "month")},
        optional={"day": fields("day"), "second": st.just(("*/7", frozenset()))},
    ),
    begin=instants,
)
def test_the_fast_path_of_cron_is_apschedulers_search(texts, begin):
    """Looking at eight days and then searching finds what APScheduler alone finds."""
    given_fields = {name: text for name, (text, _) in texts.items()}
    if "day" in given_fields:
        given_fields["month"] = given_fields["day_of_week"] = "*"
    pattern = CronPattern(tuple(given_fields.items()))
    wall = begin.replace(tzinfo=None, microsecond=0)
    assert pattern.search(wall) == pattern.first_from(wall)


@settings(max_examples=150, deadline=None)
@given(
    hour=fields("hour"),
    minute=fields("minute"),
    weekday=fields("day_of_week"),
    zone=zones,
    begin=instants,
)
def test_a_crontab_line_split_into_fields_fires_alike(hour, minute, weekday, zone, begin):
    """A crontab line and a cron object of the same texts fire at the same instants."""
    line = CrontabRule(expression=f"{minute[0]} {hour[0]} * * {weekday[0]}")
    split = CronRule(
        fields=(
            ("day_of_week", weekday[0]),
            ("hour", hour[0]),
            ("minute", minute[0]),
            ("second", "0"),
        )
    )
    of_line, of_split = trigger_of(line, zone), trigger_of(split, zone)
    at = begin
    for _ in range(10):
        expected = of_line.next_after(at)
        assert expected == of_split.next_after(at)
        assert expected is not None
        at = expected


@settings(max_examples=150, deadline=None)
@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.one_of(st.just("*"), st.integers(1, 28).map(str)),
    weekday=st.one_of(st.just("*"), st.integers(0, 7).map(str)),
    begin=instants,
)
def test_plain_lines_agree_with_croniter(minute, hour, day, weekday, begin):
    """In UTC a line of plain numbers fires when croniter says."""
    expression = f"{minute} {hour} {day} * {weekday}"
    expected = croniter(expression, begin).get_next(datetime)
    assert expected == trigger_of(CrontabRule(expression=expression)).next_after(begin)


@settings(max_examples=200, deadline=None)
@given(
    line=crontab_lines(),
    zone=zones,
    begin=instants,
    gap=st.sampled_from(DstGap),
    fold=st.sampled_from(DstFold),
)
def test_fires_do_not_depend_on_where_one_begins_to_look(line, zone, begin, gap, fold):
    """Asked anywhere between two fires, a trigger names the later one."""
    trigger = trigger_of(CrontabRule(expression=line[0]), zone, dst_gap=gap, dst_fold=fold)
    fires = [begin]
    for _ in range(6):
        following = trigger.next_after(fires[-1])
        if following is None:
            break
        fires.append(following)
    for earlier, later in pairwise(fires):
        assert earlier < later
        assert later == trigger.next_after(earlier + (later - earlier) / 2 - timedelta(seconds=1))
        assert later == trigger.next_from(later - timedelta(microseconds=1))
        assert later == trigger.next_from(later)


@given(
    period=st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3660)),
    start_at=st.one_of(st.none(), instants),
    after=instants,
)
@example(
    period=timedelta(seconds=1), start_at=None, after=datetime(2059, 12, 31, 23, 59, tzinfo=UTC)
)
def test_intervals_are_whole_periods_from_their_anchor(period, start_at, after):
    """An interval fires next at the first whole number of periods from its anchor."""
    trigger = trigger_of(IntervalRule(period=period, parts=()), start_at=start_at)
    origin = ANCHOR if start_at is None else start_at
    first = origin + period if start_at is None else origin
    fire = trigger.next_after(after)
    assert fire is not None
    assert (fire - origin) % period == timedelta(0)
    assert fire > after
    assert fire == first or (fire > first and fire - period <= after)


@given(
    jitter=st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)),
    job_id=st.text(max_size=20),
    at=instants,
)
def test_jitter_stays_within_its_bounds_and_is_repeatable(jitter, job_id, at):
    """A start is delayed by 0 … jitter, by the same amount whenever it is asked."""
    schedule = Schedule(rule=CrontabRule(expression="@daily"), timezone="UTC", jitter=jitter)
    delay = jitter_delay(schedule, job_id, at)
    assert timedelta(0) <= delay <= jitter
    assert delay == jitter_delay(schedule, job_id, at)
