"""Identifiers and how they are derived.

An execution of a due instant is named by what it is, not by when its row was written: the same job,
clock epoch and instant give the same id after a retry, a restart, a takeover or a restore from
backup, so that receivers can recognise a repetition.
"""

import base64
import hashlib
import os
from typing import NewType

JobId = NewType("JobId", str)
ExecutionId = NewType("ExecutionId", str)

_PREFIX = "exe_"
_DIGEST_LENGTH = 24


def execution_id_for(job_id: JobId, *, clock_epoch: int, scheduled_for_us: int) -> ExecutionId:
    """Derive the id of a scheduled execution: ``exe_`` and 24 base32 letters (120 bits)."""
    identity = f"{job_id}|{clock_epoch}|{scheduled_for_us}".encode()
    return ExecutionId(_PREFIX + _letters(hashlib.sha256(identity).digest()))


def random_execution_id() -> ExecutionId:
    """Make an id for an execution that no due instant names (manual runs)."""
    return ExecutionId(_PREFIX + _letters(os.urandom(15)))


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").lower()[:_DIGEST_LENGTH]
