"""Readiness as it is answered."""

from types import SimpleNamespace

import pytest
from fastapi import Response

from app.api.health import ready
from app.services.health_service import Check


class FakeHealth:
    """Finds what it is told."""

    def __init__(self, *, required: bool) -> None:
        self._check = Check(name="ledger", healthy=False, detail="a hole", required=required)

    async def check(self) -> list[Check]:
        well = Check(name="database", healthy=True, detail="the database takes writes")
        return [well, self._check]


@pytest.mark.parametrize(
    ("required", "status", "word"), [(True, 503, "not_ready"), (False, 200, "ready")]
)
async def test_only_required_checks_make_the_service_unready(
    required: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
    word: str,
):
    """A failed check that is not required is told, and the service stays ready."""
    response = Response()
    answer = await ready(SimpleNamespace(health=FakeHealth(required=required)), response)  # type: ignore[arg-type]  # a fake
    assert (response.status_code, answer.status) == (status, word)
    assert [check.healthy for check in answer.checks] == [True, False]
    assert answer.checks[1].required is required
