"""Jobs as the API answers them, in the words that existing clients know."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from app.domain.execution import ExecutionStatus
from app.domain.job import Delivery, Job, JobDefinition, JobState
from app.domain.schedule import (
    CronRule,
    CrontabRule,
    DateRule,
    IntervalRule,
    Rule,
    Schedule,
)
from app.schemas.execution_answer import ExecutionAnswer
from app.schemas.job_request import MASK, SENSITIVE_HEADER
from app.schemas.times import show_instant, zone_abbreviation
from app.services.created_job import CreatedJob

# What clients call an active job; the other words are the same here and there.
_WIRE_STATUS = {JobState.ACTIVE: "running", JobState.FINISHED: "completed"}


class CreatedAnswer(BaseModel):
    """A stored job."""

    job_id: str
    status: str = Field(default="scheduled", examples=["scheduled"])
    next_run_time: str | None = Field(examples=["2026-11-22T09:00:00+09:00"])
    warnings: list[str] = Field(
        default_factory=list,
        examples=[["unknown field 'timeot_sec' ignored; did you mean 'timeout_sec'?"]],
    )


class ActionAnswer(BaseModel):
    """A change that was made; it is durable."""

    job_id: str
    status: str = Field(examples=["paused"])


class TriggerAnswer(ActionAnswer):
    """A run that was queued, over and above the schedule."""

    execution_id: str = Field(examples=["exe_k7o2hd3p5qj4vxw6zmbn2t4a"])


class JobInfo(BaseModel):
    """A job in a list."""

    job_id: str
    id: str
    name: str
    next_run_time: str | None = Field(examples=["2026-11-22T09:00:00+09:00"])
    trigger: str = Field(examples=["cron[hour='9', minute='0', second='0']"])
    status: str = Field(examples=["running"], description="running, paused, completed or broken")
    target_url: str
    method: str
    execution_count: int = Field(description="Executions that started.")


class JobList(BaseModel):
    """Jobs, soonest first: all of them, or a page."""

    jobs: list[JobInfo]
    next_cursor: str | None = Field(description="Ask with ?cursor= for what follows.")
    total: int | None = Field(description="Number of jobs that match; null above 10,000 in pages.")
    total_at_least: int | None = Field(description="At least so many match; null with `total`.")


class JobDetail(JobInfo):
    """A job in full, with its newest executions. Sensitive header values are masked."""

    func: str = "execute_http_job"
    trigger_info: dict[str, Any]
    headers: dict[str, str] | None
    body: Any
    body_type: str
    timeout_sec: float
    max_retries: int
    retry_backoff_sec: float
    retry_max_backoff_sec: float
    retry_statuses: list[int]
    follow_redirects: bool
    timezone: str
    start_at: str | None
    end_at: str | None
    jitter_sec: float
    dst_gap: str
    dst_fold: str
    misfire_grace_time: float | None
    catch_up: str
    coalesce: bool
    catch_up_window_sec: float | None
    catch_up_max_runs: int
    max_instances: int
    overlap_policy: str
    on_crash: str
    revision: int
    created_at: str
    updated_at: str
    state_reason: str | None
    totals: dict[str, int] = Field(
        description="How many due instants and manual runs came to each end, as long as this id "
        "exists: retention and deletion take nothing off.",
        examples=[
            {
                "completed": 1440,
                "failed": 2,
                "cancelled": 0,
                "unknown": 0,
                "skipped": 30,
                "missed": 0,
            }
        ],
    )
    executions: list[ExecutionAnswer]


def to_job_info(job: Job) -> JobInfo:
    """Show a job in a list. A broken one shows empty texts where nothing can be read."""
    return JobInfo.model_validate(_info(job))


def to_job_detail(
    job: Job,
    executions: list[ExecutionAnswer],
    *,
    totals: Mapping[ExecutionStatus, int],
    default_zone: str,
) -> JobDetail:
    """Show a job in full."""
    definition = job.definition
    zone = default_zone if definition is None else definition.schedule.timezone
    return JobDetail(
        **_info(job),
        **_definition_fields(definition, zone),
        revision=job.revision,
        created_at=show_instant(job.created_at, zone) or "",
        updated_at=show_instant(job.updated_at, zone) or "",
        state_reason=job.state_reason,
        totals={status.value: count for status, count in totals.items()},
        executions=executions,
    )


def to_created(job: CreatedJob, zone: str, warnings: list[str]) -> CreatedAnswer:
    """Answer a creation, in the job's zone."""
    return CreatedAnswer(
        job_id=job.id, next_run_time=show_instant(job.next_run_time, zone), warnings=warnings
    )


def wire_status(state: JobState) -> str:
    """Tell a job's state in the clients' words."""
    return _WIRE_STATUS.get(state, state.value)


def describe_trigger(schedule: Schedule) -> str:
    """Write a schedule as ``cron[…]``, ``interval[…]`` or ``date[…]``."""
    rule = schedule.rule
    match rule:
        case CronRule():
            fields = ", ".join(f"{name}='{text}'" for name, text in rule.fields)
            return f"cron[{fields}]"
        case CrontabRule():
            return f"cron[{rule.expression}]"
        case IntervalRule():
            return f"interval[{rule.period}]"
        case DateRule():
            local = show_instant(rule.run_at, schedule.timezone) or ""
            day, clock = local[:10], local[11:19]
            return f"date[{day} {clock} {zone_abbreviation(rule.run_at, schedule.timezone)}]"


def _info(job: Job) -> dict[str, Any]:
    definition = job.definition
    return {
        "job_id": job.id,
        "id": job.id,
        "name": job.id if definition is None else definition.name,
        "next_run_time": _next_run_time(job),
        "trigger": "date[]" if definition is None else describe_trigger(definition.schedule),
        "status": wire_status(job.state),
        "target_url": "" if definition is None else definition.delivery.target.url,
        "method": "" if definition is None else definition.delivery.target.method,
        "execution_count": job.execution_count,
    }


def _next_run_time(job: Job) -> str | None:
    if job.definition is None:
        return None
    return show_instant(job.next_run_time, job.definition.schedule.timezone)


def _definition_fields(definition: JobDefinition | None, zone: str) -> dict[str, Any]:
    if definition is None:
        return _UNREADABLE | {"timezone": zone}
    schedule, policy = definition.schedule, definition.policy
    window, grace = policy.catch_up_window, policy.misfire_grace
    return {
        **_delivery_fields(definition.delivery),
        "trigger_info": _trigger_info(schedule),
        "timezone": schedule.timezone,
        "start_at": show_instant(schedule.start_at, zone),
        "end_at": show_instant(schedule.end_at, zone),
        "jitter_sec": schedule.jitter.total_seconds(),
        "dst_gap": schedule.dst_gap,
        "dst_fold": schedule.dst_fold,
        "misfire_grace_time": None if grace is None else grace.total_seconds(),
        "catch_up": policy.catch_up,
        "coalesce": policy.catch_up != "all",
        "catch_up_window_sec": None if window is None else window.total_seconds(),
        "catch_up_max_runs": policy.catch_up_max_runs,
        "max_instances": policy.max_instances,
        "overlap_policy": policy.overlap,
        "on_crash": policy.on_crash,
    }


def _delivery_fields(delivery: Delivery) -> dict[str, Any]:
    target, retry = delivery.target, delivery.retry
    return {
        "headers": _masked(target.headers),
        "body": None if target.body_json is None else json.loads(target.body_json),
        "body_type": target.body_type,
        "timeout_sec": delivery.timeout.total_seconds(),
        "max_retries": retry.max_retries,
        "retry_backoff_sec": retry.first_wait.total_seconds(),
        "retry_max_backoff_sec": retry.wait_max.total_seconds(),
        "retry_statuses": sorted(retry.retry_statuses),
        "follow_redirects": target.follow_redirects,
    }


def _masked(headers: tuple[tuple[str, str], ...]) -> dict[str, str] | None:
    if not headers:
        return None
    return {name: MASK if SENSITIVE_HEADER.search(name) else value for name, value in headers}


def _trigger_info(schedule: Schedule) -> dict[str, Any]:
    rule: Rule = schedule.rule
    match rule:
        case CronRule():
            return {"type": "cron", "cron": dict(rule.fields)}
        case CrontabRule():
            return {"type": "cron", "cron": {}, "crontab": rule.expression}
        case IntervalRule():
            info = {"type": "interval", "interval_seconds": rule.period.total_seconds()}
            return {**info, **dict(rule.parts)}
        case DateRule():
            return {"type": "date", "run_date": show_instant(rule.run_at, schedule.timezone)}


_UNREADABLE: dict[str, Any] = {
    "trigger_info": {},
    "headers": None,
    "body": None,
    "body_type": "json",
    "timeout_sec": 0.0,
    "max_retries": 0,
    "retry_backoff_sec": 0.0,
    "retry_max_backoff_sec": 0.0,
    "retry_statuses": [],
    "follow_redirects": False,
    "start_at": None,
    "end_at": None,
    "jitter_sec": 0.0,
    "dst_gap": "run_after",
    "dst_fold": "first",
    "misfire_grace_time": None,
    "catch_up": "none",
    "coalesce": True,
    "catch_up_window_sec": None,
    "catch_up_max_runs": 0,
    "max_instances": 1,
    "overlap_policy": "skip",
    "on_crash": "fail",
}
