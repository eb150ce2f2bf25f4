"""Finds the due instants of schedules that fell behind, away from the scheduler and the loop.

After downtime, a long pause of the process or a clock step, a schedule may be millions of instants
behind. APScheduler would enumerate them on the event loop; this runs in a thread, lists the newest
``LISTED_MAX`` and only counts the older ones, in milliseconds and bounded memory.
"""

from datetime import UTC, datetime, timedelta

from app.domain.clock import from_us, to_us
from app.domain.job import DueJob
from app.engine.tick import DueInstants, Stretch
from app.engine.triggers import ScheduleTrigger

# Newest instants kept one by one; none of the policies looks at more.
LISTED_MAX = 1000
_MICROSECOND = timedelta(microseconds=1)


def find_due_instants(job: DueJob, trigger: ScheduleTrigger, *, now: datetime) -> DueInstants:
    """List what is due from ``job.next_run_time`` until ``now`` (at least that one instant)."""
    first = job.next_run_time
    until = max(first, now)
    before = first - _MICROSECOND
    elided = None
    if trigger.count(before, until) > LISTED_MAX:
        cut = find_newest(trigger, LISTED_MAX, after=before, until=until)
        elided = find_stretch(trigger, after=before, until=cut)
        before = cut
    listed: list[datetime] = []
    instant: datetime | None = first if elided is None else trigger.next_after(before)
    while instant is not None and instant <= until:
        listed.append(instant)
        instant = trigger.next_after(instant)
    return DueInstants(
        job=job,
        fire_times=tuple(listed),
        next_run_time=instant,
        elided=elided,
        left_out=trigger.left_out(job.cursor, listed[-1]),
    )


def find_stretch(trigger: ScheduleTrigger, *, after: datetime, until: datetime) -> Stretch | None:
    """Sum up the instants after one instant up to and including another; None if there are none."""
    first = trigger.next_after(after)
    if first is None or first > until:
        return None
    cut = find_newest(trigger, 1, after=after, until=until)
    last = trigger.next_after(cut)
    assert last is not None, "there is an instant after the cut"
    return Stretch(first=first, last=last, count=trigger.count(after, until))


def find_newest(
    trigger: ScheduleTrigger, count: int, *, after: datetime, until: datetime
) -> datetime:
    """Find an instant so that at most ``count`` (at least one) lie after it, up to ``until``.

    There must be an instant between ``after`` and ``until``. Bisects by counting: some fifty
    counts, whatever the span.
    """
    low, high = to_us(after.astimezone(UTC)), to_us(until.astimezone(UTC))
    while high - low > 1:
        middle = (low + high) // 2
        if trigger.count(from_us(middle), until) > count:
            low = middle
        else:
            high = middle
    # Between low (too many) and high (few enough, perhaps none) lies one instant, at high.
    few = trigger.count(from_us(high), until)
    return from_us(high) if few else from_us(low)
