"""Error answers: RFC 9457 problem documents, as clients of this API know them."""

from pydantic import BaseModel, ConfigDict, Field


class FieldProblem(BaseModel):
    """What is wrong with one field; the input is never repeated."""

    type: str = Field(examples=["greater_than"])
    loc: list[str | int] = Field(examples=[["body", "timeout_sec"]])
    msg: str = Field(examples=["Input should be greater than 0"])


class Problem(BaseModel):
    """Why a request was refused: ``detail`` is a sentence that says how to mend it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "Job nightly-report not found",
                    "code": "job_not_found",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


class ValidationProblem(BaseModel):
    """A malformed request: ``detail`` lists the fields, ``title`` says it in one sentence."""

    type: str = "about:blank"
    title: str = Field(
        examples=["body.timeout_sec: Input should be greater than 0"],
    )
    status: int = 422
    detail: list[FieldProblem]
    code: str = "malformed_request"
