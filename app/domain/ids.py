"""Identifiers and how they are derived.

An execution of a due instant is named by what it is, not by when its row was written: the same job,
clock epoch and instant give the same id after a retry, a restart, a takeover or a restore from
backup, so that receivers can recognise a repetition.
"""

import hashlib
import os
from typing import NewType

JobId = NewType("JobId", str)
ExecutionId = NewType("ExecutionId", str)

_PREFIX = "exe_"
# RFC 4648's base32, two letters at a time: ten bits each. b32encode takes thrice as long.
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_SHIFTS = range(110, -1, -10)
_DIGEST_BYTES = 15


def execution_id_for(job_id: JobId, *, clock_epoch: int, scheduled_for_us: int) -> ExecutionId:
    """Derive the id of a scheduled execution: ``exe_`` and 24 base32 letters (120 bits)."""
    identity = f"{job_id}|{clock_epoch}|{scheduled_for_us}".encode()
    return ExecutionId(_PREFIX + _letters(hashlib.sha256(identity).digest()))


def random_execution_id() -> ExecutionId:
    """Make an id for an execution that no due instant names (manual runs)."""
    return ExecutionId(_PREFIX + _letters(os.urandom(15)))


def _letters(raw: bytes) -> str:
    bits = int.from_bytes(raw[:_DIGEST_BYTES], "big")
    return "".join([_PAIRS[bits >> shift & 1023] for shift in _SHIFTS])
