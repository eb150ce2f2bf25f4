"""Health as the API answers it."""

from pydantic import BaseModel, Field

from app.domain.tenure import Tenure
from app.schemas.times import show_instant


class LeadershipAnswer(BaseModel):
    """How often the lead came to this process since its start, and went."""

    terms_won: int = Field(description="How often it became the leader.")
    terms_lost: int = Field(description="How often it ceased to be, its own stops included.")
    takeovers: int = Field(description="How many of its terms followed another replica's.")
    cut_offs: int = Field(description="How many silent leaders it cut off from the database.")
    leading_since: str | None = Field(description="Null while it does not lead.")


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
    leadership: LeadershipAnswer


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


def to_leadership(tenure: Tenure, zone: str) -> LeadershipAnswer:
    """Show how the lead came and went."""
    return LeadershipAnswer(
        terms_won=tenure.terms_won,
        terms_lost=tenure.terms_lost,
        takeovers=tenure.takeovers,
        cut_offs=tenure.cut_offs,
        leading_since=show_instant(tenure.leading_since, zone),
    )
