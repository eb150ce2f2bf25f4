"""Checks the texts of single settings. Pure; each function is a Pydantic validator's body.

A ``ValueError`` carries the rest of a sentence that begins with the setting's name.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from app.core.spelling import nearest
from app.security.egress import SCHEMES, EgressOptions

_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)*")
# Part of the zone database, but it stands for "not set up yet".
_NO_ZONES = frozenset({"Factory"})


def check_timezone(name: str) -> str:
    """Return the IANA zone name, without the colon that POSIX allows before it.

    The names come from the tzdata package, so that the same ones work on every machine.
    """
    name = name.removeprefix(":")
    names = _zone_names()
    if name not in names:
        meant = nearest(name, names)
        hint = f"did you mean {meant}?" if meant else "use a name such as Asia/Tokyo or UTC"
        raise ValueError(f"is not an IANA time zone; {hint}")
    ZoneInfo(name)
    return name


def check_host(host: str) -> str:
    """Return a host name or address to listen on; a scheme, port, path or brackets are refused."""
    if not _HOST.fullmatch(host):
        raise ValueError(
            "is not a host to listen on; give an address such as 127.0.0.1, 0.0.0.0 or ::, "
            "without http://, brackets or a port"
        )
    return host


def check_root_path(path: str) -> str:
    """Return a path prefix that begins with ``/`` and does not end with one, or nothing."""
    path = path.rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError("is not a path prefix; it must look like /scheduler, or be empty")
    return path


def split_list(value: Any) -> Any:
    """Split ``a, b`` into its members, without empty ones; other types pass unchanged."""
    if isinstance(value, str):
        return tuple(member for part in value.split(",") if (member := part.strip()))
    return value


def check_egress_entries(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of an allow or deny list if the egress policy understands each."""
    for entry in entries:
        try:
            EgressOptions(allow=(entry,))
        except ValueError as error:
            raise ValueError(
                f"holds {entry!r}; an entry is a network (10.0.0.0/8), an address, a host name, "
                "*.suffix or *, each with or without :port"
            ) from error
    return entries


def check_egress_schemes(schemes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the schemes in lower case and in a fixed order, each once, if there are any."""
    given = {scheme.lower() for scheme in schemes}
    if not given or not given <= set(SCHEMES):
        raise ValueError("is not http, https or both, separated by a comma")
    return tuple(scheme for scheme in SCHEMES if scheme in given)


def fold_choice(choices: type[StrEnum]) -> Callable[[Any], Any]:
    """Make a function that spells a choice the way ``choices`` does, whatever its case."""
    by_folded = {str(choice).casefold(): choice for choice in choices}

    def fold(value: Any) -> Any:
        return by_folded.get(value.casefold(), value) if isinstance(value, str) else value

    return fold


@cache
def _zone_names() -> frozenset[str]:
    text = files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(text.split()) - _NO_ZONES
