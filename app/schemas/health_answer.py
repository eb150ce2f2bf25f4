"""Health as the API answers it."""

from pydantic import BaseModel, Field


class HealthAnswer(BaseModel):
    """The service answers."""

    message: str = "MyScheduler API is running"
    timezone: str = Field(examples=["Asia/Tokyo"])
    version: str = Field(examples=["0.1.0"])
    status: str = Field(default="ok", examples=["ok"])
    service: str = "myscheduler"
    leading: bool = Field(
        description="Whether this process makes the schedule. Of several replicas one does; "
        "`/health/ready` names it."
    )


class LiveAnswer(BaseModel):
    """The event loop turns."""

    status: str = Field(default="ok", examples=["ok"])


class CheckAnswer(BaseModel):
    """One named check."""

    name: str = Field(examples=["database"])
    healthy: bool
    detail: str = Field(examples=["the database takes writes"])
    required: bool = Field(description="Whether the service is not ready while this check fails.")


class ReadyAnswer(BaseModel):
    """Whether the service is fit for work, check by check."""

    status: str = Field(examples=["ready"], description="ready or not_ready")
    checks: list[CheckAnswer]
