"""From the request to the domain: what the fields of a job mean together."""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlsplit

from app.domain.errors import InvalidJobError, InvalidScheduleError
from app.domain.job import Delivery, HttpTarget, JobDefinition
from app.domain.policies import CatchUp, RetryPolicy, RunPolicy
from app.domain.schedule import (
    CRON_FIELD_NAMES,
    CronRule,
    CrontabRule,
    DateRule,
    DstFold,
    IntervalRule,
    Rule,
    Schedule,
)
from app.engine.triggers import normalise_cron_fields
from app.schemas.job_request import MASK, SENSITIVE_HEADER, JobRequest, ScheduleType, seconds
from app.schemas.schedule_request import ScheduleRequest
from app.schemas.times import (
    JumpRule,
    LocalTimeKind,
    classify_local,
    read_instant,
    show_instant,
    wall_time,
)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_encode_json = json.JSONEncoder(ensure_ascii=False).encode
_INTERVAL_PARTS = ("weeks", "days", "hours", "minutes", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for a job that does not say."""

    zone: str
    misfire_grace: timedelta
    definition_bytes_max: int


def to_definition(request: JobRequest, job_id: str, defaults: Defaults) -> JobDefinition:
    """Map a request. Raises ``InvalidScheduleError`` and ``InvalidJobError``."""
    definition = JobDefinition(
        name=request.name or job_id,
        schedule=to_schedule(request, default_zone=defaults.zone),
        policy=_policy(request, defaults),
        delivery=_delivery(request),
    )
    _check_size(definition, defaults.definition_bytes_max)
    return definition


def to_schedule(request: JobRequest | ScheduleRequest, *, default_zone: str) -> Schedule:
    """Map the fields of a schedule. Raises ``InvalidScheduleError``."""
    zone = request.timezone or default_zone
    return Schedule(
        rule=_rule(request, zone),
        timezone=zone,
        start_at=to_instant(request.start_at, zone, field="start_at"),
        end_at=to_instant(request.end_at, zone, field="end_at"),
        jitter=seconds(request.jitter_sec),
        dst_gap=request.dst_gap,
        dst_fold=request.dst_fold,
    )


def remark_times(request: JobRequest | ScheduleRequest, schedule: Schedule) -> list[str]:
    """Say how local times were read that do not exist, or exist twice, in the schedule's zone."""
    read = {"start_at": schedule.start_at, "end_at": schedule.end_at}
    rules = {"start_at": JumpRule(), "end_at": JumpRule()}
    if isinstance(schedule.rule, DateRule):
        read["run_at"] = schedule.rule.run_at
        rules["run_at"] = JumpRule(gap=schedule.dst_gap, fold=schedule.dst_fold)
    remarks = [
        _remark(name, getattr(request, name), instant, schedule.timezone, rules[name])
        for name, instant in read.items()
        if instant is not None
    ]
    return [remark for remark in remarks if remark is not None]


def _remark(
    field: str, value: datetime | date, instant: datetime, zone: str, rule: JumpRule
) -> str | None:
    shown, wall = show_instant(instant, zone), wall_time(value).isoformat()
    match classify_local(value, zone):
        case LocalTimeKind.PLAIN:
            return None
        case LocalTimeKind.MISSING:
            return (
                f"{field} {wall} does not exist in {zone}, whose clocks go forward "
                f"over it; it is read as {shown} (dst_gap={rule.gap})"
            )
        case LocalTimeKind.DOUBLE:
            which = "second" if rule.fold is DstFold.SECOND else "first"
            return (
                f"{field} {wall} comes twice in {zone}, whose clocks go back; it is "
                f"read as the {which}, {shown} (dst_fold={rule.fold})"
            )


def keep_masked_headers(definition: JobDefinition, stored: JobDefinition | None) -> JobDefinition:
    """Put stored values in the place of masked ones that came back unchanged.

    Raises ``InvalidJobError`` if there is no stored value to keep, or if it would go to another
    origin than it was stored for: who may not see it must not send it elsewhere either.
    """
    target = definition.delivery.target
    if not any(value == MASK and SENSITIVE_HEADER.search(name) for name, value in target.headers):
        return definition
    known = (
        {}
        if stored is None
        else {name.lower(): value for name, value in stored.delivery.target.headers}
    )
    headers = []
    for name, value in target.headers:
        if value == MASK and SENSITIVE_HEADER.search(name):
            if name.lower() not in known:
                raise InvalidJobError(
                    f"The header {name} holds the mask that answers show instead of its value, "
                    "and no value is stored; send the real value"
                )
            if stored is not None and _origin(stored) != _origin(definition):
                raise InvalidJobError(
                    f"The header {name} holds the mask that answers show instead of its value, "
                    "and target_url names another scheme, host or port than the stored value was "
                    "meant for; send the real value"
                )
            headers.append((name, known[name.lower()]))
        else:
            headers.append((name, value))
    return _with_headers(definition, tuple(headers))


def _origin(definition: JobDefinition) -> tuple[str, str | None, int | None]:
    parts = urlsplit(definition.delivery.target.url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _with_headers(definition: JobDefinition, headers: tuple[tuple[str, str], ...]) -> JobDefinition:
    target = definition.delivery.target
    return JobDefinition(
        name=definition.name,
        schedule=definition.schedule,
        policy=definition.policy,
        delivery=Delivery(
            target=HttpTarget(
                method=target.method,
                url=target.url,
                headers=headers,
                body_json=target.body_json,
                body_type=target.body_type,
                follow_redirects=target.follow_redirects,
            ),
            timeout=definition.delivery.timeout,
            retry=definition.delivery.retry,
        ),
    )


def _rule(request: JobRequest | ScheduleRequest, zone: str) -> Rule:
    match request.schedule_type:
        case ScheduleType.CRON:
            return _cron_rule(request)
        case ScheduleType.CRONTAB:
            if not request.crontab:
                raise InvalidScheduleError(
                    'schedule_type crontab needs the field crontab, such as "0 9 * * mon-fri"'
                )
            return CrontabRule(expression=request.crontab)
        case ScheduleType.INTERVAL:
            return _interval_rule(request)
        case ScheduleType.DATE:
            if request.run_at is None:
                raise InvalidScheduleError(
                    "schedule_type date needs the field run_at, such as 2035-01-01T09:00:00+09:00"
                )
            rule = JumpRule(gap=request.dst_gap, fold=request.dst_fold)
            run_at = to_instant(request.run_at, zone, field="run_at", rule=rule)
            assert run_at is not None
            return DateRule(run_at=run_at)


def _cron_rule(request: JobRequest | ScheduleRequest) -> CronRule:
    if request.cron is None:
        raise InvalidScheduleError(
            'schedule_type cron needs the field cron, such as {"hour": "9", "minute": "0"}'
        )
    given = [
        (name, text)
        for name in CRON_FIELD_NAMES
        if (text := getattr(request.cron, name)) is not None
    ]
    if not given:
        raise InvalidScheduleError(
            "cron must name at least one field; "
            'every minute is {"minute": "*"}, every second {"second": "*"}'
        )
    fields = dict(given)
    fields.setdefault("second", "0")
    ordered = tuple((name, fields[name]) for name in CRON_FIELD_NAMES if name in fields)
    return CronRule(fields=normalise_cron_fields(ordered))


def _interval_rule(request: JobRequest | ScheduleRequest) -> IntervalRule:
    if request.interval is None:
        raise InvalidScheduleError(
            'schedule_type interval needs the field interval, such as {"minutes": 10}'
        )
    parts = tuple(
        (name, count)
        for name in _INTERVAL_PARTS
        if (count := getattr(request.interval, name)) is not None
    )
    if any(count < 0 for _, count in parts):
        raise InvalidScheduleError("interval must not have negative parts")
    try:
        period = timedelta(**{name: count for name, count in parts})  # noqa: C416 - for mypy
    except OverflowError as error:
        raise InvalidScheduleError("interval must not be longer than 10 years") from error
    if period < timedelta(seconds=1):
        raise InvalidScheduleError(
            'interval must add up to at least 1 second, such as {"minutes": 10}'
        )
    return IntervalRule(period=period, parts=tuple(part for part in parts if part[1]))


def to_instant(
    value: datetime | date | None, zone: str, *, field: str, rule: JumpRule | None = None
) -> datetime | None:
    """Read a time of the wire in a zone; None stays None. Raises ``InvalidScheduleError``."""
    if value is None:
        return None
    try:
        return read_instant(value, zone, rule=rule or JumpRule())
    except (OverflowError, ValueError) as error:
        raise InvalidScheduleError(
            f"{field} lies outside the calendar (years 1 to 9999)"
        ) from error


def _policy(request: JobRequest, defaults: Defaults) -> RunPolicy:
    catch_up = request.catch_up
    if catch_up is None:
        catch_up = CatchUp.ALL if request.coalesce is False else CatchUp.LATEST
    elif request.coalesce is not None and (catch_up is CatchUp.ALL) == request.coalesce:
        raise InvalidJobError(
            "coalesce and catch_up contradict each other; coalesce=true means latest, "
            "false means all: send one of them"
        )
    window = request.catch_up_window_sec
    return RunPolicy(
        misfire_grace=_grace(request, defaults),
        catch_up=catch_up,
        catch_up_window=None if window is None else seconds(window),
        catch_up_max_runs=request.catch_up_max_runs,
        overlap=request.overlap_policy,
        max_instances=request.max_instances,
        on_crash=request.on_crash,
    )


def _grace(request: JobRequest, defaults: Defaults) -> timedelta | None:
    """Read the grace; null, and a date's default, mean any lateness."""
    if "misfire_grace_time" in request.model_fields_set:
        grace = request.misfire_grace_time
        return None if grace is None else seconds(grace)
    return None if request.schedule_type is ScheduleType.DATE else defaults.misfire_grace


def _delivery(request: JobRequest) -> Delivery:
    body = request.body
    return Delivery(
        target=HttpTarget(
            method=request.method.value,
            url=request.target_url,
            headers=tuple((request.headers or {}).items()),
            body_json=None if body is None else _encode_json(body),
            body_type=request.body_type,
            follow_redirects=request.follow_redirects,
        ),
        timeout=seconds(request.timeout_sec),
        retry=RetryPolicy(
            max_retries=request.max_retries,
            first_wait=seconds(request.retry_backoff_sec),
            wait_max=seconds(max(request.retry_max_backoff_sec, request.retry_backoff_sec)),
            retry_statuses=frozenset(request.retry_statuses),
        ),
    )


def _check_size(definition: JobDefinition, bytes_max: int) -> None:
    target = definition.delivery.target
    size = len((target.body_json or "").encode()) + len(target.url)
    size += sum(len(name) + len(value) for name, value in target.headers)
    if size > bytes_max:
        raise InvalidJobError(
            f"The job's URL, headers and body take {size} bytes; at most {bytes_max} are stored. "
            "Let the target fetch large data itself"
        )
