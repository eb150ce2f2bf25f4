"""Jobs as users might ask for them: some kinds of schedules, any policies."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from app.domain.job import HttpTarget, JobDefinition
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy, RetryPolicy, RunPolicy
from app.domain.schedule import CronRule, CrontabRule, DstFold, DstGap, Schedule
from tests.support.builders import make_definition, make_delivery, make_policy
from tests.support.schedules import crontab_of, date_of, interval_of

SECOND = timedelta(seconds=1)
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
_EVERY_20_SECONDS = CronRule(fields=(("minute", "*"), ("second", "*/20")))


def _in_new_york(expression: str, **options: Any) -> Schedule:
    return Schedule(rule=CrontabRule(expression=expression), timezone="America/New_York", **options)


def _twice_a_night(gap: DstGap, fold: DstFold) -> Callable[[datetime], Schedule]:
    return lambda now: _in_new_york("30 1,2 * * *", dst_gap=gap, dst_fold=fold)


# Schedules by name, made for the moment at which they are asked for.
KINDS: dict[str, Callable[[datetime], Schedule]] = {
    "every 7 s": lambda now: interval_of(7 * SECOND),
    "every minute": lambda now: interval_of(MINUTE),
    "every minute from a time": lambda now: interval_of(
        MINUTE, start_at=now.replace(second=0, microsecond=0) + 3 * MINUTE
    ),
    "on the minute": lambda now: crontab_of("* * * * *"),
    "on the minute, with jitter": lambda now: crontab_of("* * * * *", jitter=20 * SECOND),
    "on seconds 0, 20 and 40": lambda now: Schedule(rule=_EVERY_20_SECONDS, timezone="Asia/Tokyo"),
    "an hour's minutes at night": lambda now: _in_new_york("0-59 1 * * *"),
    "a moment ago": lambda now: date_of(now - 10 * SECOND),
    "in half a minute": lambda now: date_of(now + 30 * SECOND),
    "in 40 minutes": lambda now: date_of(now + 40 * MINUTE),
    **{
        f"01:30 and 02:30, gap {gap}, fold {fold}": _twice_a_night(gap, fold)
        for gap in DstGap
        for fold in DstFold
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job that somebody wants, before it has a name and a moment."""

    kind: str
    policy: RunPolicy
    retry: RetryPolicy

    def define(self, now: datetime, name: str) -> JobDefinition:
        """Make it a job; each has a host of its own, and attempts may take long."""
        target = HttpTarget(method="GET", url=f"http://{name}.example/hook")
        delivery = make_delivery(target=target, timeout=10 * HOUR, retry=self.retry)
        schedule = KINDS[self.kind](now)
        return make_definition(schedule=schedule, policy=self.policy, delivery=delivery)


_policies = st.builds(
    make_policy,
    misfire_grace=st.sampled_from([None, timedelta(0), 30 * SECOND]),
    catch_up=st.sampled_from(CatchUp),
    catch_up_window=st.sampled_from([None, 2 * MINUTE]),
    catch_up_max_runs=st.sampled_from([0, 3, 20]),
    overlap=st.sampled_from(OverlapPolicy),
    max_instances=st.sampled_from([1, 2]),
    on_crash=st.sampled_from(OnCrash),
)
_retries = st.sampled_from([RetryPolicy(), RetryPolicy(max_retries=2, first_wait=5 * SECOND)])


def _bounded(policy: RunPolicy) -> RunPolicy:
    """Keep a policy from starting a thousand runs at once, which would be right, and slow."""
    piles_up = policy.overlap in {OverlapPolicy.ALLOW, OverlapPolicy.QUEUE_ALL}
    if piles_up and policy.misfire_grace is None:
        return replace(policy, misfire_grace=30 * SECOND)
    return policy


def _wishes(kinds: list[str]) -> st.SearchStrategy[Wish]:
    kind = st.sampled_from(kinds)
    return st.builds(Wish, kind=kind, policy=_policies.map(_bounded), retry=_retries)


wishes = _wishes(list(KINDS))
# Those for which a night is different when the zone's clocks change.
night_wishes = _wishes([kind for kind in KINDS if "01:30" in kind or "night" in kind])
