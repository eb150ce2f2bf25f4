"""The endpoint that proves the ledger."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import ServicesDep
from app.api.errors import problems
from app.api.paging import refusing_query
from app.api.v1 import PREFIX
from app.schemas.ledger_answer import VerifyAnswer, to_verify_answer
from app.schemas.ledger_request import VerifyRequest

router = APIRouter(prefix=f"{PREFIX}/ledger", tags=["ledger"])


@router.get("/verify", responses=problems(404, 422), summary="Prove the ledger")
async def verify_ledger(
    services: ServicesDep, asked: Annotated[VerifyRequest, Query()]
) -> VerifyAnswer:
    """Recompute every due instant from the stored revisions and compare with what is recorded.

    An instant is accounted for by an execution of its own or by one that stands for many. Sets
    are compared: a row too many never makes up for one that is missing. Takes at most a minute; a
    larger ledger is proven by some requests, one after the other.
    """
    zone = services.defaults.zone
    with refusing_query():
        request = asked.to_audit(zone)
    return to_verify_answer(await services.ledger.verify(request), request.span, zone)
