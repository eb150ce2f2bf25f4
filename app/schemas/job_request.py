"""The request that creates a job, field by field, and what it means in the domain.

Malformed fields are refused by the model (422, the list that clients parse); a schedule that is
missing, contradictory or impossible is refused in the mapping (``InvalidError``, 400).
"""

import difflib
import json
import re
import unicodedata
from collections.abc import Container
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from app.domain.ids import JobId
from app.domain.job import BodyType
from app.domain.policies import CatchUp, OnCrash, OverlapPolicy
from app.domain.schedule import DstFold, DstGap
from app.runners.address import parse_address
from app.runners.failures import DeliveryError
from app.security.egress import canonical_host, numeric_address

MASK = "********"
# The same names as those that a redirect to another origin loses (runners/request.py).
SENSITIVE_HEADER = re.compile(
    r"auth|cookie|token|secret|key|passw|signature|credential", re.IGNORECASE
)

_HEADERS_MAX = 64
_HEADER_BYTES_MAX = 16 * 1024
_JSON_DEPTH_MAX = 64
_URL_LENGTH_MAX = 8192
# Unknown fields named one by one in an answer; more are only counted.
_WARNINGS_MAX = 20
_DIGITS = re.compile(r"[0-9.]+")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][^ ]+)?")
_ORIGIN = re.compile(r"[^:/?#]*://[^/?#]*")
_VISIBLE = re.compile(r"[!-~]*")
_ORIGINS_MAX = 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
)
_RESERVED_PREFIX = "webhook-"
_PERCENT_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNADDRESSABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_SENDABLE_STATUS = Annotated[int, Field(ge=400, le=599)]


class Method(StrEnum):
    """The methods a job may use."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    HEAD = "HEAD"
    OPTIONS = "OPTIONS"


class ScheduleType(StrEnum):
    """The kinds of schedule."""

    CRON = "cron"
    INTERVAL = "interval"
    DATE = "date"
    CRONTAB = "crontab"


def _check_job_id(text: str) -> str:
    """Refuse ids that a path could not address; clients do not quote them."""
    if text in {".", ".."}:
        raise ValueError("must not be . or .., which paths resolve away")
    if any(character in "/?#\\" for character in text):
        raise ValueError("must not contain / ? # or \\, which end a path")
    if _PERCENT_ESCAPE.search(text):
        raise ValueError("must not contain % followed by two hex digits, which paths decode")
    if not text.isprintable() and any(
        unicodedata.category(character) in _UNADDRESSABLE for character in text
    ):
        raise ValueError("must not contain control characters or line breaks")
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return text


def _check_name(text: str) -> str:
    if not text.isprintable() and any(
        unicodedata.category(character) in {"Cc", "Cs"} for character in text
    ):
        raise ValueError("must not contain control characters")
    return text


def _check_url(text: str) -> str:
    found = _ORIGIN.match(text)
    origin = text if found is None else found.group()
    host = _read_host(origin)
    if not _VISIBLE.fullmatch(text) and any(
        unicodedata.category(c) in _UNADDRESSABLE or c.isspace() for c in text
    ):
        raise ValueError("must not contain spaces or control characters; percent-encode them")
    if "#" in text:
        raise ValueError("must not contain a # fragment, which is never sent")
    _check_callable(origin, host)
    return text


# Many jobs call few hosts. What is refused is looked at anew each time.
@lru_cache(maxsize=_ORIGINS_MAX)
def _read_host(origin: str) -> str:
    """Read the host of a URL's beginning, up to its path."""
    try:
        parts = urlsplit(origin)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("must be a valid URL, such as https://example.com/hook") from error
    if parts.scheme.lower() not in {"http", "https"}:
        raise ValueError("must begin with http:// or https://")
    if not host:
        raise ValueError("must name a host, such as https://example.com/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain credentials; send them in a header instead")
    return canonical_host(host)


@lru_cache(maxsize=_ORIGINS_MAX)
def _check_callable(url: str, host: str) -> None:
    """Refuse what no attempt could be made at, by the rules of delivery."""
    if _DIGITS.fullmatch(host) and numeric_address(host) is None:
        raise ValueError("must name a host that can be called; this is not an IPv4 address")
    try:
        parse_address(url)
    except DeliveryError as error:
        raise ValueError("must name a host that can be called; check host and port") from error


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    if len(headers) > _HEADERS_MAX:
        raise ValueError(f"must be at most {_HEADERS_MAX} headers")
    total = 0
    names: set[str] = set()
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in names:
            raise ValueError("must not name a header twice in different spellings")
        names.add(name.lower())
        total += len(name) + len(value.encode())
    if total > _HEADER_BYTES_MAX:
        raise ValueError(f"must be at most {_HEADER_BYTES_MAX} bytes in all")
    return headers


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError("must have names of letters, digits and - _ . only")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIX):
        raise ValueError(f"must not set {name.lower()}, which this service sets itself")
    if any(character in "\r\n\0" for character in value):
        raise ValueError("must have values without line breaks or NUL")
    if any(unicodedata.category(character) == "Cs" for character in value):
        raise ValueError("must have values without lone surrogates")
    if any(ord(c) < ord(" ") and c != "\t" for c in value) or "\x7f" in value:
        raise ValueError("must have values without control characters")


def _fold_method(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _accept_integer(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def refuse_boolean(value: Any) -> Any:
    """Refuse what Python would read as 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - for Pydantic
    return value


def _read_time(value: Any) -> datetime | date:
    """Read ISO 8601 only: a number would be taken for seconds or milliseconds since 1970."""
    if isinstance(value, datetime | date):
        return value
    try:
        if isinstance(value, str) and (match := _TIME.fullmatch(value)):
            return datetime.fromisoformat(value.upper()) if match[1] else date.fromisoformat(value)
    except ValueError:
        pass  # such as a 13th month; refused below like all that is not a time
    raise ValueError(
        "must be a time such as 2035-01-01T09:00:00+09:00, or a date such as 2035-01-01"
    )


def _check_json(value: Any) -> Any:
    """Refuse JSON that could not be sent or stored faithfully."""
    if _depth(value) > _JSON_DEPTH_MAX:
        raise ValueError(f"must not be nested deeper than {_JSON_DEPTH_MAX} levels")
    try:
        _encode_json(value).encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not contain lone surrogates") from error
    except ValueError as error:
        raise ValueError("must not contain NaN, Infinity or numbers too long to write") from error
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= _JSON_DEPTH_MAX:
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


CronText = Annotated[
    str,
    Field(
        max_length=255,
        json_schema_extra={"type": ["string", "integer"], "examples": ["*/5", 30]},
    ),
]
Time = Annotated[datetime | date, BeforeValidator(_read_time)]


class CronFields(BaseModel):
    """APScheduler-style fields; one that is left out means ``*`` (``second``: ``0``)."""

    model_config = ConfigDict(extra="allow")

    year: CronText | None = None
    month: CronText | None = None
    day: CronText | None = None
    week: CronText | None = None
    day_of_week: CronText | None = Field(
        default=None, description="Digits as in crontab: 0 and 7 are Sunday, 1 is Monday."
    )
    hour: CronText | None = None
    minute: CronText | None = None
    second: CronText | None = None

    _accept_integers = field_validator("*", mode="before")(_accept_integer)


class IntervalParts(BaseModel):
    """A period, as the sum of its parts; at least one second."""

    model_config = ConfigDict(extra="allow")

    weeks: int | None = Field(default=None, ge=-(10**12), le=10**12)
    days: int | None = Field(default=None, ge=-(10**12), le=10**12)
    hours: int | None = Field(default=None, ge=-(10**12), le=10**12)
    minutes: int | None = Field(default=None, ge=-(10**12), le=10**12)
    seconds: int | None = Field(default=None, ge=-(10**12), le=10**12)

    _refuse_booleans = field_validator("*", mode="before")(refuse_boolean)


class JobRequest(BaseModel):
    """A job: what to call, when, how long to wait for it and how often to retry."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "job_id": "daily-report",
                    "name": "Daily report",
                    "schedule_type": "cron",
                    "target_url": "https://example.com/reports",
                    "method": "POST",
                    "body": {"kind": "daily"},
                    "timeout_sec": 30,
                    "max_retries": 3,
                    "retry_backoff_sec": 2,
                    "cron": {"hour": "9", "minute": "0"},
                }
            ]
        },
    )

    job_id: (
        Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_job_id)] | None
    ) = Field(default=None, description="Generated if left out.")
    name: Annotated[str, Field(max_length=255), AfterValidator(_check_name)] | None = Field(
        default=None, description="Shown to people; the job_id if left out."
    )
    schedule_type: ScheduleType
    target_url: Annotated[
        str, Field(min_length=1, max_length=_URL_LENGTH_MAX), AfterValidator(_check_url)
    ] = Field(description="Sent byte for byte.")
    method: Annotated[Method, BeforeValidator(_fold_method)] = Method.GET
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] | None = None
    body: Annotated[Any, AfterValidator(_check_json)] = Field(
        default=None, description="Any JSON; sent for POST, PUT and PATCH. null sends no body."
    )
    body_type: BodyType = BodyType.JSON
    timeout_sec: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Total per attempt, from connecting to the last byte.",
    )
    max_retries: int = Field(default=0, ge=0, le=100)
    retry_backoff_sec: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Wait before the first retry; doubles, plus up to a fifth of jitter.",
    )
    retry_max_backoff_sec: float = Field(default=3600.0, ge=0, le=86_400, allow_inf_nan=False)
    retry_statuses: list[_SENDABLE_STATUS] = Field(
        default_factory=list,
        max_length=100,
        description="Statuses retried besides 5xx, such as 429 without Retry-After.",
    )
    follow_redirects: bool = False
    cron: CronFields | None = None
    crontab: str | None = Field(
        default=None,
        max_length=255,
        description="Five fields as crontab reads them, or an @macro. For schedule_type crontab.",
    )
    interval: IntervalParts | None = None
    run_at: Time | None = Field(
        default=None,
        description="ISO 8601; without an offset in the job's timezone; a bare date is midnight.",
    )
    timezone: str | None = Field(default=None, max_length=255, description="An IANA name.")
    start_at: Time | None = None
    end_at: Time | None = None
    jitter_sec: float = Field(default=0.0, ge=0, le=3600, allow_inf_nan=False)
    dst_gap: DstGap = DstGap.RUN_AFTER
    dst_fold: DstFold = DstFold.FIRST
    misfire_grace_time: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Seconds a run may be late; null: any. Left out: 30, for dates any.",
    )
    coalesce: bool | None = Field(default=None, description="true: catch_up latest; false: all.")
    catch_up: CatchUp | None = None
    catch_up_window_sec: Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)] | None = None
    catch_up_max_runs: int = Field(default=100, ge=1, le=1000)
    max_instances: int = Field(default=1, ge=1, le=1000)
    overlap_policy: OverlapPolicy = OverlapPolicy.SKIP
    on_crash: OnCrash = OnCrash.RETRY
    replace_existing: bool = False

    _refuse_booleans = field_validator(
        "timeout_sec",
        "max_retries",
        "retry_backoff_sec",
        "retry_max_backoff_sec",
        "jitter_sec",
        "misfire_grace_time",
        "catch_up_window_sec",
        "catch_up_max_runs",
        "max_instances",
        mode="before",
    )(refuse_boolean)

    @model_validator(mode="after")
    def _check_body_form(self) -> Self:
        if self.body_type is BodyType.FORM and not _is_flat(self.body):
            raise ValueError("body must be an object of texts, numbers and booleans to be a form")
        if self.body_type is BodyType.RAW and not isinstance(self.body, str | None):
            raise ValueError("body must be a text to be sent raw")
        return self

    @property
    def id(self) -> JobId | None:
        """The job id asked for."""
        return None if self.job_id is None else JobId(self.job_id)

    def unknown_fields(self) -> list[str]:
        """Say which fields were ignored, and which known one each may have meant."""
        return list_unknown_fields(self, cron=self.cron, interval=self.interval)


def list_unknown_fields(
    request: BaseModel,
    *,
    cron: CronFields | None,
    interval: IntervalParts | None,
    accepted: Container[str] = (),
) -> list[str]:
    """Say which fields of a request and of its schedule were ignored, but for ``accepted`` ones.

    Comparing names costs tens of microseconds each, so that only the first ones are named.
    """
    models: list[tuple[str, BaseModel | None]] = [
        ("", request),
        ("cron.", cron),
        ("interval.", interval),
    ]
    found = [
        (prefix, name, type(model))
        for prefix, model in models
        if model is not None
        for name in (model.model_extra or {})
        if prefix or name not in accepted
    ]
    warnings = [_unknown(prefix, name, model) for prefix, name, model in found[:_WARNINGS_MAX]]
    more = len(found) - len(warnings)
    return [*warnings, f"and {more} more unknown fields ignored"] if more else warnings


def _unknown(prefix: str, name: str, model: type[BaseModel]) -> str:
    """Word one warning; a name may be any text, so it is cut and made printable."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:64])
    known = [field.alias or own_name for own_name, field in model.model_fields.items()]
    near = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"; did you mean '{prefix}{near[0]}'?" if near else ""
    return f"unknown field '{prefix}{shown}' ignored{hint}"


def _is_flat(body: Any) -> bool:
    if body is None:
        return True
    return isinstance(body, dict) and all(
        isinstance(value, str | int | float | bool) for value in body.values()
    )


def seconds(value: float) -> timedelta:
    """Read seconds of the wire."""
    return timedelta(seconds=value)
