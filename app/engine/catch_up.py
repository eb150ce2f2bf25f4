"""Finds the due instants of schedules that fell behind, away from the scheduler and the loop.

After downtime, a long pause of the process or a clock step, a schedule may be many instants behind.
APScheduler would enumerate them on the event loop; this runs in a thread and keeps memory bounded:
the newest ``LISTED_MAX`` instants are listed, the older ones only counted.
"""

from collections import deque
from datetime import datetime

from app.domain.job import DueJob
from app.engine.tick import DueInstants, Stretch
from app.engine.triggers import ScheduleTrigger

# Newest instants kept one by one; none of the policies looks at more.
LISTED_MAX = 1000


def find_due_instants(job: DueJob, trigger: ScheduleTrigger, *, now: datetime) -> DueInstants:
    """List what is due from ``job.next_run_time`` until ``now`` (at least that one instant)."""
    listed: deque[datetime] = deque()
    first_elided: datetime | None = None
    last_elided: datetime | None = None
    elided_count = 0
    instant: datetime | None = job.next_run_time
    while instant is not None and (instant <= now or not listed):
        listed.append(instant)
        if len(listed) > LISTED_MAX:
            last_elided = listed.popleft()
            first_elided = first_elided or last_elided
            elided_count += 1
        instant = trigger.next_after(instant)
    elided = None
    if first_elided is not None and last_elided is not None:
        elided = Stretch(first=first_elided, last=last_elided, count=elided_count)
    return DueInstants(job=job, fire_times=tuple(listed), next_run_time=instant, elided=elided)
