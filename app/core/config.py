"""Reads the configuration, says all that is wrong with it at once, and describes it.

Sources, later wins: defaults, ``.env``, environment (``NAME`` or ``NAME_FILE``), flags of the
command line. The table of settings is ``core/settings.py``. Imported by ``main`` and ``__main__``
only; no component reads the environment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app.core.redaction import mask_password
from app.core.settings import (
    LogFormat,
    LogLevel,
    Provenance,
    Settings,
    Variable,
)
from app.core.sources import Gathered, Given, Origin, gather
from app.core.spelling import nearest
from app.security.egress import EgressMode

__all__ = [
    "SETTING_NAMES",
    "ConfigError",
    "LogFormat",
    "LogLevel",
    "Origin",
    "SettingRow",
    "Settings",
    "Survey",
    "describe_settings",
    "load_settings",
    "survey_settings",
]

# Long enough to recognise a value, short enough for one line.
_SHOWN_CHARACTERS_MAX = 60


def _find_variables() -> dict[str, Variable]:
    return {
        name: mark
        for name, info in Settings.model_fields.items()
        for mark in info.metadata
        if isinstance(mark, Variable)
    }


_VARIABLES = _find_variables()

# Every name that is read, in the order of the table; each is also read as NAME_FILE.
SETTING_NAMES = tuple(name for variable in _VARIABLES.values() for name in variable.names)

_EMPTY_TEXTS = {name: variable.empty for variable in _VARIABLES.values() for name in variable.names}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting in words and values, fit to be shown: secrets in it are masked.

    ``value`` and ``default`` are JSON values. ``place`` is the path or the flag that ``origin``
    came from, or empty. ``other_names`` are accepted too.
    """

    name: str
    other_names: tuple[str, ...]
    value: Any
    default: Any
    origin: Origin
    place: str
    unit: str
    allowed: str
    description: str


class ConfigError(Exception):
    """The configuration cannot be used.

    ``problems`` holds every reason at once, ``warnings`` what else looked odd; each is a sentence
    that never repeats a secret.
    """

    def __init__(self, problems: tuple[str, ...], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a reading of all sources came to.

    ``settings`` is None if there are problems. ``rows`` always lists every setting; a refused value
    is shown as its default.
    """

    settings: Settings | None
    rows: list[SettingRow]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def load_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check everything; ``flags`` are texts keyed by setting name and win.

    A missing ``env_file`` is fine. Raises ``ConfigError`` with all problems at once.
    """
    survey = survey_settings(environ, env_file=env_file, flags=flags)
    if survey.settings is None:
        raise ConfigError(survey.problems, survey.warnings)
    return survey.settings


def survey_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None,
    flags: Mapping[str, str] | None = None,
) -> Survey:
    """Read everything as ``load_settings`` does, and report problems instead of raising."""
    gathered = gather(environ, env_file=env_file, flags=flags or {}, names=_EMPTY_TEXTS)
    given = _by_field(gathered)
    settings, refused = _build(given)
    problems = (*gathered.problems, *refused, *_find_conflicts(settings))
    warnings = (*gathered.warnings, *_find_doubts(settings))
    settings = settings.model_copy(update={"warnings": warnings})
    return Survey(
        settings=None if problems else settings,
        rows=describe_settings(settings),
        problems=problems,
        warnings=warnings,
    )


def describe_settings(settings: Settings) -> list[SettingRow]:
    """List every setting with its value, meaning and provenance, in the order of the table."""
    return [_describe(name, settings) for name in _VARIABLES]


def _by_field(gathered: Gathered) -> dict[str, Given]:
    """Choose one text for each field among its variable's names; the first name wins."""
    given: dict[str, Given] = {}
    for name, variable in _VARIABLES.items():
        texts = [gathered.given[word] for word in variable.names if word in gathered.given]
        if texts:
            given[name] = texts[0]
        gathered.warnings.extend(
            f"{texts[0].name} and {other.name} differ; {texts[0].name} is used"
            for other in texts[1:]
            if other.text != texts[0].text
        )
    return given


def _build(given: Mapping[str, Given]) -> tuple[Settings, list[str]]:
    """Build settings from the texts that can be used; return them with the others' problems."""
    values: dict[str, Any] = {name: one.text for name, one in given.items()}
    problems: list[str] = []
    try:
        Settings(**values)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            name = str(details["loc"][0])
            values.pop(name, None)
            problems.append(
                _sentence(name, given[name], kind=details["type"], message=details["msg"])
            )
    provenance = {
        name: Provenance(origin=given[name].origin, place=given[name].place) for name in values
    }
    return Settings(**values, provenance=provenance), problems


def _sentence(name: str, given: Given, *, kind: str, message: str) -> str:
    variable = _VARIABLES[name]
    # A file may hold a secret by mistake, whatever the setting.
    hidden = variable.secret or given.origin is Origin.FILE
    if kind == "value_error":
        predicate = message.removeprefix("Value error, ")
        subject = given.label if hidden else f"{given.label} is {_quote(given.text)}, which"
        return f"{subject} {predicate}"
    info = Settings.model_fields[name]
    must = f"it must be {_allowed(info, variable)}"
    if hidden:
        return f"{given.label} cannot be used; {must}"
    meant = nearest(given.text, _choices(info))
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{given.label} is {_quote(given.text)}; {must}{hint}"


def _quote(text: str) -> str:
    if len(text) > _SHOWN_CHARACTERS_MAX:
        text = text[:_SHOWN_CHARACTERS_MAX] + "…"
    return repr(text)


def _find_conflicts(settings: Settings) -> Iterator[str]:
    """Say which settings, each valid, cannot be in force together."""
    if settings.response_excerpt_bytes > settings.response_bytes_max:
        yield (
            f"MYSCHEDULER_RESPONSE_EXCERPT_BYTES ({settings.response_excerpt_bytes}) must not "
            f"exceed MYSCHEDULER_RESPONSE_BYTES_MAX ({settings.response_bytes_max}); "
            "what is not read cannot be kept"
        )


def _find_doubts(settings: Settings) -> Iterator[str]:
    """Say what is allowed but hardly meant."""
    if settings.egress is EgressMode.ALLOWLIST and not settings.egress_allow:
        yield (
            "MYSCHEDULER_EGRESS is allowlist and MYSCHEDULER_EGRESS_ALLOW is empty; "
            "every webhook will be refused"
        )


def _describe(name: str, settings: Settings) -> SettingRow:
    variable = _VARIABLES[name]
    info = Settings.model_fields[name]
    provenance = settings.provenance.get(name, Provenance())
    return SettingRow(
        name=variable.names[0],
        other_names=variable.names[1:],
        value=_plain(getattr(settings, name), variable),
        default=_plain(info.default, variable),
        origin=provenance.origin,
        place=provenance.place,
        unit=variable.unit,
        allowed=_allowed(info, variable),
        description=info.description or "",
    )


def _plain(value: Any, variable: Variable) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if variable.secret:
        return mask_password(value)
    return str(value) if isinstance(value, StrEnum) else value


def _allowed(info: FieldInfo, variable: Variable) -> str:
    """Say in words what a field accepts."""
    if variable.allowed:
        return variable.allowed
    if info.annotation is bool:
        return "true or false"
    if choices := _choices(info):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    number = "a whole number" if info.annotation is int else "a number"
    unit = f" of {variable.unit}" if variable.unit else ""
    least = next(mark.ge for mark in info.metadata if hasattr(mark, "ge"))
    most = next(mark.le for mark in info.metadata if hasattr(mark, "le"))
    return f"{number}{unit} from {least} to {most}"


def _choices(info: FieldInfo) -> list[str]:
    if isinstance(info.annotation, type) and issubclass(info.annotation, StrEnum):
        return [str(choice) for choice in info.annotation]
    return []
