"""What an entry of the catalogue is made of."""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.execution import ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The same in English and in Japanese. Names of fields and values stand in backticks."""

    en: str
    ja: str


class Group(StrEnum):
    """What kind of trouble a reason tells of; the value is part of the API."""

    ATTEMPT_FAILED = "attempt_failed"
    NOT_RUN = "not_run"
    MISSED = "missed"
    INTERRUPTED = "interrupted"


GROUP_TITLES = {
    Group.ATTEMPT_FAILED: Text(en="An attempt failed", ja="試行が失敗した"),
    Group.NOT_RUN: Text(
        en="A due run did not start, or was ended",
        ja="予定の実行が始まらなかった、または打ち切られた",
    ),
    Group.MISSED: Text(en="A due run was missed", ja="予定の実行を逃した"),
    Group.INTERRUPTED: Text(en="A run was interrupted", ja="実行が中断された"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """What people are told: a short title, what happened, and what to do now.

    ``title`` is a phrase without a full stop; ``cause`` and ``fix`` are one or more sentences.
    """

    title: Text
    cause: Text
    fix: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonEntry(CatalogueEntry):
    """The entry of a reason. ``statuses``: those that an execution with this reason can have."""

    group: Group
    statuses: tuple[ExecutionStatus, ...]

    @property
    def in_use(self) -> bool:
        """Tell whether this version gives the reason to any execution."""
        return bool(self.statuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEntry(CatalogueEntry):
    """The entry of an error code.

    ``answered`` is False for one that answers no request: it stops a start, or code that uses
    ``app.locks``.
    """

    answered: bool = True
