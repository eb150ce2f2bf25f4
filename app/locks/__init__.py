"""Locks for jobs and any other code: one holder at a time over all processes on the database.

::

    with single_instance("monthly-invoices"):
        send_invoices()

Built on sessions of PostgreSQL, or on a file beside an SQLite database: see ``single_instance``.
"""

from app.domain.errors import LockLostError, LockTakenError
from app.locks.single import Held, HeldAsync, SingleInstance, single_instance

__all__ = [
    "Held",
    "HeldAsync",
    "LockLostError",
    "LockTakenError",
    "SingleInstance",
    "single_instance",
]
