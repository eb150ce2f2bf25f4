"""What a proof of the ledger is asked for: a span of time, of all jobs or of one."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field

from app.domain.clock import to_us
from app.domain.ids import JobId
from app.engine.auditor import AuditRequest
from app.engine.rules_in_force import FIRST_US, LAST_US, Span
from app.schemas.history_request import QueryError, QueryTime
from app.schemas.times import read_instant


class VerifyRequest(BaseModel):
    """Which part of the ledger to prove. Without anything that is all that is kept."""

    model_config = ConfigDict(populate_by_name=True)

    since: QueryTime | None = Field(
        default=None,
        alias="from",
        description="Only instants at this time or later; ISO 8601, without an offset in the "
        "service's time zone.",
    )
    until: QueryTime | None = Field(
        default=None, alias="to", description="Only instants before this time."
    )
    job_id: str | None = Field(
        default=None, max_length=255, description="Only this job's; a deleted one is found too."
    )
    after: str = Field(
        default="",
        max_length=255,
        description="`next_after` of the answer before, with the same span: go on behind this job.",
    )

    def to_audit(self, zone: str) -> AuditRequest:
        """Make what the engine asks; times without an offset are in ``zone``.

        Raises ``QueryError``.
        """
        since, until = _instant("from", self.since, zone), _instant("to", self.until, zone)
        if since is not None and until is not None and until <= since:
            raise QueryError("to", "must be later than from")
        span = Span(
            after_us=FIRST_US if since is None else max(to_us(since) - 1, FIRST_US),
            until_us=LAST_US if until is None else min(to_us(until) - 1, LAST_US),
        )
        job_id = None if self.job_id is None else JobId(self.job_id)
        return AuditRequest(span=span, job_id=job_id, after=JobId(self.after))


def _instant(parameter: str, value: datetime | date | None, zone: str) -> datetime | None:
    if value is None:
        return None
    try:
        return read_instant(value, zone)
    except OverflowError as error:
        raise QueryError(parameter, "lies beyond the calendar") from error
