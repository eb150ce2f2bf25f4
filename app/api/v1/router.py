"""All of version 1 below one prefix; the static path comes before the ones with a parameter."""

from fastapi import APIRouter

from app.api.strict_json import NO_LIMIT
from app.api.v1 import executions, explain, jobs, ledger, reasons, schedules

router = APIRouter(prefix="/api/v1", max_body_size=NO_LIMIT)
router.include_router(executions.router)
router.include_router(jobs.router)
router.include_router(schedules.router)
router.include_router(explain.router)
router.include_router(reasons.router)
router.include_router(ledger.router)
