"""What a creation is answered with, and how that is kept for a request that comes again."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from app.domain.clock import from_us, to_us
from app.domain.ids import JobId
from app.domain.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedJob:
    """What a creation is answered with."""

    id: JobId
    next_run_time: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """Take it from a job that was just stored."""
        return cls(id=job.id, next_run_time=job.next_run_time)

    @classmethod
    def load(cls, text: str) -> Self:
        """Read what ``dump`` wrote."""
        stored = json.loads(text)
        us = stored["next_run_us"]
        return cls(id=JobId(stored["id"]), next_run_time=None if us is None else from_us(us))

    def dump(self) -> str:
        """Write it as text."""
        us = None if self.next_run_time is None else to_us(self.next_run_time)
        return json.dumps({"id": self.id, "next_run_us": us})
