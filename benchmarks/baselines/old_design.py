"""The old design in a hundred lines: what a scheduling service is when first written.

FastAPI in front of APScheduler's AsyncIOScheduler with its SQLAlchemyJobStore on SQLite; each run
is a synchronous function in the loop's thread pool that opens an httpx client, and each change of
an execution is a commit of its own. Runs found later than the usual 30 seconds are misfires, which
APScheduler drops. ``python -m benchmarks.baselines.old_design`` serves it; DATABASE_URL and PORT
are in the environment.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

_MISFIRE_GRACE_SECONDS = 30
_engine = sa.create_engine(os.environ["DATABASE_URL"], connect_args={"timeout": 30})
_scheduler = AsyncIOScheduler(
    timezone="UTC",
    jobstores={"default": SQLAlchemyJobStore(engine=_engine)},
    job_defaults={"misfire_grace_time": _MISFIRE_GRACE_SECONDS, "max_instances": 1},
)


class _Base(DeclarativeBase):
    """The tables."""


class Execution(_Base):
    """One run."""

    __tablename__ = "executions"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(index=True)
    started_at: Mapped[float]
    finished_at: Mapped[float | None]
    status: Mapped[str]
    status_code: Mapped[int | None]
    error: Mapped[str | None]


class NewJob(BaseModel):
    """The fields of a one-off job that the benchmark sends."""

    job_id: str
    schedule_type: str
    run_at: datetime
    target_url: str
    method: str = "GET"
    body: dict[str, Any] | None = None
    timeout_sec: float = 30.0


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    _Base.metadata.create_all(_engine)
    _scheduler.start()
    yield
    _scheduler.shutdown(wait=False)


app = FastAPI(lifespan=_lifespan)


@app.get("/health/ready")
async def ready() -> dict[str, str]:
    """Tell that it is up."""
    return {"status": "ok"}


@app.post("/api/v1/jobs")
async def create_job(job: NewJob) -> dict[str, str]:
    """Store a job; answered after the job store's commit."""
    _scheduler.add_job(
        execute_http_job,
        "date",
        run_date=job.run_at,
        id=job.job_id,
        args=[job.job_id, job.method, job.target_url, job.body, job.timeout_sec],
    )
    return {"job_id": job.job_id, "status": "scheduled"}


def execute_http_job(
    job_id: str, method: str, url: str, body: dict[str, Any] | None, timeout_sec: float
) -> None:
    """Make one call and keep what it came to."""
    execution = Execution(id=uuid.uuid4().hex, job_id=job_id, started_at=_now(), status="running")
    with Session(_engine, expire_on_commit=False) as session:
        session.add(execution)
        session.commit()
        try:
            with httpx.Client(timeout=timeout_sec) as client:
                answer = client.request(method, url, json=body)
            execution.status = "completed" if answer.is_success else "failed"
            execution.status_code = answer.status_code
        except httpx.HTTPError as error:
            execution.status, execution.error = "failed", str(error)
        execution.finished_at = _now()
        session.commit()


def _now() -> float:
    return datetime.now(UTC).timestamp()  # noqa: TID251 - as it was done


if __name__ == "__main__":
    # By its path: APScheduler stores a job as the name of its function, and __main__ has none.
    uvicorn.run(
        "benchmarks.baselines.old_design:app",
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
    )
