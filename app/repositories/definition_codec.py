"""Definitions as JSON text in columns, and back.

Three documents: ``schedule`` and ``policy`` are read by every tick and equal in many jobs, so their
parsed forms are shared; ``delivery`` (target, timeout, retries) is read when a run is claimed.
Durations are stored as integer microseconds, instants as microseconds UTC. Fields may be added with
defaults; a document that cannot be read raises ``UnreadableDefinitionError`` and its job is kept.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.domain.clock import from_us, to_us
from app.domain.job import BodyType, Delivery, HttpTarget
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy, RetryPolicy, RunPolicy
from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    DstFold,
    DstGap,
    IntervalRule,
    Rule,
    Schedule,
)

T = TypeVar("T")

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_MICROSECOND = timedelta(microseconds=1)
# The longest that the API accepts is 10**9 seconds.
_DURATION_MAX = timedelta(seconds=10**9)
_BODY_TYPES = {kind.value: kind for kind in BodyType}
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Parsed documents kept: about 1 KiB each, and a tick rarely touches more different ones.
_PARSED_MAX = 1024


class UnreadableDefinitionError(Exception):
    """A stored definition cannot be read; the message says which document."""


def dump_schedule(schedule: Schedule) -> str:
    """Write a schedule; equal schedules give equal text."""
    return _dump(
        {
            **_rule_document(schedule.rule),
            "timezone": schedule.timezone,
            "start_at": _instant(schedule.start_at),
            "end_at": _instant(schedule.end_at),
            "jitter": _micros(schedule.jitter),
            "dst_gap": schedule.dst_gap,
            "dst_fold": schedule.dst_fold,
        }
    )


@lru_cache(maxsize=_PARSED_MAX)
def load_schedule(text: str) -> Schedule:
    """Read what ``dump_schedule`` wrote."""
    return _read("schedule", text, _schedule)


def dump_policy(policy: RunPolicy) -> str:
    """Write a run policy."""
    return _dump(
        {
            "misfire_grace": _optional_micros(policy.misfire_grace),
            "catch_up": policy.catch_up,
            "catch_up_window": _optional_micros(policy.catch_up_window),
            "catch_up_max_runs": policy.catch_up_max_runs,
            "overlap": policy.overlap,
            "max_instances": policy.max_instances,
            "on_crash": policy.on_crash,
        }
    )


@lru_cache(maxsize=_PARSED_MAX)
def load_policy(text: str) -> RunPolicy:
    """Read what ``dump_policy`` wrote."""
    return _read("policy", text, _policy)


def dump_delivery(delivery: Delivery) -> str:
    """Write a delivery."""
    target, retry = delivery.target, delivery.retry
    return _dump(
        {
            "kind": "http",
            "method": target.method,
            "url": target.url,
            "headers": [list(header) for header in target.headers],
            "body": target.body_json,
            "body_type": target.body_type,
            "follow_redirects": target.follow_redirects,
            "timeout": _micros(delivery.timeout),
            "max_retries": retry.max_retries,
            "first_wait": _micros(retry.first_wait),
            "wait_max": _micros(retry.wait_max),
            "retry_statuses": sorted(retry.retry_statuses),
        }
    )


def load_delivery(text: str) -> Delivery:
    """Read what ``dump_delivery`` wrote."""
    return _read("delivery", text, _delivery)


def host_of(url: str) -> str:
    """Tell the key of the per-host limit: lower-case ``host:port``."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme.lower(), 0)
    return f"{(parts.hostname or '').lower()}:{port}"


def _read(document: str, text: str, build: Callable[[dict[str, Any]], T]) -> T:
    try:
        return build(json.loads(text))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UnreadableDefinitionError(f"the stored {document} cannot be read") from error


def _schedule(document: dict[str, Any]) -> Schedule:
    return Schedule(
        rule=_rule(document),
        timezone=_text(document["timezone"]),
        start_at=_from_instant(document["start_at"]),
        end_at=_from_instant(document["end_at"]),
        jitter=_duration(document["jitter"]),
        dst_gap=DstGap(document["dst_gap"]),
        dst_fold=DstFold(document["dst_fold"]),
    )


def _rule_document(rule: Rule) -> dict[str, object]:
    match rule:
        case CronRule():
            return {"kind": "cron", "fields": [list(field) for field in rule.fields]}
        case CrontabRule():
            return {"kind": "crontab", "expression": rule.expression}
        case IntervalRule():
            parts = [list(part) for part in rule.parts]
            return {"kind": "interval", "period": _micros(rule.period), "parts": parts}
        case DateRule():
            return {"kind": "date", "run_at": to_us(rule.run_at)}


def _rule(document: dict[str, Any]) -> Rule:
    match document["kind"]:
        case "cron":
            fields = tuple((_text(name), _text(text)) for name, text in document["fields"])
            return CronRule(fields=fields)
        case "crontab":
            return CrontabRule(expression=_text(document["expression"]))
        case "interval":
            parts = tuple((_text(name), int(count)) for name, count in document["parts"])
            return IntervalRule(period=_duration(document["period"]), parts=parts)
        case "date":
            return DateRule(run_at=from_us(document["run_at"]))
        case _:
            raise ValueError("unknown kind of schedule")


def _policy(document: dict[str, Any]) -> RunPolicy:
    return RunPolicy(
        misfire_grace=_optional_duration(document["misfire_grace"]),
        catch_up=CatchUp(document["catch_up"]),
        catch_up_window=_optional_duration(document["catch_up_window"]),
        catch_up_max_runs=int(document["catch_up_max_runs"]),
        overlap=OverlapPolicy(document["overlap"]),
        max_instances=int(document["max_instances"]),
        on_crash=OnCrash(document["on_crash"]),
    )


def _delivery(document: dict[str, Any]) -> Delivery:
    if document["kind"] != "http":
        raise ValueError("unknown kind of target")
    return Delivery(
        target=HttpTarget(
            method=_text(document["method"]),
            url=_text(document["url"]),
            headers=_headers(document["headers"]),
            body_json=document["body"],
            body_type=_BODY_TYPES[document["body_type"]],
            follow_redirects=bool(document["follow_redirects"]),
        ),
        timeout=_duration(document["timeout"]),
        retry=_retry(
            document["max_retries"],
            document["first_wait"],
            document["wait_max"],
            tuple(document["retry_statuses"]),
        ),
    )


def _headers(pairs: list[Any]) -> tuple[tuple[str, str], ...]:
    return tuple([(_text(name), _text(value)) for name, value in pairs])


# One retry policy serves most jobs.
@lru_cache(maxsize=_PARSED_MAX)
def _retry(
    max_retries: int, first_wait: int, wait_max: int, retry_statuses: tuple[int, ...]
) -> RetryPolicy:
    return RetryPolicy(
        max_retries=int(max_retries),
        first_wait=_duration(first_wait),
        wait_max=_duration(wait_max),
        retry_statuses=frozenset(int(status) for status in retry_statuses),
    )


def _micros(duration: timedelta) -> int:
    return duration // _MICROSECOND


def _optional_micros(duration: timedelta | None) -> int | None:
    return None if duration is None else _micros(duration)


# Few are in use, and most runs need some.
@lru_cache(maxsize=_PARSED_MAX)
def _duration(micros: int) -> timedelta:
    """Read a duration; one that no arithmetic with instants could bear is refused."""
    duration = timedelta(microseconds=micros)
    if not timedelta(0) <= duration <= _DURATION_MAX:
        raise ValueError("a duration out of range")
    return duration


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _optional_duration(micros: int | None) -> timedelta | None:
    return None if micros is None else _duration(micros)


def _instant(instant: datetime | None) -> int | None:
    return None if instant is None else to_us(instant)


def _from_instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)
