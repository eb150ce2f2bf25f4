"""The proof of the ledger, on request and as the readiness tells it."""

from dataclasses import replace
from datetime import timedelta

from app.engine.audit_walk import Audit
from app.engine.auditor import Auditor, AuditRequest

# A request ends within this, whatever the ledger holds; what is left is asked for again.
REQUEST_WITHIN = timedelta(seconds=60)


class LedgerService:
    """Proves the ledger in bounded time."""

    def __init__(self, auditor: Auditor, *, within: timedelta = REQUEST_WITHIN) -> None:
        self._auditor = auditor
        self._within = within

    async def verify(self, request: AuditRequest) -> Audit:
        """Prove what is asked for, as far as the time allows.

        Raises ``JobNotFoundError``; deleted jobs are found.
        """
        return await self._auditor.verify(replace(request, within=self._within))
