"""Which socket addresses this service may call: a pure policy over addresses, ports and names.

Strings are never trusted: a name is judged by the addresses it resolves to, at the moment of
connecting, and a number in any dress (``2130706433``, ``0x7f.1``, full-width digits) by the address
it means. Standard library only. ``runners`` asks it at every new connection through a protocol of
their own; ``services`` ask ``judge_url`` when a job is written, for what can be known then.

Rules, first match decides: the deny list; the addresses refused to everybody (unless an allow entry
names them by an address range of that very kind); the allow list; the mode. The schemes are judged
beside these: no list opens one.
"""

import socket
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65535
SCHEMES = tuple(_DEFAULT_PORTS)

# Refused in every mode. Sources: GUARANTEES §3.3; the clouds' documents name the metadata services.
_REFUSED: tuple[tuple[_Network, str], ...] = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("169.254.169.254/32", "a cloud metadata service"),
        ("fd00:ec2::254/128", "a cloud metadata service"),
        ("fd20:ce::254/128", "a cloud metadata service"),
        ("100.100.100.200/32", "a cloud metadata service"),
        ("168.63.129.16/32", "a cloud metadata service"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
# Refused by ``public`` besides: IANA's special-purpose registries, written out because
# ``ipaddress.is_global`` of Python 3.11 calls several of them global.
_NOT_PUBLIC: tuple[tuple[_Network, str], ...] = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("192.0.2.0/24", "for documentation"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("198.18.0.0/15", "for benchmarks"),
        ("fc00::/7", "private"),
        ("fec0::/10", "site-local"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
# Where an IPv6 address carries an IPv4 one: (prefix, bits to the right of the IPv4 address).
_CARRIERS: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291 §2.5.5.2
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291 §2.5.5.1
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated, RFC 2765
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215; the address lies as in RFC 6052 §2.2
_TEREDO = IPv6Network("2001::/32")  # RFC 4380 §4
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214 §6.1, the upper half of the interface identifier
_BITS_32 = 0xFFFFFFFF


class EgressMode(StrEnum):
    """What is allowed when no list says otherwise."""

    STANDARD = "standard"  # everything but what is refused to everybody; neighbours are welcome
    PUBLIC = "public"  # global addresses only
    ALLOWLIST = "allowlist"  # only what the allow list names


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressOptions:
    """The policy as configured; a malformed entry is a ``ValueError`` that names it.

    ``mode``: default ``standard``, since calling neighbours is what self-hosting is for.
    ``allow`` and ``deny``: entries, default none. An entry is an address or CIDR
    (``10.0.0.0/8``), a host name, or ``*.suffix`` (any depth, not the suffix itself), each
    optionally with ``:port`` (IPv6 then in brackets); or ``*`` and ``*:port`` for any host. Deny
    wins over allow. ``schemes``: default all, ``http`` and ``https``.
    """

    mode: EgressMode = EgressMode.STANDARD
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    schemes: tuple[str, ...] = SCHEMES

    def __post_init__(self) -> None:
        """Check every entry."""
        if not self.schemes or not set(self.schemes) <= set(SCHEMES):
            raise ValueError(f"egress schemes are one or more of {', '.join(SCHEMES)}")
        for entry in (*self.allow, *self.deny):
            _Entry.parse(entry)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a connection may be made; ``why`` is a clause for people, empty when allowed."""

    allowed: bool
    why: str = ""


_ALLOWED = Verdict(allowed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One line of an allow or deny list; an absent part matches everything."""

    network: _Network | None = None
    host: str | None = None
    suffix: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "_Entry":
        body, port = _split_port(text.strip())
        if body == "*":
            return cls(port=port)
        if network := _network(body.strip("[]")):
            return cls(network=network, port=port)
        wild = body.startswith("*.")
        host = canonical_host(body.removeprefix("*."))
        if not host or set(host) & set("*/ :@[]"):
            raise ValueError(
                f"egress entry {text!r} is not an address, CIDR, host name, *.suffix or *:port"
            )
        return cls(suffix=f".{host}", port=port) if wild else cls(host=host, port=port)

    def matches(self, *, address: _Address | None, port: int, host: str) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        if self.host is not None:
            return host == self.host
        return self.suffix is None or host.endswith(self.suffix)


class EgressPolicy:
    """Judges addresses; without state, so any thread may ask."""

    def __init__(self, options: EgressOptions) -> None:
        self.options = options
        self._allow = tuple(_Entry.parse(entry) for entry in options.allow)
        self._deny = tuple(_Entry.parse(entry) for entry in options.deny)

    def judge(self, address: str, port: int, *, host: str = "") -> Verdict:
        """Judge the address a socket is about to connect to.

        ``address`` is numeric (a zone such as ``%eth0`` is ignored); ``host`` is the name it was
        resolved from, so that entries for names apply, or empty. Every address that this one
        carries inside (IPv4-mapped, NAT64, 6to4, Teredo …) must pass as well.
        """
        try:
            outer = ip_address(address.partition("%")[0])
        except ValueError:
            return Verdict(allowed=False, why="what it resolves to is not an IP address")
        name = canonical_host(host)
        for inner in (outer, *_carried(outer)):
            verdict = self._judge_one(inner, port, host=name, carrier=outer)
            if not verdict.allowed:
                return verdict
        return _ALLOWED

    def judge_scheme(self, scheme: str) -> Verdict:
        """Judge how a target is spoken to; ``scheme`` is in lower case."""
        if scheme in self.options.schemes:
            return _ALLOWED
        allowed = " and ".join(self.options.schemes)
        why = f"MYSCHEDULER_EGRESS_SCHEMES allows {allowed}, not {scheme}"
        return Verdict(allowed=False, why=why)

    def judge_url(self, url: str) -> Verdict:
        """Judge what a URL alone tells: schemes, addresses in any dress, names no rule lets pass.

        An allowed name may still be refused at connect time, by what it resolves to. A URL without
        a host is not for this policy to refuse and is allowed.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError:
            return Verdict(allowed=False, why="its host or port cannot be read")
        host = canonical_host(parts.hostname or "")
        if not host:
            return _ALLOWED
        spoken = self.judge_scheme(parts.scheme)
        if not spoken.allowed:
            return spoken
        if address := numeric_address(host):
            return self.judge(address, port, host=host)
        return self._judge_name(host, port)

    def _judge_name(self, host: str, port: int) -> Verdict:
        if _any_match(self._deny, address=None, port=port, host=host):
            return Verdict(allowed=False, why=f"{host} port {port} is on the deny list")
        if _any_match(self._allow, address=None, port=port, host=host):
            return _ALLOWED
        mode = self.options.mode
        if mode is EgressMode.PUBLIC and _is_localhost(host) and not self._allows_ranges():
            return Verdict(allowed=False, why=f"{host} is this machine")
        if mode is EgressMode.ALLOWLIST and not self._allows_ranges():
            return Verdict(allowed=False, why=f"{host} port {port} is not on the allow list")
        return _ALLOWED

    def _allows_ranges(self) -> bool:
        return any(entry.network is not None for entry in self._allow)

    def _judge_one(self, address: _Address, port: int, *, host: str, carrier: _Address) -> Verdict:
        shown = _shown(address, carrier)
        if _any_match(self._deny, address=address, port=port, host=host):
            return Verdict(allowed=False, why=f"{shown} port {port} is on the deny list")
        if refused := _kind(address, _REFUSED):
            network, kind = refused
            named = self._names_refused(address, port, network=network)
            return _ALLOWED if named else Verdict(allowed=False, why=f"{shown} is {kind}")
        if _any_match(self._allow, address=address, port=port, host=host):
            return _ALLOWED
        return self._judge_by_mode(address, port, carrier=carrier)

    def _judge_by_mode(self, address: _Address, port: int, *, carrier: _Address) -> Verdict:
        match self.options.mode:
            case EgressMode.STANDARD:
                return _ALLOWED
            case EgressMode.PUBLIC:
                return _judge_public(address, shown=_shown(address, carrier))
            case EgressMode.ALLOWLIST:
                return self._judge_unlisted(address, port, carrier=carrier)

    def _names_refused(self, address: _Address, port: int, *, network: _Network) -> bool:
        return any(
            entry.network is not None
            and entry.network.version == network.version
            and entry.network.prefixlen >= network.prefixlen
            and entry.matches(address=address, port=port, host="")
            for entry in self._allow
        )

    def _judge_unlisted(self, address: _Address, port: int, *, carrier: _Address) -> Verdict:
        """Let an address pass whose carrier, or whose carried address, is the listed one."""
        family = {carrier, *_carried(carrier)}
        if any(_any_match(self._allow, address=one, port=port, host="") for one in family):
            return _ALLOWED
        why = f"{_shown(address, carrier)} port {port} is not on the allow list"
        return Verdict(allowed=False, why=why)


def canonical_host(host: str) -> str:
    """Fold a host to what a resolver compares: lower case, plain digits and dots, no final dot."""
    folded = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
    return folded.lower().rstrip(".") if len(folded) > 1 else folded.lower()


def numeric_address(host: str) -> str | None:
    """Tell the address a numeric host means, or None for a name.

    Decimal, hexadecimal, octal and short IPv4 forms are read by the C library's own rules
    (``inet_aton``), which are those of the resolver.
    """
    try:
        return str(IPv6Address(host.partition("%")[0]))
    except ValueError:
        pass
    if not host.isascii() or any(letter.isspace() for letter in host):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _judge_public(address: _Address, *, shown: str) -> Verdict:
    if found := _kind(address, _NOT_PUBLIC):
        return Verdict(allowed=False, why=f"{shown} is {found[1]}, not public")
    if isinstance(address, IPv6Address) and not _is_global_v6(address):
        return Verdict(allowed=False, why=f"{shown} is not public")
    return _ALLOWED


def _is_global_v6(address: IPv6Address) -> bool:
    """Tell a global unicast address, or a mere carrier: what that one carries decides."""
    carriers = (_LOCAL_NAT64, *(network for network, _ in _CARRIERS))
    return address in _GLOBAL_V6 or any(address in network for network in carriers)


def _carried(address: _Address) -> Iterator[IPv4Address]:
    if not isinstance(address, IPv6Address):
        return
    bits = int(address)
    if bits <= 1:  # the unspecified address and loopback carry nothing
        return
    for network, shift in _CARRIERS:
        if address in network:
            yield IPv4Address(bits >> shift & _BITS_32)
    if address in _LOCAL_NAT64:
        split = (bits >> 48 & 0xFFFF0000) | (bits >> 40 & 0xFFFF)
        yield IPv4Address(split or bits & _BITS_32)
    if address in _TEREDO:
        yield IPv4Address(bits >> 64 & _BITS_32)  # the Teredo server
        yield IPv4Address(~bits & _BITS_32)  # the client, stored inverted
    if bits >> 32 & _BITS_32 in _ISATAP:
        yield IPv4Address(bits & _BITS_32)


def _kind(address: _Address, table: Iterable[tuple[_Network, str]]) -> tuple[_Network, str] | None:
    return next(((network, kind) for network, kind in table if address in network), None)


def _any_match(
    entries: Iterable[_Entry], *, address: _Address | None, port: int, host: str
) -> bool:
    return any(entry.matches(address=address, port=port, host=host) for entry in entries)


def _is_localhost(host: str) -> bool:
    """Tell the names RFC 6761 §6.3 reserves for the machine itself."""
    return host == "localhost" or host.endswith(".localhost")


def _shown(address: _Address, carrier: _Address) -> str:
    return str(address) if address == carrier else f"{address} (inside {carrier})"


def _network(text: str) -> _Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _split_port(text: str) -> tuple[str, int | None]:
    body, colon, digits = text.rpartition(":")
    bracketed = body.startswith("[") and body.endswith("]")
    if not colon or (":" in body and not bracketed):
        return text, None
    if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) <= _PORT_MAX:
        raise ValueError(f"egress entry {text!r}: the port must be a number from 1 to 65535")
    return body, int(digits)
