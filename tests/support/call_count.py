"""Counts calls of functions: a measure of work that no other load on the machine changes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class CallCount:
    """How many functions, Python's and C's, were called since it was made; tests' own are not."""

    def __init__(self) -> None:
        self.calls = 0

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Count a call: the profiler's hook."""
        if event in {"call", "c_call"} and "/tests/" not in frame.f_code.co_filename:
            self.calls += 1


@contextmanager
def counted_calls() -> Iterator[CallCount]:
    """Count the calls of this thread and of threads that start within."""
    count = CallCount()
    before = sys.getprofile()
    threading.setprofile(count.note)
    sys.setprofile(count.note)
    try:
        yield count
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
