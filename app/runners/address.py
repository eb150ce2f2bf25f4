"""Where a request goes: a URL taken apart once, its bytes kept.

What the user wrote after the host goes out byte for byte; only what HTTP cannot carry (spaces,
non-ASCII) is percent-encoded. May import the domain and httpx.
"""

import re
import socket
import unicodedata
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import httpx

from app.runners.failures import config_error

_PORTS = {"http": 80, "https": 443}
_HEAD = re.compile(r"[^:/?#]*://[^/?#]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[!-~]*")
_NAME = re.compile(r"[A-Za-z0-9._~-]+")
_ASCII_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_SHOWN_MAX = 200


class Origin(NamedTuple):
    """Where a URL leads, whatever its path: equal for two URLs of one origin (RFC 6454 §4).

    ``host`` is ASCII (IDNA), an IPv6 address without brackets. ``label`` names host and port for
    people; ``host_header`` has the port only where it is not the scheme's own. ``url`` serves
    transports: its host is where to connect, with numbers in any dress (``0177.1``) turned into the
    address they mean.
    """

    scheme: str
    host: str
    port: int
    label: str
    host_header: bytes
    url: httpx.URL


class Address(NamedTuple):
    """A parsed http or https URL.

    ``text`` is the URL as given; ``target`` is what follows the method on the request line.
    """

    text: str
    origin: Origin
    target: bytes


def parse_address(text: str) -> Address:
    """Take a URL apart. Raises ``DeliveryError`` (config_error), which does not repeat the URL."""
    if _CONTROL.search(text):
        raise config_error("The URL contains control characters; remove them")
    found = _HEAD.match(text)
    head = text if found is None else found.group()
    origin = _read_origin(head)
    return Address(text, origin, _target(text[len(head) :]))


# Many jobs call few hosts, and this is most of what a one-off's request costs to prepare.
@lru_cache(maxsize=4096)
def _read_origin(head: str) -> Origin:
    """Take apart what comes before a URL's path; what cannot be read is read anew each time."""
    try:
        parts = urlsplit(head)
        port = parts.port
    except ValueError as error:
        raise config_error("The URL's host or port cannot be read; check its spelling") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise config_error("The URL must begin with http:// or https://")
    if "@" in parts.netloc:
        raise config_error("The URL must not contain credentials; send them as a header")
    if port == 0 or not head[len(scheme) :].startswith("://"):
        raise config_error("The URL's host or port cannot be read; check its spelling")
    host = _ascii_host(parts.hostname or "")
    port = port or _PORTS[scheme]
    try:
        url = httpx.URL(scheme=scheme, host=_connectable(host), port=port, path="/")
    except httpx.InvalidURL as error:
        raise config_error("The URL's host cannot be called; check its spelling") from error
    shown = _bracketed(host)
    return Origin(
        scheme=scheme,
        host=host,
        port=port,
        label=f"{shown}:{port}",
        host_header=(shown if port == _PORTS[scheme] else f"{shown}:{port}").encode("ascii"),
        url=url,
    )


def join_address(base: Address, location: str) -> Address:
    """Resolve a Location header against the URL it answers. Raises as ``parse_address``."""
    try:
        return parse_address(urljoin(base.text, location.strip()))
    except ValueError as error:
        raise config_error("The redirect's Location cannot be read") from error


def shown_address(base: Address, location: str) -> str | None:
    """Show a Location's origin and path for people, or None when it cannot be shown safely.

    Query, fragment and credentials may hold secrets and are left out.
    """
    try:
        parts = urlsplit(urljoin(base.text, location.strip()))
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return None
    if not parts.hostname:
        return None
    shown = f"{parts.scheme}://{_bracketed(parts.hostname)}{port}{parts.path}"
    return "".join(c if c.isprintable() else "\ufffd" for c in shown[:_SHOWN_MAX])


def _ascii_host(host: str) -> str:
    if ":" in host:
        try:
            return str(_unscoped(host))
        except ValueError as error:
            raise config_error("The URL's IPv6 address cannot be read") from error
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
    if not host.isascii():
        try:
            host = httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise config_error("The URL's host is not a valid name") from error
    if not _NAME.fullmatch(host):
        raise config_error("The URL's host is missing or not a valid name")
    return host


def _unscoped(host: str) -> IPv6Address:
    address = IPv6Address(host)
    if address.scope_id is not None:
        raise ValueError("a zone means something on one machine only")
    return address


def _connectable(host: str) -> str:
    """Turn a numeric host into the address it means, by the C library's rules."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _target(rest: str) -> bytes:
    origin_form = rest.partition("#")[0]
    if not origin_form.startswith("/"):
        origin_form = f"/{origin_form}"
    if _PLAIN.fullmatch(origin_form):
        return origin_form.encode("ascii")
    try:
        return quote(origin_form, safe=_ASCII_VISIBLE).encode("ascii")
    except UnicodeEncodeError as error:
        raise config_error("The URL contains characters that cannot be sent") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
