"""What the writers of explanations need to know: an explanation, read in its job's zone.

Imports the engine's explanation and the writers of local times; called by
``explaining_english.py``, ``explaining_japanese.py`` and the answer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.catalogue import Text, reason_entry
from app.domain.errors import InvalidScheduleError
from app.domain.execution import Execution, Reason
from app.domain.policies import RunPolicy
from app.domain.schedule import Schedule
from app.engine.explanation import Explanation, Surroundings
from app.engine.zones import load_zone
from app.schemas.words.local import LocalTime, local_time

# A start is on time if it comes so soon after what was wanted.
_ON_TIME = timedelta(seconds=1)
# A length of time is written to the millisecond below the first, to the second below the second.
_FINE, _MIDDLE = timedelta(seconds=10), timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """An explanation and the zone its times are told in."""

    told: Explanation
    zone: str

    @property
    def when(self) -> datetime:
        """Tell the time that the sentence is about: the due instant, else what was asked."""
        return self.told.due or self.told.findings.asked.begin

    @property
    def is_future(self) -> bool:
        """Tell whether that time is still to come."""
        return self.when > self.told.findings.now

    @property
    def around(self) -> Surroundings:
        """Return what surrounds the row."""
        return self.told.findings.around

    @property
    def execution(self) -> Execution:
        """Return the row's execution; asked only where a row speaks."""
        assert self.told.entry is not None, "this verdict comes from a row"
        return self.told.entry.execution

    @property
    def reason(self) -> Reason:
        """Return the row's reason; asked only where the row has one."""
        assert self.execution.reason is not None, "an end like this has a reason"
        return self.execution.reason

    @property
    def title(self) -> Text:
        """Return the title of the row's reason."""
        return reason_entry(self.reason).title

    @property
    def policy(self) -> RunPolicy | None:
        """Return the policy in force, if it can be read."""
        revision = self.told.findings.revision
        return None if revision is None else revision.policy

    @property
    def lateness(self) -> timedelta:
        """Tell how late it started or was found."""
        return coarse(self.told.lateness or timedelta(0))

    @property
    def found_late(self) -> timedelta:
        """Tell how long after its time it is by now."""
        return coarse(self.told.findings.now - self.when)

    @property
    def is_on_time(self) -> bool:
        """Tell whether it started when it was to start, jitter included."""
        late = self.told.lateness or timedelta(0)
        return late - self.jitter < _ON_TIME

    @property
    def jitter(self) -> timedelta:
        """Tell how long the start waits by jitter."""
        return timedelta(0) if self.told.match is None else self.told.match.start_delay

    @property
    def void_wall(self) -> datetime:
        """Return the local time that a jump of the clock takes away."""
        match = self.told.match
        if match is not None and match.void is not None:
            return match.void.wall
        return self.told.findings.asked.wall or self.local(self.when).wall

    def local(self, instant: datetime) -> LocalTime:
        """Read the zone's clocks, to the second."""
        return local_time(instant.replace(microsecond=0), self.zone)

    def is_near(self, instant: datetime) -> bool:
        """Tell whether the time of day says enough of an instant beside the one told of."""
        this, other = self.local(self.when), self.local(instant)
        return (this.wall.date(), this.offset) == (other.wall.date(), other.offset)


def make_story(told: Explanation) -> Story:
    """Find the zone to tell an explanation in: the rule's, or UTC if that is not known."""
    revision = told.findings.revision or told.findings.created
    return Story(told=told, zone=usable_zone(revision.schedule))


def usable_zone(schedule: Schedule | None) -> str:
    """Return a schedule's zone, or UTC if it cannot be read or this zone data lacks it."""
    if schedule is None:
        return "UTC"
    try:
        load_zone(schedule.timezone)
    except InvalidScheduleError:
        return "UTC"
    return schedule.timezone


def coarse(length: timedelta) -> timedelta:
    """Round a length of time down to what a reader wants of it."""
    if length < _FINE:
        return length - length % timedelta(milliseconds=1)
    if length < _MIDDLE:
        return length - length % timedelta(seconds=1)
    return length - length % timedelta(minutes=1)
