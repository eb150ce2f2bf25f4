"""Requests are prepared once per job revision, within bounds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.execution import Attempt
from app.domain.ids import ExecutionId, JobId
from app.domain.job import BodyType, HttpTarget
from app.runners.failures import DeliveryError
from app.runners.http_options import HttpRunnerOptions
from app.runners.payload import encode_body
from app.runners.request import RequestCache, header_text, traceparent

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def attempt(job_id="j", revision=1, url="http://h/"):
    """Make an attempt."""
    return Attempt(
        execution_id=ExecutionId("exe_a"),
        job_id=JobId(job_id),
        job_revision=revision,
        number=1,
        scheduled_for=NOW,
        started_at=NOW,
        timeout=timedelta(seconds=1),
        target=HttpTarget(method="GET", url=url),
    )


def test_prepared_once():
    """Attempts of one revision share what does not vary."""
    cache = RequestCache(HttpRunnerOptions())
    assert cache.get(attempt()) is cache.get(attempt())


def test_new_revision():
    """Another revision is another request."""
    cache = RequestCache(HttpRunnerOptions())
    assert cache.get(attempt()).address.origin.host == "h"
    assert cache.get(attempt(revision=2, url="http://g/")).address.origin.host == "g"


def test_changed_target_of_one_revision():
    """A request is never taken from a revision whose target differs."""
    cache = RequestCache(HttpRunnerOptions())
    cache.get(attempt())
    assert cache.get(attempt(url="http://g/")).address.origin.host == "g"
    assert len(cache) == 1


def test_bounded():
    """The least recently used request goes when the cache is full."""
    cache = RequestCache(HttpRunnerOptions(prepared_max=2))
    first = cache.get(attempt("a"))
    cache.get(attempt("b"))
    assert cache.get(attempt("a")) is first
    cache.get(attempt("c"))
    assert len(cache) == 2
    assert cache.get(attempt("a")) is first


def test_what_cannot_be_prepared():
    """The reason why a request cannot be built is kept and told each time."""
    cache = RequestCache(HttpRunnerOptions())
    for _ in range(2):
        with pytest.raises(DeliveryError, match="http://"):
            cache.get(attempt(url="ftp://h/"))
    assert len(cache) == 1


def test_header_text():
    """Any text becomes visible ASCII, unambiguously."""
    assert header_text("plain-id_1.~") == b"plain-id_1.~"
    assert header_text("50% é\r\n") == b"50%25%20%C3%A9%0D%0A"
    assert header_text("\ud800") == b"?"


def test_traceparent():
    """The trace is the execution's, the span the attempt's; neither is all zeros."""
    one = attempt()
    again = replace(one, number=2)
    other = replace(one, execution_id=ExecutionId("exe_b"))
    assert traceparent(one) == traceparent(one)
    assert traceparent(one)[:36] == traceparent(again)[:36]
    assert traceparent(one)[36:] != traceparent(again)[36:]
    assert traceparent(one)[:36] != traceparent(other)[:36]
    assert len(traceparent(one)) == 55


@pytest.mark.parametrize(
    ("body_type", "text", "expected"),
    [
        (BodyType.JSON, "null", b"null"),
        (BodyType.JSON, ' [ 1 , "a b" ] ', b'[1,"a b"]'),
        (BodyType.JSON, r'"\\" ', rb'"\\"'),
        (BodyType.JSON, r'{"a\" b" : "c  d"}', rb'{"a\" b":"c  d"}'),
        (BodyType.FORM, "{}", b""),
        (BodyType.FORM, '{"a": [[1.0, "x"], false]}', b"a=%5B1.0%2C%22x%22%5D&a=false"),
        (BodyType.RAW, '""', b""),
        (BodyType.RAW, "null", b"null"),
    ],
)
def test_bodies(body_type, text, expected):
    """Bodies are made from JSON text without changing a value."""
    assert encode_body(text, body_type) == expected


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "'a'"])
def test_bodies_that_are_not_json(text):
    """Text that is not JSON is refused, however deep it nests."""
    with pytest.raises(DeliveryError):
        encode_body(text, BodyType.JSON)
