"""Endpoints on the catalogue of reasons and error codes; no database is asked."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.errors import http_statuses, problems
from app.api.v1 import PREFIX
from app.domain.catalogue import error_entry, nearest_code, reason_entry
from app.domain.errors import ReasonNotFoundError
from app.domain.execution import Reason
from app.schemas.reason_answer import (
    CatalogueAnswer,
    CodeAnswer,
    to_catalogue,
    to_error_code,
    to_reason,
)

router = APIRouter(prefix=f"{PREFIX}/reasons", tags=["reasons"])

# The texts change with the version of the program only.
_CACHE_CONTROL = "public, max-age=3600"

Code = Annotated[
    str,
    Path(max_length=64, description="A reason or an error code.", examples=["timeout"]),
]


@router.get("", responses=problems(), summary="All reasons and error codes")
async def list_reasons(response: Response) -> CatalogueAnswer:
    """List each reason of an execution and each code of an error answer, with cause and fix."""
    response.headers["Cache-Control"] = _CACHE_CONTROL
    return to_catalogue(http_statuses())


@router.get("/{code}", responses=problems(404, 422), summary="Read a reason or error code")
async def read_reason(code: Code, response: Response) -> CodeAnswer:
    """Read what a reason or an error code means, with cause and fix.

    A name that is both, such as `egress_denied`, is answered as both.
    """
    reason = next((reason for reason in Reason if reason == code), None)
    error = error_entry(code)
    if reason is None and error is None:
        raise ReasonNotFoundError(nearest_code(code))
    response.headers["Cache-Control"] = _CACHE_CONTROL
    return CodeAnswer(
        code=code,
        reason=None if reason is None else to_reason(reason, reason_entry(reason)),
        error=None if error is None else to_error_code(code, error, http_statuses()[code]),
    )
