"""Second opinions on when a crontab line fires, none of which shares code with the triggers.

``debian_fires`` is cronsim in its aware mode (Debian cron's rules). ``MinuteWindow`` looks at
every minute and follows the definitions literally. ``table_changes`` reads a zone's own
transition table. ``distinct_zones`` leaves out links, whose zone data equal another's.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo
from zoneinfo import _zoneinfo as reference  # type: ignore[attr-defined]  # it shows its tables

from cronsim import CronSim

from app.domain.schedule import DstFold, DstGap

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def debian_fires(expression: str, *, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield the UTC instants strictly after ``after`` as cronsim computes them."""
    for local in CronSim(expression, after.astimezone(zone)):
        yield local.astimezone(UTC)


class MinuteWindow:
    """Every minute of a window in one zone, for following the definitions literally.

    No jump of the clock may lie in its first or last day.
    """

    def __init__(self, zone: ZoneInfo, *, begin: datetime, end: datetime) -> None:
        instants = (begin + number * MINUTE for number in range((end - begin) // MINUTE))
        self.minutes = [(at, at.astimezone(zone)) for at in instants]
        self.instants_of: dict[datetime, list[datetime]] = {}
        for at, local in self.minutes:
            self.instants_of.setdefault(local.replace(fold=0, tzinfo=None), []).append(at)
        first, last = min(self.instants_of), max(self.instants_of)
        self.walls = [first + number * MINUTE for number in range((last - first) // MINUTE + 1)]

    def fires(
        self,
        expression: str,
        *,
        gap: DstGap = DstGap.RUN_AFTER,
        fold: DstFold = DstFold.FIRST,
    ) -> list[datetime]:
        """List the instants of a crontab line in the window."""
        matches = minute_matcher(expression)
        minute_text, hour_text = expression.split()[:2]
        if any(item.startswith("*") for item in f"{minute_text},{hour_text}".split(",")):
            return [at for at, local in self.minutes if matches(local)]
        fires = set()
        for wall in filter(matches, self.walls):
            instants = self.instants_of.get(wall)
            fires.update(_of_existing(instants, fold) if instants else self._of_missing(wall, gap))
        return sorted(fires)

    def _of_missing(self, wall: datetime, gap: DstGap) -> list[datetime]:
        if gap is DstGap.SKIP:
            return []
        before = wall
        while before not in self.instants_of:
            before -= MINUTE
        end_of_gap = self.instants_of[before][-1] + MINUTE
        if gap is DstGap.RUN_AFTER:
            return [end_of_gap]
        return [end_of_gap + (wall - before - MINUTE)]


def minute_matcher(expression: str) -> Callable[[datetime], bool]:
    """Return the test of one wall clock minute."""
    fields = CronSim(expression, datetime(2000, 1, 1))  # noqa: DTZ001 - only parses

    def matches(wall: datetime) -> bool:
        return (
            wall.minute in fields.minutes
            and wall.hour in fields.hours
            and wall.month in fields.months
            and fields.match_day(wall.date())
        )

    return matches


def table_changes(name: str, *, first_year: int, last_year: int) -> list[datetime]:
    """List the instants at which a zone's offset changes, from its transition table and rule."""
    with zone_file(name).open("rb") as file:
        zone = reference.ZoneInfo.from_file(file, key=name)
    begin = datetime(first_year, 1, 1, tzinfo=UTC)
    end = datetime(last_year + 1, 1, 1, tzinfo=UTC)
    candidates = {EPOCH + timedelta(seconds=second) for second in zone._trans_utc}
    rule = zone._tz_after
    if hasattr(rule, "transitions"):
        for year in range(first_year - 1, last_year + 2):
            for wall in rule.transitions(year):
                for offset in (rule.std.utcoff, rule.dst.utcoff):
                    candidates.add(EPOCH + timedelta(seconds=wall) - offset)
    second = timedelta(seconds=1)
    return [
        at
        for at in sorted(candidates)
        if begin <= at < end
        and (at - second).astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset()
    ]


def zone_file(name: str) -> resources.abc.Traversable:
    """Return a zone's file in the ``tzdata`` package."""
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))


@cache
def distinct_zones() -> tuple[str, ...]:
    """Return one name for each different zone file."""
    listing = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    by_content: dict[bytes, str] = {}
    for name in listing.split():
        by_content.setdefault(zone_file(name).read_bytes(), name)
    return tuple(by_content.values())


def _of_existing(instants: list[datetime], fold: DstFold) -> list[datetime]:
    match fold:
        case DstFold.FIRST:
            return instants[:1]
        case DstFold.SECOND:
            return instants[-1:]
        case DstFold.BOTH:
            return instants
