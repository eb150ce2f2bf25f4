"""Value objects: what ``@record`` makes of a class."""

from dataclasses import field, fields, replace

import pytest

from app.domain.record import record


@record
class Point:
    across: int
    up: int = 0
    marks: tuple[str, ...] = field(default=(), compare=False)


def test_a_record_is_what_its_fields_are():
    """Records are compared and hashed by their fields, but for those that are left out."""
    assert Point(across=1) == Point(across=1, up=0, marks=("seen",))
    assert Point(across=1) != Point(across=2)
    assert {Point(across=1), Point(across=1, marks=("seen",))} == {Point(across=1)}
    assert [one.name for one in fields(Point)] == ["across", "up", "marks"]


def test_a_record_is_made_by_names():
    """Fields are given by name, and there are no others."""
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[call-arg]  # what is tried
    with pytest.raises(AttributeError):
        Point(across=1).down = 2  # type: ignore[attr-defined]  # what is tried


def test_a_changed_record_is_another():
    """``replace`` leaves the one it is given as it was."""
    one = Point(across=1)
    assert replace(one, up=2) == Point(across=1, up=2)
    assert one == Point(across=1)
