"""The requests that ask what a schedule means: the schedule's fields of a job, and a span of time.

A whole job may be sent; what does not belong to its schedule is not looked at. Imported by the
mapping and the API.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.domain.schedule import DstFold, DstGap
from app.schemas.job_request import (
    CronFields,
    IntervalParts,
    JobRequest,
    ScheduleType,
    Time,
    list_unknown_fields,
    refuse_boolean,
)

_EXAMPLE: dict[str, Any] = {
    "schedule_type": "crontab",
    "crontab": "30 2 * * *",
    "timezone": "America/New_York",
}


class ScheduleRequest(BaseModel):
    """The fields of a job that make its schedule; each as in the request that creates a job."""

    model_config = ConfigDict(extra="allow")

    schedule_type: ScheduleType
    cron: CronFields | None = None
    crontab: str | None = Field(
        default=None,
        max_length=255,
        description="Five fields as crontab reads them, or an @macro. For schedule_type crontab.",
    )
    interval: IntervalParts | None = None
    run_at: Time | None = Field(
        default=None,
        description="ISO 8601; without an offset in the job's timezone; a bare date is midnight.",
    )
    timezone: str | None = Field(default=None, max_length=255, description="An IANA name.")
    start_at: Time | None = None
    end_at: Time | None = None
    jitter_sec: float = Field(default=0.0, ge=0, le=3600, allow_inf_nan=False)
    dst_gap: DstGap = DstGap.RUN_AFTER
    dst_fold: DstFold = DstFold.FIRST

    _refuse_booleans = field_validator("jitter_sec", mode="before")(refuse_boolean)

    def unknown_fields(self) -> list[str]:
        """Say which fields were ignored; those of a job beside its schedule are not counted."""
        return list_unknown_fields(
            self, cron=self.cron, interval=self.interval, accepted=JobRequest.model_fields
        )


class PreviewRequest(ScheduleRequest):
    """A schedule, and how many of its times to show from when on."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{**_EXAMPLE, "count": 5, "from": "2026-03-07T00:00:00"}]},
    )

    count: int = Field(default=5, ge=1, le=1000)
    from_: Annotated[Time | None, Field(alias="from")] = Field(
        default=None,
        description="The first instant that may be shown; left out: now. Without an offset it is "
        "read in the schedule's timezone.",
    )

    _refuse_boolean_counts = field_validator("count", mode="before")(refuse_boolean)


class SimulationRequest(ScheduleRequest):
    """A schedule, and the span in which the transitions of its zone are looked at."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{**_EXAMPLE, "from": "2026-01-01", "until": "2027-01-01"}]},
    )

    from_: Annotated[Time, Field(alias="from")]
    until: Time = Field(description="At most ten years after `from`.")
