"""URLs are taken apart once, without changing a byte that HTTP can carry."""

import pytest

from app.domain.execution import Reason
from app.runners.address import join_address, parse_address, shown_address
from app.runners.failures import DeliveryError


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "host_header"),
    [
        ("http://h", "h", 80, b"/", b"h"),
        ("HTTPS://Ex.TEST/A", "ex.test", 443, b"/A", b"ex.test"),
        ("http://h:80/", "h", 80, b"/", b"h"),
        ("http://h:443/", "h", 443, b"/", b"h:443"),
        ("http://h./x", "h.", 80, b"/x", b"h."),
        ("http://[::1]:81/", "::1", 81, b"/", b"[::1]:81"),
        ("http://予定.test/", "xn--0kq913a.test", 80, b"/", b"xn--0kq913a.test"),
        ("http://bücher.test/", "xn--bcher-kva.test", 80, b"/", b"xn--bcher-kva.test"),
        ("http://under_score.test/", "under_score.test", 80, b"/", b"under_score.test"),
        ("http://h?a=%41#f", "h", 80, b"/?a=%41", b"h"),
        ("http://h/a#f?not", "h", 80, b"/a", b"h"),
        ("http://h/%zz%", "h", 80, b"/%zz%", b"h"),
        ("http://h/@x:y", "h", 80, b"/@x:y", b"h"),
    ],
)
def test_parts(url, host, port, target, host_header):
    """Host, port, target and Host header are what HTTP wants of this URL."""
    address = parse_address(url)
    origin = address.origin
    assert (origin.host, origin.port, address.target) == (host, port, target)
    assert origin.host_header == host_header


@pytest.mark.parametrize("dress", ["2130706433", "0177.1", "0x7f.0.0.1", "１２７.0.0.1"])
def test_numbers(dress):
    """A numeric host is connected to as the address it means."""
    assert parse_address(f"http://{dress}:81/").origin.url.host == "127.0.0.1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/x",
        "//h/x",
        "http:h",
        "http:/h",
        "http://",
        "http://:80/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:x/",
        "http://u@h/",
        "http://u:p@h/",
        "http://@h/",
        "http://h\\@g/",
        "http://h h/",
        "http://h%2e/",
        "http://[::1",
        "http://[zz]/",
        "http://[fe80::1%25eth0]/",
        "http://h\t/",
        "http://h/\x00",
        " http://h/",
        "http://h/\ud800",
        "http://" + "é" * 300 + ".test/",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_refused(url):
    """What cannot be called is a config error whose sentence does not repeat the URL."""
    with pytest.raises(DeliveryError) as caught:
        parse_address(url)
    assert caught.value.reason is Reason.CONFIG_ERROR
    assert len(url) < 6 or url not in str(caught.value)


def test_origin():
    """Origins are equal where scheme, host and port are, defaults included."""
    base = parse_address("http://h/a").origin
    assert base == parse_address("http://H:80/b?c").origin
    assert base != parse_address("https://h:80/").origin
    assert base != parse_address("http://h:81/").origin


def test_join():
    """A Location is resolved against the URL it answers."""
    base = parse_address("http://h:81/a/b?c")
    assert join_address(base, " ../d?e=%41 ").text == "http://h:81/d?e=%41"
    assert join_address(base, "//g/x").origin.host == "g"
    with pytest.raises(DeliveryError):
        join_address(base, "http://[::1/")


def test_shown():
    """A Location is shown without what may be secret."""
    base = parse_address("http://h/a")
    assert shown_address(base, "https://u:p@[::1]:81/x?y#z") == "https://[::1]:81/x"
    assert shown_address(base, "/x\u202e\x07") == "http://h/x\ufffd\ufffd"
    assert shown_address(base, "http://[::1/") is None
    assert shown_address(base, "mailto:a@b") is None
    assert len(shown_address(base, "/" + "x" * 9999) or "") == 200


@pytest.mark.parametrize("host", ["999.1.1.1", "1.2.3.256", "*", "%68"])
def test_a_host_that_cannot_be_called_is_a_configuration_error(host):
    """A URL whose host no socket could be opened to is refused, not raised through."""
    with pytest.raises(DeliveryError) as refused:
        parse_address(f"http://{host}/")
    assert refused.value.reason is Reason.CONFIG_ERROR
