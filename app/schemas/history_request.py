"""What lists are asked for: filters, a limit, and where to go on.

Words are refused by the models (422), naming what is allowed and what was probably meant. What
needs more than its own field is checked when a filter is made of it, as ``QueryError``.
"""

import difflib
import re
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.history import HistoryFilter, Position
from app.domain.ids import JobId
from app.domain.job import JobPosition, JobState
from app.schemas.cursor import CursorError, is_number, is_text, read_cursor, write_cursor
from app.schemas.job_request import Time
from app.schemas.times import read_instant

Word = TypeVar("Word", bound=StrEnum)

_WORDS_MAX = 64
# An offset whose plus sign was not quoted, and so arrived as a space.
_UNQUOTED_OFFSET = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")


class JobStatusWord(StrEnum):
    """What clients call the state of a job."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    BROKEN = "broken"


_STATES = {
    JobStatusWord.RUNNING: JobState.ACTIVE,
    JobStatusWord.PAUSED: JobState.PAUSED,
    JobStatusWord.COMPLETED: JobState.FINISHED,
    JobStatusWord.BROKEN: JobState.BROKEN,
}


class QueryError(ValueError):
    """A parameter of the query that cannot be; ``parameter`` is its name."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(problem)
        self.parameter = parameter


def _split(value: Any) -> Any:
    """Take words one by one or separated by commas."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return value
    return [word.strip() for item in value for word in item.split(",") if word.strip()]


def _words(kind: type[Word]) -> AfterValidator:
    def check(words: list[str]) -> list[str]:
        allowed = [member.value for member in kind]
        unknown = next((word for word in words if word not in allowed), None)
        if unknown is None:
            return sorted(set(words))
        near = difflib.get_close_matches(unknown[:_WORDS_MAX].lower(), allowed, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"has a word that is not known; {hint}Allowed are {', '.join(allowed)}")

    return AfterValidator(check)


def _mend_offset(value: Any) -> Any:
    if isinstance(value, str) and "t" in value.lower():
        return _UNQUOTED_OFFSET.sub("+", value)
    return value


Statuses = Annotated[list[str], BeforeValidator(_split), _words(ExecutionStatus)]
Reasons = Annotated[list[str], BeforeValidator(_split), _words(Reason)]
Causes = Annotated[list[str], BeforeValidator(_split), _words(Cause)]
JobStatuses = Annotated[list[str], BeforeValidator(_split), _words(JobStatusWord)]
QueryTime = Annotated[Time, BeforeValidator(_mend_offset)]

_MANY = "Several: repeat it, or separate them by commas."
_CURSOR = "`next_cursor` of the page before, with the same filters."


class HistoryRequest(BaseModel):
    """Filters of the history of one job, and which page."""

    model_config = ConfigDict(populate_by_name=True)

    status: Statuses = Field(default=[], description=f"Only these statuses. {_MANY}")
    reason: Reasons = Field(default=[], description=f"Only these reasons. {_MANY}")
    cause: Causes = Field(default=[], description=f"Only these causes. {_MANY}")
    since: QueryTime | None = Field(
        default=None,
        alias="from",
        description="Only what was due at this time or later; ISO 8601, without an offset in the "
        "service's time zone.",
    )
    until: QueryTime | None = Field(
        default=None, alias="to", description="Only what was due before this time."
    )
    limit: int = Field(default=50, ge=1, le=1000, description="How many executions to answer.")
    cursor: str | None = Field(default=None, description=_CURSOR)

    def to_filter(self, job_id: str | None, zone: str) -> HistoryFilter:
        """Make a filter; times without an offset are in ``zone``. Raises ``QueryError``."""
        since, until = _instant("from", self.since, zone), _instant("to", self.until, zone)
        if since is not None and until is not None and until <= since:
            raise QueryError("to", "must be later than from")
        return HistoryFilter(
            job_id=None if job_id is None else JobId(job_id),
            statuses=frozenset(map(ExecutionStatus, self.status)),
            reasons=frozenset(map(Reason, self.reason)),
            causes=frozenset(map(Cause, self.cause)),
            since=since,
            until=until,
        )

    def position(self, wanted: HistoryFilter) -> Position | None:
        """Tell where the page begins; None: at the newest. Raises ``QueryError``."""
        if self.cursor is None:
            return None
        found = _read(self.cursor, _history_key(wanted))
        if len(found) != (2 if wanted.goes_by_due else 1) or not all(map(is_number, found)):
            raise QueryError("cursor", "is not a cursor of this list")
        return tuple(found)


class RecentRequest(HistoryRequest):
    """Filters of the history of all jobs, and which page."""

    limit: int = Field(default=100, ge=1, le=1000, description="How many executions to answer.")


class ExecutionsRequest(RecentRequest):
    """Filters of the history of all jobs or of one, and which page."""

    job_id: str | None = Field(default=None, max_length=255, description="Only this job's.")


class JobListRequest(BaseModel):
    """Which jobs to list. Without ``limit`` and ``cursor`` that is all of them."""

    status: JobStatuses = Field(
        default=[],
        description=f"Only these: running, paused, completed, broken. {_MANY}",
    )
    limit: int | None = Field(default=None, ge=1, le=1000, description="How many jobs to answer.")
    cursor: str | None = Field(default=None, description=_CURSOR)

    @property
    def wants_page(self) -> bool:
        """Tell whether anything but the whole list is asked for."""
        return self.limit is not None or self.cursor is not None or bool(self.status)

    def states(self) -> frozenset[JobState]:
        """Tell the states asked for; none: all."""
        return frozenset(_STATES[JobStatusWord(word)] for word in self.status)

    def position(self) -> JobPosition | None:
        """Tell where the page begins; None: at the start. Raises ``QueryError``."""
        if self.cursor is None:
            return None
        match _read(self.cursor, self._key()):
            case [None, str() as job_id] if is_text(job_id):
                return JobPosition(next_run_us=None, id=job_id)
            case [int() as next_run_us, str() as job_id] if is_number(next_run_us) and is_text(
                job_id
            ):
                return JobPosition(next_run_us=next_run_us, id=job_id)
            case _:
                raise QueryError("cursor", "is not a cursor of this list")

    def write_position(self, position: JobPosition | None) -> str | None:
        """Write the cursor of the next page, if there is one."""
        if position is None:
            return None
        return write_cursor([position.next_run_us, position.id], self._key())

    def _key(self) -> object:
        return ["jobs", self.status]


def write_position(position: Position | None, wanted: HistoryFilter) -> str | None:
    """Write the cursor of the next page of a history, if there is one."""
    return None if position is None else write_cursor(list(position), _history_key(wanted))


def _history_key(wanted: HistoryFilter) -> object:
    """Say a filter in the same words in every process: sets have no order of their own."""
    words: list[list[str]] = [
        sorted(wanted.statuses),
        sorted(wanted.reasons),
        sorted(wanted.causes),
    ]
    return ["executions", wanted.job_id, *words, str(wanted.since), str(wanted.until)]


def _read(text: str, key: object) -> list[Any]:
    try:
        return read_cursor(text, key)
    except CursorError as error:
        raise QueryError("cursor", str(error)) from error


def _instant(parameter: str, value: datetime | date | None, zone: str) -> datetime | None:
    if value is None:
        return None
    try:
        return read_instant(value, zone)
    except OverflowError as error:
        raise QueryError(parameter, "lies beyond the calendar") from error
