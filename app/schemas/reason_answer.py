"""The catalogue of reasons and error codes as the API answers it."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from app.domain.catalogue import (
    CatalogueEntry,
    ErrorEntry,
    Group,
    ReasonEntry,
    Text,
    all_errors,
    all_reasons,
)
from app.domain.execution import ExecutionStatus, Reason
from app.schemas.bilingual import Words


class Explanation(BaseModel):
    """What people are told about something that went wrong. Backticks mark names and values."""

    title: Words = Field(examples=[{"en": "Timed out", "ja": "タイムアウト"}])
    cause: Words = Field(
        examples=[
            {
                "en": "The attempt did not end within the job's `timeout_sec`.",
                "ja": "試行がジョブの `timeout_sec` 以内に終わりませんでした。",
            }
        ]
    )
    fix: Words = Field(
        examples=[
            {"en": "Raise `timeout_sec`.", "ja": "`timeout_sec` を延ばしてください。"},
        ]
    )


class ReasonAnswer(Explanation):
    """A reason that an execution, or an attempt, can have."""

    code: Reason
    group: Group
    statuses: list[ExecutionStatus] = Field(
        description="The statuses of executions with this reason; empty when it is not in use."
    )
    in_use: bool = Field(description="Whether this version gives this reason to any execution.")


class ErrorCodeAnswer(Explanation):
    """A code that an error answer can have."""

    code: str = Field(examples=["job_not_found"])
    http_status: int | None = Field(
        examples=[404],
        description="The status of the answer; null for a code that only stops the start of the "
        "service. `bad_request` also comes with statuses that have no code of their own.",
    )


class CatalogueAnswer(BaseModel):
    """All reasons and all error codes, each with cause and fix."""

    reasons: list[ReasonAnswer]
    errors: list[ErrorCodeAnswer]


class CodeAnswer(BaseModel):
    """What one name means; as a reason, as an error code, or as both."""

    code: str = Field(examples=["egress_denied"])
    reason: ReasonAnswer | None
    error: ErrorCodeAnswer | None


def to_catalogue(http_statuses: Mapping[str, int]) -> CatalogueAnswer:
    """Show the whole catalogue; ``http_statuses`` is by error code."""
    return CatalogueAnswer(
        reasons=[to_reason(reason, entry) for reason, entry in all_reasons().items()],
        errors=[
            to_error_code(code, entry, http_statuses[code]) for code, entry in all_errors().items()
        ],
    )


def to_reason(reason: Reason, entry: ReasonEntry) -> ReasonAnswer:
    """Show the entry of a reason."""
    return ReasonAnswer(
        **_texts(entry),
        code=reason,
        group=entry.group,
        statuses=list(entry.statuses),
        in_use=entry.in_use,
    )


def to_error_code(code: str, entry: ErrorEntry, http_status: int) -> ErrorCodeAnswer:
    """Show the entry of an error code."""
    return ErrorCodeAnswer(
        **_texts(entry), code=code, http_status=int(http_status) if entry.answered else None
    )


def to_explanation(entry: CatalogueEntry) -> Explanation:
    """Show what people are told, and nothing else."""
    return Explanation(**_texts(entry))


def _texts(entry: CatalogueEntry) -> dict[str, Words]:
    return {"title": _words(entry.title), "cause": _words(entry.cause), "fix": _words(entry.fix)}


def _words(text: Text) -> Words:
    return Words(en=text.en, ja=text.ja)
