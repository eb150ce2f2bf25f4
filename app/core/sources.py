"""Collects the texts of settings from ``.env``, the environment, secret files and flags.

Knows names and places, not meanings: ``core/config.py`` says which names exist and what a text may
be. Standard library and python-dotenv only. Called by ``core/config.py``.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from dotenv.parser import parse_stream

from app.core.spelling import is_one_slip_away, nearest

PREFIX = "MYSCHEDULER_"
FILE_SUFFIX = "_FILE"

# A secret is a line; a file beyond this is not one, and is not read to its end.
_FILE_CHARACTERS_MAX = 65536
# HOST, PORT and TZ are one slip away from too many names of other programs.
_GUESSABLE_LENGTH_MIN = 7
# Kubernetes announces a Service called myscheduler-… (or myscheduler) in variables of these names.
_SERVICE_LINK = re.compile(
    r"MYSCHEDULER_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class Origin(StrEnum):
    """Which kind of place a value came from; a later one wins."""

    DEFAULT = "default"
    ENV_FILE = ".env"
    ENVIRONMENT = "environment"
    FILE = "file"
    FLAG = "flag"


class EmptyText(StrEnum):
    """What an empty text means for a setting."""

    NOT_GIVEN = "not given"  # as compose files leave behind: NAME=${NAME:-}
    VALUE = "value"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One text that somebody gave for a setting.

    ``place`` is the secret file's or the ``.env`` file's path, or the flag; empty for the
    environment. ``text`` may be a secret and is kept out of ``repr``.
    """

    name: str
    text: str = field(repr=False)
    origin: Origin
    place: str = ""

    @property
    def label(self) -> str:
        """Name the text the way its author knows it, for sentences."""
        match self.origin:
            case Origin.FLAG:
                return self.place
            case Origin.FILE:
                return f"{self.name} (read from {self.place})"
            case Origin.ENV_FILE:
                return f"{self.name} (in {self.place})"
            case _:
                return self.name


@dataclass(slots=True)
class Gathered:
    """The winning text of each setting that was given, and what was wrong on the way."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    origin: Origin
    place: str
    texts: Mapping[str, str] = field(repr=False)


def gather(
    environ: Mapping[str, str],
    *,
    env_file: Path | None,
    flags: Mapping[str, str],
    names: Mapping[str, EmptyText],
) -> Gathered:
    """Collect the text of each of ``names``; the last of ``.env``, environment, flags wins.

    In either of the first two, ``NAME_FILE`` names a file that holds the text. ``flags`` are keyed
    by setting name. Never raises: what is wrong becomes a sentence, without any value in it.
    """
    gathered = Gathered()
    layers = [_Layer(origin=Origin.ENVIRONMENT, place="", texts=environ)]
    if env_file is not None:
        texts = _read_env_file(env_file, gathered.problems)
        layers.insert(0, _Layer(origin=Origin.ENV_FILE, place=str(env_file), texts=texts))
    for layer in layers:
        for name, empty in names.items():
            _take(name, layer, gathered, empty=empty)
        _judge_unknown_names(layer, names, gathered)
    for name, text in flags.items():
        place = f"--{name.removeprefix('MYSCHEDULER_').lower().replace('_', '-')}"
        gathered.given[name] = Given(name=name, text=text.strip(), origin=Origin.FLAG, place=place)
    _warn_of_near_misses(layers, names, gathered)
    return gathered


def _read_env_file(path: Path, problems: list[str]) -> dict[str, str]:
    """Read ``.env`` literally: ``${…}`` is not replaced, so a password may contain it."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read: {_reason(error)}")
        return {}
    problems.extend(
        f"{path}, line {binding.original.line}: this is not NAME=value; "
        "a value that holds spaces or quotes must be quoted"
        for binding in bindings
        if binding.error
    )
    return {
        binding.key: binding.value
        for binding in bindings
        if binding.key is not None and binding.value is not None
    }


def _take(name: str, layer: _Layer, gathered: Gathered, *, empty: EmptyText) -> None:
    direct = layer.texts.get(name, "").strip()
    path = layer.texts.get(name + FILE_SUFFIX, "").strip()
    if direct and path:
        gathered.problems.append(
            f"{name} and {name}{FILE_SUFFIX} are both given; remove one of them"
        )
    elif path:
        text = _read_secret_file(name, Path(path), gathered.problems)
        if text is not None:
            gathered.given[name] = Given(
                name=name, text=text, origin=Origin.FILE, place=_printable(path)
            )
    elif direct or (name in layer.texts and empty is EmptyText.VALUE):
        gathered.given[name] = Given(name=name, text=direct, origin=layer.origin, place=layer.place)
    elif name in layer.texts or name + FILE_SUFFIX in layer.texts:
        _note_empty(name, layer, gathered, empty=empty)


def _note_empty(name: str, layer: _Layer, gathered: Gathered, *, empty: EmptyText) -> None:
    word = name if name in layer.texts else name + FILE_SUFFIX
    place = f" (in {layer.place})" if layer.place else ""
    if empty is EmptyText.REFUSED:
        gathered.problems.append(f"{word}{place} is empty; give it a value, or remove it")
    else:
        gathered.warnings.append(f"{word}{place} is empty, which counts as not given")


def _read_secret_file(name: str, path: Path, problems: list[str]) -> str | None:
    variable = name + FILE_SUFFIX
    shown = _printable(str(path))
    if _ADDRESS.match(str(path)):
        problems.append(f"{variable} must name a file that holds the value, and holds an address")
        return None
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(_FILE_CHARACTERS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{variable} names {shown}, which cannot be read: {_reason(error)}")
        return None
    if len(text) > _FILE_CHARACTERS_MAX:
        problems.append(
            f"{variable} names {shown}, which is longer than {_FILE_CHARACTERS_MAX} characters"
        )
        return None
    if not text.strip():
        problems.append(f"{variable} names {shown}, which is empty; write the value into it")
        return None
    return text.strip()


def _printable(text: str) -> str:
    """Return ``text`` without anything that could steer a terminal or break its encoding."""
    return text if text.isprintable() else repr(text)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8 text"


def _judge_unknown_names(layer: _Layer, names: Collection[str], gathered: Gathered) -> None:
    known = {*names, *(name + FILE_SUFFIX for name in names)}
    for word, text in sorted(layer.texts.items()):
        if not word.upper().startswith(PREFIX) or word in known or _is_service_link(word, text):
            continue
        shown = _printable(word)
        meant = _meant_by(word, known)
        hint = f"; did you mean {meant}?" if meant else "; `myscheduler config` lists all settings"
        place = f" (in {layer.place})" if layer.place else ""
        gathered.problems.append(f"{shown}{place} is not a setting{hint}")


def _is_service_link(word: str, text: str) -> bool:
    if _SERVICE_LINK.fullmatch(word):
        return True
    return word.endswith("_PORT") and _SERVICE_ADDRESS.match(text) is not None


def _meant_by(word: str, known: Collection[str]) -> str | None:
    bare = word.upper().removeprefix(PREFIX)
    if bare in known:
        return bare
    by_bare = {name.removeprefix(PREFIX): name for name in sorted(known, reverse=True)}
    meant = nearest(bare, by_bare)
    return by_bare[meant] if meant else None


def _warn_of_near_misses(layers: list[_Layer], names: Collection[str], gathered: Gathered) -> None:
    wanted = [
        name
        for name in names
        if not name.startswith(PREFIX)
        and len(name) >= _GUESSABLE_LENGTH_MIN
        and name not in gathered.given
    ]
    for layer in layers:
        for word in sorted(layer.texts):
            gathered.warnings.extend(
                f"{_printable(word)} is not read; did you mean {name}?"
                for name in wanted
                if word != name and is_one_slip_away(word, name)
            )
