"""The table of settings: names, bounds, units, defaults and meanings.

Everything else about the configuration is made from this table: reading it, ``myscheduler config``,
the documentation, the checks. Imported by ``core/config.py``, through which others get it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.core.database_url import check_database_url, check_direct_url
from app.core.setting_texts import (
    check_egress_entries,
    check_egress_schemes,
    check_host,
    check_root_path,
    check_timezone,
    fold_choice,
    split_list,
)
from app.core.sources import EmptyText, Origin
from app.runners.http_options import TransportKind
from app.security.egress import SCHEMES, EgressMode

_MIB = 1024 * 1024
_EGRESS_ENTRIES = (
    "networks, hosts, *.suffixes or *, each with or without :port, separated by commas"
)


class Role(StrEnum):
    """What one replica does; the API answers in every role."""

    ALL = "all"
    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class LogLevel(StrEnum):
    """The least severity that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class LogFormat(StrEnum):
    """The shape of a log line."""

    AUTO = "auto"  # console on a terminal, json elsewhere
    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """How a setting is named and given outside.

    The first of ``names`` is the one we write; the others are accepted. ``allowed`` says in words
    what pydantic's constraints cannot; empty: they can.
    """

    names: tuple[str, ...]
    unit: str = ""
    allowed: str = ""
    secret: bool = False
    empty: EmptyText = EmptyText.NOT_GIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a setting's value came from; ``place`` is a path or a flag, or empty."""

    origin: Origin = Origin.DEFAULT
    place: str = ""


class Settings(BaseSettings):
    """The settings in force: frozen, checked, and complete.

    The constructor reads nothing from outside, so tests may build one from values;
    ``load_settings`` makes one from the environment.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    database_url: Annotated[
        str,
        AfterValidator(check_database_url),
        Variable(
            names=("DATABASE_URL",),
            allowed="sqlite:///path/to/jobs.db or postgresql://user:password@host:5432/database",
            secret=True,
            # An injected secret that failed must not silently become another database.
            empty=EmptyText.REFUSED,
        ),
        Field(
            repr=False,
            description="Where jobs and their history are kept: a SQLite file, whose directory is "
            "made, or a PostgreSQL database, which several replicas may share.",
        ),
    ] = "sqlite:///./data/jobs.db"
    timezone: Annotated[
        str,
        AfterValidator(check_timezone),
        Variable(names=("TIMEZONE", "TZ"), allowed="an IANA time zone such as Europe/Berlin"),
        Field(
            description="The zone of schedules that name none. TIMEZONE wins over TZ; "
            "the machine's own zone plays no part.",
        ),
    ] = "Asia/Tokyo"
    log_level: Annotated[
        LogLevel,
        BeforeValidator(fold_choice(LogLevel)),
        Variable(names=("LOG_LEVEL",)),
        Field(
            description="The least severity that is logged. "
            "INFO is one line per execution; DEBUG adds every station on its way.",
        ),
    ] = LogLevel.INFO
    host: Annotated[
        str,
        AfterValidator(check_host),
        Variable(names=("HOST",), allowed="an address or a host name of this machine"),
        Field(
            description="The address to listen on. 127.0.0.1 is reachable from this machine only, "
            "0.0.0.0 from everywhere: whoever reaches it can make this machine send requests.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(ge=0, le=65535, description="The port to listen on; 0 takes any free one."),
        Variable(names=("PORT",)),
    ] = 8003
    database_direct_url: Annotated[
        str,
        AfterValidator(check_direct_url),
        Variable(
            names=("MYSCHEDULER_DATABASE_DIRECT_URL",),
            allowed="postgresql://user:password@host:5432/database, or nothing",
            secret=True,
            empty=EmptyText.VALUE,
        ),
        Field(
            repr=False,
            description="The PostgreSQL server itself, where DATABASE_URL names a proxy that pools "
            "transactions: locks, wakeups and migrations need a session of their own. With it, "
            "nothing that a session keeps is expected of DATABASE_URL.",
        ),
    ] = ""
    role: Annotated[
        Role,
        BeforeValidator(fold_choice(Role)),
        Variable(names=("MYSCHEDULER_ROLE",)),
        Field(
            description="What a replica on PostgreSQL does: api only answers, scheduler may lead, "
            "worker sends, all does all of it.",
        ),
    ] = Role.ALL
    log_format: Annotated[
        LogFormat,
        BeforeValidator(fold_choice(LogFormat)),
        Variable(names=("MYSCHEDULER_LOG_FORMAT",)),
        Field(
            description="The shape of log lines: json is one object a line, console is for eyes, "
            "auto is console on a terminal and json elsewhere.",
        ),
    ] = LogFormat.AUTO
    shutdown_grace_seconds: Annotated[
        float,
        Variable(names=("MYSCHEDULER_SHUTDOWN_GRACE_SECONDS",), unit="seconds"),
        Field(
            ge=0,
            le=3600,
            allow_inf_nan=False,
            description="How long a stop waits for attempts under way before it gives them up. "
            "Keep it below what the supervisor allows (Kubernetes: 30).",
        ),
    ] = 25.0
    concurrency: Annotated[
        int,
        Variable(names=("MYSCHEDULER_CONCURRENCY",), unit="attempts"),
        Field(
            ge=1,
            le=10_000,
            description="How many attempts one process makes at once, over all hosts.",
        ),
    ] = 200
    host_concurrency: Annotated[
        int,
        Variable(names=("MYSCHEDULER_HOST_CONCURRENCY",), unit="attempts"),
        Field(
            ge=1,
            le=10_000,
            description="How many attempts run at once against one host, over all replicas, "
            "so that a slow target cannot take every place.",
        ),
    ] = 10
    host_starts_per_second: Annotated[
        float,
        Variable(names=("MYSCHEDULER_HOST_STARTS_PER_SECOND",), unit="attempts a second"),
        Field(
            ge=0,
            le=100_000,
            allow_inf_nan=False,
            description="How fast attempts start against one host, over all replicas, retries "
            "among them; 0 sets no limit.",
        ),
    ] = 0.0
    read_ahead_seconds: Annotated[
        float,
        Variable(names=("MYSCHEDULER_READ_AHEAD_SECONDS",), unit="seconds"),
        Field(
            ge=1,
            le=300,
            allow_inf_nan=False,
            description="How far ahead due jobs are read from the database.",
        ),
    ] = 5.0
    misfire_grace_seconds: Annotated[
        float,
        Variable(names=("MYSCHEDULER_MISFIRE_GRACE_SECONDS",), unit="seconds"),
        Field(
            ge=0,
            # About 31 years: in effect any lateness, and still a duration Python can hold.
            le=1_000_000_000,
            allow_inf_nan=False,
            description="How late a run may start and still count as on time, "
            "for jobs that do not say; beyond it the job's catch-up policy decides.",
        ),
    ] = 30.0
    late_starts_per_second: Annotated[
        float,
        Variable(names=("MYSCHEDULER_LATE_STARTS_PER_SECOND",), unit="runs a second"),
        Field(
            ge=0,
            le=100_000,
            allow_inf_nan=False,
            description="How fast runs start that were found more than 5 seconds late, after an "
            "outage say, over all jobs, so that targets are not stormed; 0 sets no limit.",
        ),
    ] = 50.0
    history_days: Annotated[
        float,
        Variable(names=("MYSCHEDULER_HISTORY_DAYS",), unit="days"),
        Field(
            ge=0.01,
            le=36_500,
            allow_inf_nan=False,
            description="How long ended executions are kept. Counters stay when they go.",
        ),
    ] = 30.0
    history_failed_days: Annotated[
        float,
        Variable(names=("MYSCHEDULER_HISTORY_FAILED_DAYS",), unit="days"),
        Field(
            ge=0.01,
            le=36_500,
            allow_inf_nan=False,
            description="How long failed and unknown executions are kept; "
            "never less than the others.",
        ),
    ] = 90.0
    history_per_job: Annotated[
        int,
        Variable(names=("MYSCHEDULER_HISTORY_PER_JOB",), unit="executions"),
        Field(
            ge=1,
            le=100_000_000,
            description="How many ended executions of one job are kept at most; of those that "
            "failed or are unknown as many again.",
        ),
    ] = 10_000
    verify_every_seconds: Annotated[
        float,
        Variable(names=("MYSCHEDULER_VERIFY_EVERY_SECONDS",), unit="seconds"),
        Field(
            ge=0,
            le=1_000_000,
            allow_inf_nan=False,
            description="How often the ledger is proven in the background: every due instant "
            "since the last proof must have its row; 0 leaves it to requests and commands.",
        ),
    ] = 300.0
    http_transport: Annotated[
        TransportKind,
        BeforeValidator(fold_choice(TransportKind)),
        Variable(names=("MYSCHEDULER_HTTP_TRANSPORT",)),
        Field(
            description="How webhooks are delivered: direct, or by the library httpx as the "
            "fallback, at about ten times the CPU per request.",
        ),
    ] = TransportKind.DIRECT
    http_trust_env: Annotated[
        bool,
        Variable(names=("MYSCHEDULER_HTTP_TRUST_ENV",)),
        Field(
            description="Whether deliveries use the proxies named by HTTP_PROXY, HTTPS_PROXY and "
            "NO_PROXY; the proxy then decides what may be reached.",
        ),
    ] = False
    egress: Annotated[
        EgressMode,
        BeforeValidator(fold_choice(EgressMode)),
        Variable(names=("MYSCHEDULER_EGRESS",)),
        Field(
            description="Which addresses webhooks may reach: standard refuses link-local "
            "addresses, metadata services and the like; public refuses every address that is not "
            "global; allowlist refuses all that MYSCHEDULER_EGRESS_ALLOW does not name.",
        ),
    ] = EgressMode.STANDARD
    egress_allow: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(split_list),
        AfterValidator(check_egress_entries),
        Variable(
            names=("MYSCHEDULER_EGRESS_ALLOW",),
            allowed=_EGRESS_ENTRIES,
            empty=EmptyText.VALUE,
        ),
        Field(
            description="What may be reached although MYSCHEDULER_EGRESS refuses it; an entry that "
            "ends with :port is about that port alone."
        ),
    ] = ()
    egress_deny: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(split_list),
        AfterValidator(check_egress_entries),
        Variable(
            names=("MYSCHEDULER_EGRESS_DENY",),
            allowed=_EGRESS_ENTRIES,
            empty=EmptyText.VALUE,
        ),
        Field(
            description="What may not be reached, whatever else allows it; an entry that ends with "
            ":port is about that port alone."
        ),
    ] = ()
    egress_schemes: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(split_list),
        AfterValidator(check_egress_schemes),
        Variable(
            names=("MYSCHEDULER_EGRESS_SCHEMES",),
            allowed="http, https or both, separated by a comma",
        ),
        Field(
            description="The schemes of URLs that may be called, redirects among them; https alone "
            "refuses all that is not encrypted."
        ),
    ] = SCHEMES
    response_bytes_max: Annotated[
        int,
        Variable(names=("MYSCHEDULER_RESPONSE_BYTES_MAX",), unit="bytes"),
        Field(
            ge=1024,
            le=1024 * _MIB,
            description="How much of an answer is read; a longer one fails the attempt.",
        ),
    ] = _MIB
    response_excerpt_bytes: Annotated[
        int,
        Variable(names=("MYSCHEDULER_RESPONSE_EXCERPT_BYTES",), unit="bytes"),
        Field(
            ge=0,
            le=16 * _MIB,
            description="How much of an answer is kept in the history; its true size is kept too.",
        ),
    ] = 65_536
    request_bytes_max: Annotated[
        int,
        Variable(names=("MYSCHEDULER_REQUEST_BYTES_MAX",), unit="bytes"),
        Field(ge=1024, le=64 * _MIB, description="The largest request body the API reads."),
    ] = 262_144
    definition_bytes_max: Annotated[
        int,
        Variable(names=("MYSCHEDULER_DEFINITION_BYTES_MAX",), unit="bytes"),
        Field(ge=1024, le=16 * _MIB, description="The largest job definition that is stored."),
    ] = 65_536
    startup_jobs_logged: Annotated[
        int,
        Variable(names=("MYSCHEDULER_STARTUP_JOBS_LOGGED",), unit="jobs"),
        Field(ge=0, le=1000, description="How many jobs are listed in the log at start."),
    ] = 20
    root_path: Annotated[
        str,
        AfterValidator(check_root_path),
        Variable(
            names=("MYSCHEDULER_ROOT_PATH",),
            allowed="a path such as /scheduler, or nothing",
            empty=EmptyText.VALUE,
        ),
        Field(description="The path under which a reverse proxy publishes the service."),
    ] = ""

    warnings: tuple[str, ...] = Field(default=(), exclude=True)
    provenance: dict[str, Provenance] = Field(default={}, exclude=True, repr=False)

    @property
    def session_url(self) -> str:
        """Tell the address of a database that keeps sessions: past a proxy that pools them."""
        return self.database_direct_url or self.database_url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor alone.

        The library's own sources drop misspelt names in silence, stop at the first value they
        cannot decode, and keep no record of where a value came from; ``core/sources.py`` does that.
        """
        return (init_settings,)
