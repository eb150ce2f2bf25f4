"""Value objects of which every run makes some.

``@record`` is ``@dataclass(frozen=True, slots=True, kw_only=True)`` to whoever reads the code and
to the type checker, which refuses assignments. Only the interpreter does not: the initializer of a
frozen dataclass takes thrice as long as a plain one's, and a run makes some seventy fields.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a value object: compared and hashed by its fields."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
