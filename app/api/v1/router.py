"""All of version 1, what is called most first."""

from fastapi import FastAPI

from app.api.v1 import executions, explain, jobs, ledger, reasons, schedules

# Routes are tried one after the other, 1 µs each.
_PARTS = (jobs, executions, schedules, explain, reasons, ledger)


def install_v1(app: FastAPI) -> None:
    """Serve version 1."""
    for part in _PARTS:
        app.router.routes.extend(part.router.routes)
