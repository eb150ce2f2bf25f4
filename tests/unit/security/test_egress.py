"""The egress policy, address by address."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from app.security.egress import (
    EgressMode,
    EgressOptions,
    EgressPolicy,
    canonical_host,
    numeric_address,
)

STANDARD = EgressPolicy(EgressOptions())
PUBLIC = EgressPolicy(EgressOptions(mode=EgressMode.PUBLIC))

REFUSED_TO_ALL = [
    "169.254.169.254",
    "169.254.0.1",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.8",
    "192.0.0.192",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
]
NEIGHBOURS = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fc00::1",
    "fd12::1",
    "fec0::1",
]
NOT_GLOBAL = [
    *NEIGHBOURS,
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "2001:db8::1",
    "2001:1::1",
    "3fff::1",
    "100::1",
    "5f00::1",
    "4000::1",
]
GLOBAL = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]


def carriers(address):
    """Dress an IPv4 address in every IPv6 form that carries one."""
    value = int(IPv4Address(address))
    return {
        "mapped": IPv6Address(0xFFFF << 32 | value),
        "compatible": IPv6Address(value),
        "translated": IPv6Address(0xFFFF << 48 | value),
        "nat64": IPv6Address(int(IPv6Address("64:ff9b::")) | value),
        "local-nat64-tail": IPv6Address(int(IPv6Address("64:ff9b:1::")) | value),
        "local-nat64": IPv6Address(
            int(IPv6Address("64:ff9b:1::")) | value >> 16 << 64 | (value & 0xFFFF) << 40
        ),
        "6to4": IPv6Address(0x2002 << 112 | value << 80 | 1),
        "teredo-server": IPv6Address(0x20010000 << 96 | value << 64 | 0xF7F7F7F7),
        "teredo-client": IPv6Address(
            0x20010000 << 96 | int(IPv4Address("8.8.8.8")) << 64 | (~value & 0xFFFFFFFF)
        ),
        "isatap": IPv6Address(int(IPv6Address("2606:4700::")) | 0x5EFE << 32 | value),
    }


@pytest.mark.parametrize("policy", [STANDARD, PUBLIC], ids=["standard", "public"])
@pytest.mark.parametrize("address", REFUSED_TO_ALL)
def test_refused_to_all(policy, address):
    """Metadata, link-local, multicast, reserved and unspecified addresses are refused."""
    verdict = policy.judge(address, 80)
    assert not verdict.allowed
    assert verdict.why


@pytest.mark.parametrize("address", [*NOT_GLOBAL, *GLOBAL])
def test_standard_allows_the_rest(address):
    """``standard`` allows neighbours and the world."""
    assert STANDARD.judge(address, 443).allowed


@pytest.mark.parametrize("address", NOT_GLOBAL)
def test_public_refuses_what_is_not_global(address):
    """``public`` refuses loopback, private and special addresses."""
    assert not PUBLIC.judge(address, 443).allowed


@pytest.mark.parametrize("address", GLOBAL)
def test_public_allows_the_world(address):
    """``public`` allows global addresses."""
    assert PUBLIC.judge(address, 443).allowed


@pytest.mark.parametrize("form", carriers("127.0.0.1"))
@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1"]
)
def test_carried_addresses(form, address):
    """An IPv6 address is refused for the IPv4 address it carries."""
    carrier = str(carriers(address)[form])
    for policy in (STANDARD, PUBLIC):
        verdict = policy.judge(carrier, 80)
        assert not verdict.allowed
    assert address in STANDARD.judge(carrier, 80).why


@pytest.mark.parametrize("form", carriers("127.0.0.1"))
def test_public_and_carried_neighbours(form):
    """``public`` refuses neighbours inside IPv6 addresses, too."""
    assert not PUBLIC.judge(str(carriers("10.0.0.1")[form]), 80).allowed


@pytest.mark.parametrize("form", ["mapped", "nat64", "6to4"])
def test_public_and_carried_global_addresses(form):
    """``public`` allows the forms in which hosts reach the IPv4 world over IPv6."""
    assert PUBLIC.judge(str(carriers("8.8.8.8")[form]), 80).allowed


@pytest.mark.parametrize(
    "dress",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "025177524776",
        "169.254.43518",
        "169.16689662",
        "１６９．２５４．１６９．２５４",
        "169。254。169。254",
        "169.254.169.254.",
        "[::ffff:a9fe:a9fe]",
        "[0:0:0:0:0:ffff:169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[fe80::1%25eth0]",
    ],
)
def test_urls_with_refused_addresses(dress):
    """A refused address in a URL is known at once, in any dress."""
    assert not STANDARD.judge_url(f"http://{dress}/").allowed
    assert not STANDARD.judge_url(f"https://{dress}:8443/x?y#z").allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://localhost:8003/",
        "http://2130706433/",
        "http://10.0.0.1:99/",
        "https://[::1]/",
        "not a url",
        "http:///path",
    ],
)
def test_urls_standard_lets_pass(url):
    """Names and neighbours pass; what is no URL with a host is not this policy's business."""
    assert STANDARD.judge_url(url).allowed


@pytest.mark.parametrize(
    "url", ["http://localhost/", "http://a.localhost/", "http://127.1/", "http://[::1]/"]
)
def test_urls_public_refuses(url):
    """``public`` knows loopback by name and number."""
    assert not PUBLIC.judge_url(url).allowed


@pytest.mark.parametrize("url", ["http://a.test/", "HTTP://a.test/", "http://10.0.0.1:443/"])
def test_schemes_are_limited(url):
    """Where https alone is allowed, no http URL is, whatever the allow list names."""
    policy = EgressPolicy(EgressOptions(schemes=("https",), allow=("a.test", "10.0.0.0/8")))
    verdict = policy.judge_url(url)
    assert not verdict.allowed
    assert verdict.why == "MYSCHEDULER_EGRESS_SCHEMES allows https, not http"
    assert policy.judge_url(f"https{url[4:]}").allowed
    assert policy.judge_scheme("https").allowed
    assert not policy.judge_scheme("http").allowed


def test_both_schemes_are_allowed_by_default():
    """Both http and https may be called unless the operator says otherwise; nothing else may."""
    assert STANDARD.judge_scheme("http").allowed
    assert STANDARD.judge_scheme("https").allowed
    assert STANDARD.judge_url("ftp://a.test/").why.endswith("allows http and https, not ftp")


@pytest.mark.parametrize("schemes", [(), ("ftp",), ("https", "ws")])
def test_schemes_that_are_none(schemes):
    """A policy without a scheme, or with one that nobody speaks here, is refused."""
    with pytest.raises(ValueError, match="egress schemes are one or more of http, https"):
        EgressOptions(schemes=schemes)


@pytest.mark.parametrize("url", ["http://h:99999/", "http://h:x/", "http://[::1/"])
def test_urls_that_cannot_be_read(url):
    """A URL whose host or port cannot be read is refused."""
    assert STANDARD.judge_url(url).why == "its host or port cannot be read"


@pytest.mark.parametrize(
    ("entry", "address", "port", "host", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", 80, "", True),
        ("10.0.0.0/8", "11.1.2.3", 80, "", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 80, "", True),
        ("10.1.2.3", "10.1.2.3", 80, "", True),
        ("10.1.2.3:80", "10.1.2.3", 81, "", False),
        ("[fd12::1]:80", "fd12::1", 80, "", True),
        ("[fd12::1]:80", "fd12::1", 443, "", False),
        ("fd12::/16", "fd12::9", 443, "", True),
        ("api.corp", "10.1.2.3", 80, "API.corp.", True),
        ("api.corp", "10.1.2.3", 80, "xapi.corp", False),
        ("api.corp:443", "10.1.2.3", 80, "api.corp", False),
        ("*.corp", "10.1.2.3", 80, "a.b.corp", True),
        ("*.corp", "10.1.2.3", 80, "corp", False),
        ("*.corp", "10.1.2.3", 80, "evilcorp", False),
        ("*:8443", "10.1.2.3", 8443, "", True),
        ("*:8443", "10.1.2.3", 80, "", False),
    ],
)
def test_allow_entries(entry, address, port, host, allowed):
    """An allow entry opens what it names, under ``allowlist`` and under ``public``."""
    for mode in (EgressMode.ALLOWLIST, EgressMode.PUBLIC):
        policy = EgressPolicy(EgressOptions(mode=mode, allow=(entry,)))
        verdict = policy.judge(address, port, host=host)
        assert verdict.allowed is (allowed or (mode is EgressMode.PUBLIC and address[:2] == "11"))


def test_empty_allow_list():
    """Under ``allowlist`` without entries nothing is allowed."""
    policy = EgressPolicy(EgressOptions(mode=EgressMode.ALLOWLIST))
    assert not policy.judge("8.8.8.8", 80).allowed
    assert not policy.judge_url("http://example.com/").allowed


@pytest.mark.parametrize("mode", list(EgressMode))
def test_deny_wins(mode):
    """Deny wins over allow in every mode, for addresses, names and carried addresses."""
    options = EgressOptions(
        mode=mode, allow=("8.0.0.0/8", "*.test"), deny=("8.8.8.8", "bad.test", "*:25")
    )
    policy = EgressPolicy(options)
    assert policy.judge("8.8.4.4", 80, host="good.test").allowed
    assert not policy.judge("8.8.8.8", 80, host="good.test").allowed
    assert not policy.judge("64:ff9b::808:808", 80, host="good.test").allowed
    assert not policy.judge("8.8.4.4", 80, host="bad.test").allowed
    assert not policy.judge("8.8.4.4", 25, host="good.test").allowed
    assert not policy.judge_url("http://BAD.test./").allowed


@pytest.mark.parametrize("allow", ["0.0.0.0/0", "*.test", "metadata.test", "*:80", "160.0.0.0/3"])
def test_broad_entries_do_not_open_metadata(allow):
    """Only an entry that names a refused range itself opens it."""
    for mode in EgressMode:
        policy = EgressPolicy(EgressOptions(mode=mode, allow=(allow,)))
        assert not policy.judge("169.254.169.254", 80, host="metadata.test").allowed


def test_refused_address_opened_on_purpose():
    """An operator may open one refused address by naming it."""
    policy = EgressPolicy(EgressOptions(allow=("169.254.170.2/32", "224.0.0.0/4")))
    assert policy.judge("169.254.170.2", 80).allowed
    assert policy.judge("224.1.1.1", 80).allowed
    assert not policy.judge("169.254.169.254", 80).allowed


def test_names_and_the_allow_list_at_creation():
    """Under ``allowlist`` an unlisted name is refused at once, unless address ranges may vouch."""
    names_only = EgressPolicy(EgressOptions(mode=EgressMode.ALLOWLIST, allow=("a.test:443",)))
    assert names_only.judge_url("https://a.test/").allowed
    assert not names_only.judge_url("http://a.test/").allowed
    assert not names_only.judge_url("https://b.test/").allowed
    ranges = EgressPolicy(EgressOptions(mode=EgressMode.ALLOWLIST, allow=("10.0.0.0/8",)))
    assert ranges.judge_url("https://b.test/").allowed


@pytest.mark.parametrize(
    "entry", ["", "a b", "http://x", "x:0", "x:99999", "x:http", "*.a/b", "1.2.3.0/99"]
)
def test_malformed_entries(entry):
    """A malformed entry is refused by name when the policy is configured."""
    with pytest.raises(ValueError, match="egress entry"):
        EgressOptions(deny=(entry,))


def test_what_is_no_address():
    """What a resolver should never say is refused."""
    assert not STANDARD.judge("not-an-address", 80).allowed


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("fe80::1%eth0", "fe80::1"),
        ("example.com", None),
        ("1.2.3.4.5", None),
        ("127.0.0.1 x", None),
        ("é", None),
    ],
)
def test_numeric_address(host, expected):
    """Numbers are read as the resolver reads them, names are not read."""
    assert numeric_address(host) == expected


def test_canonical_host():
    """Hosts are compared in lower case, with plain digits and dots."""
    assert canonical_host("ＡＰＩ。Corp.") == "api.corp"
    assert canonical_host("") == ""
